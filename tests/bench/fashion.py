"""Fashion-MNIST: a residual network of 0.7 M parameters, trained here, with its data and its accuracy.

Images are fp32 `[batch, 1, 28, 28]` in 0..1; the network normalises them itself.
"""

from __future__ import annotations

import functools
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.zoo.minilm import Feed, Run
from tests.zoo.packages import FASHION_MNIST, unpacked

Array = np.ndarray[Any, Any]
REVISION = 1
EPOCHS, BATCH = 12, 128


def model() -> Path:
    """The trained network, opset 21, batch dynamic; trained in about 15 CPU-minutes when it is not in the cache."""
    import torch

    from tests.bench.training import trained

    return trained(f"fashion-{REVISION}", _train, {"image": torch.zeros(2, 1, 28, 28)})


def calibration() -> Iterator[Feed]:
    """512 training images, one a feed, as they are."""
    images, _ = read("train")
    for image in images[:512]:
        yield {"image": image[None]}


def unlabelled() -> Iterator[Feed]:
    """Eight times all training images, flipped and shifted anew each time, 64 a feed."""
    images, _ = read("train")
    for epoch in range(8):
        rng = np.random.default_rng(1000 + epoch)
        order = rng.permutation(len(images))
        for start in range(0, len(order) - 63, 64):
            yield {"image": augmented(images[order[start : start + 64]], rng)}


def accuracy(run: Run) -> float:
    """Test images told right, in percent."""
    images, labels = read("t10k")
    right = 0
    for start in range(0, len(images), 200):
        logits = run({"image": images[start : start + 200]})[0]
        right += int((logits.argmax(1) == labels[start : start + 200]).sum())
    return 100 * right / len(images)


@functools.cache
def read(part: str) -> tuple[Array, Array]:
    """Images and labels of `train` (60000) or `t10k` (10000), from the idx files."""
    folder = unpacked(FASHION_MNIST) / "usr/share/datasets/fashion-mnist"
    images = gzip.decompress((folder / f"{part}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{part}-labels-idx1-ubyte.gz").read_bytes())
    pixels = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 1, 28, 28)
    return pixels.astype(np.float32) / 255, np.frombuffer(labels, np.uint8, offset=8).astype(np.int64)


def augmented(images: Array, rng: np.random.Generator) -> Array:
    """Images `[N, 1, 28, 28]` flipped left to right by chance, and shifted by up to 2 pixels."""
    count = len(images)
    flipped = np.where(rng.random(count)[:, None, None, None] < 0.5, images[..., ::-1], images)
    padded = np.pad(flipped, ((0, 0), (0, 0), (2, 2), (2, 2)))
    down, right = rng.integers(0, 5, (2, count, 1, 1))
    rows = down + np.arange(28)[None, :, None]
    columns = right + np.arange(28)[None, None, :]
    return np.ascontiguousarray(padded[np.arange(count)[:, None, None], 0, rows, columns][:, None])


def _train() -> Any:
    import torch

    from tests.bench.residual import ResidualNetwork
    from tests.bench.training import fit

    torch.manual_seed(0)
    images, labels = read("train")

    def batches(epoch: int) -> Iterator[Any]:
        rng = np.random.default_rng(epoch)
        order = rng.permutation(len(images))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            yield {"image": torch.from_numpy(augmented(images[chosen], rng))}, torch.from_numpy(labels[chosen])

    network = ResidualNetwork().to(memory_format=torch.channels_last)
    steps = len(images) // BATCH
    fit(network, batches, epochs=EPOCHS, steps=steps, rate=4e-3, weight_decay=0.05, name="fashion")
    return network.to(memory_format=torch.contiguous_format)
