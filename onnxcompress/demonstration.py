"""A small convolution network trained on scikit-learn's digits: the model of `onnxcompress demo`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcompress.errors import CompressError
from onnxcompress.exporting.framework import import_torch
from onnxcompress.progress import Progress, silent

if TYPE_CHECKING:
    import torch

    from onnxcompress.report import Result

Array = np.ndarray[Any, Any]
Run = Callable[[Mapping[str, Array]], list[Array]]
Digits = tuple["torch.nn.Module", list[dict[str, Array]], Callable[[Run], float]]

INPUT = "image"
SIZE = 32
"""Digits of 8x8 pixels are enlarged to SIZE x SIZE, so that convolution is most of the work."""
CALIBRATION = 256
HELD_OUT = 360
EPOCHS = 4
BATCH = 32


def train_digits(seed: int = 0, progress: Progress = silent) -> Digits:
    """Train a network of 430 k parameters and 25 M multiply-accumulates an image on 1437 digits.

    Args:
        seed: of the split, the initial weights and the order of the images. Torch's own random state is left
            as it was.
        progress: called after every epoch.

    Returns:
        the module, in eval mode: `image` f32 [N, 1, 32, 32] in 0..1 to logits f32 [N, 10];
        feeds to calibrate with: 256 training images, each [1, 1, 32, 32];
        a function that gives the share of 360 held-out images that a run classifies rightly.

    Raises:
        CompressError: torch or scikit-learn is not installed.
    """
    torch = import_torch()
    images, labels = _load_digits()
    order = np.random.default_rng(seed).permutation(len(images))
    train, test = order[HELD_OUT:], order[:HELD_OUT]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = _network()
        _train(module, torch.from_numpy(images[train]), torch.from_numpy(labels[train]), progress)
    feeds = [{INPUT: images[i : i + 1]} for i in train[:CALIBRATION]]

    def accuracy(run: Run) -> float:
        right = [run({INPUT: images[i : i + 1]})[0].argmax() == labels[i] for i in test]
        return float(np.mean(right))

    return module, feeds, accuracy


def _load_digits() -> tuple[Array, Array]:
    """Images f32 [1797, 1, 32, 32] in 0..1 and labels int64 [1797]."""
    torch = import_torch()
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise CompressError(f"the digits come with scikit-learn: pip install scikit-learn ({error})") from error
    digits = load_digits()
    small = torch.from_numpy(digits.images[:, None].astype(np.float32) / 16)
    large = torch.nn.functional.interpolate(small, (SIZE, SIZE), mode="bilinear", align_corners=False)
    return large.clamp(0, 1).numpy(), digits.target.astype(np.int64)


def _network() -> torch.nn.Module:
    """Convolutions with batch norm and ReLU, a residual block, global pooling; channels in multiples of 16."""
    torch = import_torch()
    nn = torch.nn

    def block(inputs: int, outputs: int, stride: int = 1) -> Any:
        convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())

    class Residual(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.body = block(channels, channels)

        def forward(self, x: Any) -> Any:
            return x + self.body(x)

    class Network(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(
                block(1, 16), block(16, 32, 2), block(32, 64), block(64, 64, 2), block(64, 128),
                Residual(128), block(128, 128, 2),
            )  # fmt: skip
            self.classifier = nn.Linear(128, 10)

        def forward(self, image: Any) -> Any:
            return self.classifier(self.features(image).mean((2, 3)))

    return Network()


def _train(module: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor, progress: Progress) -> None:
    """AdamW with one cycle of the learning rate, on images shifted by up to two pixels."""
    torch = import_torch()
    steps = (len(images) + BATCH - 1) // BATCH
    optimizer = torch.optim.AdamW(module.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=EPOCHS * steps)
    # Channels last: a third less time on the CPU.
    module.to(memory_format=torch.channels_last).train()
    for epoch in range(EPOCHS):
        progress("training", epoch, EPOCHS)
        for batch in torch.randperm(len(images)).split(BATCH):
            shift = torch.randint(-2, 3, (2,)).tolist()
            loss = torch.nn.functional.cross_entropy(
                module(torch.roll(images[batch], shift, (2, 3))), labels[batch], label_smoothing=0.05
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    progress("training", EPOCHS, EPOCHS)
    module.to(memory_format=torch.contiguous_format).eval()


def run_demo(folder: str | Path, *, seed: int = 0, threads: int = 1, progress: Progress = silent) -> Result:
    """Train, export and compress: `digits.onnx`, `digits.int8.onnx` and `report.json` in `folder`.

    Raises:
        CompressError: torch or scikit-learn is not installed, or the folder cannot be made.
    """
    from onnxcompress.exporter import export
    from onnxcompress.model_io import save_model
    from onnxcompress.pipeline import compress

    torch = import_torch()
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CompressError(f"{folder}: cannot be made ({error.strerror})") from error
    module, feeds, evaluate = train_digits(seed, progress)
    progress("exporting", 0, None)
    model = export(module, {INPUT: torch.from_numpy(feeds[0][INPUT])}, dynamic={INPUT: {0: "batch"}})
    save_model(model, folder / "digits.onnx")
    return compress(
        folder / "digits.onnx",
        folder / "digits.int8.onnx",
        data=feeds,
        evaluate=evaluate,
        threads=threads,
        report=folder / "report.json",
        progress=progress,
    )
