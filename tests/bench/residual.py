"""A residual network for 28x28 images, in torch (He et al. 2016, basic blocks)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Block(nn.Module):  # type: ignore[misc]
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        self.shortcut = (
            nn.Identity()
            if inputs == outputs and stride == 1
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        )

    def forward(self, hidden: Tensor) -> Tensor:
        return torch.relu(self.branch(hidden) + self.shortcut(hidden))


class ResidualNetwork(nn.Module):  # type: ignore[misc]
    """Images fp32 `[batch, 1, 28, 28]` in 0..1 to 10 logits: a stem of stride 2, then two blocks a width.

    696 k parameters and 24 M multiply-accumulates with the default widths.
    """

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128)) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, widths[0], 3, 2, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU())
        blocks, last = [], widths[0]
        for width in widths:
            blocks += [Block(last, width, 1 if width == last else 2), Block(width, width, 1)]
            last = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(last, 10)

    def forward(self, image: Tensor) -> Tensor:
        hidden = self.blocks(self.stem((image - 0.286) / 0.353))
        logits: Tensor = self.head(hidden.mean((2, 3)))
        return logits
