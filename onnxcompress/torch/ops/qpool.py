"""QPool in torch."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from onnxcompress.torch.ops.qtable import qtable
from onnxcompress.torch.ops.rounding import quantize_through


def qpool(
    attributes: Any,
    x: torch.Tensor,
    x_scale: torch.Tensor,
    x_zero_point: torch.Tensor,
    y_scale: torch.Tensor,
    y_zero_point: torch.Tensor,
    table: torch.Tensor | None,
) -> tuple[torch.Tensor]:
    """The greatest or the mean of windows of x: [N, H, W, C]."""
    values = x.to(torch.float32).permute(0, 3, 1, 2)
    mode = attributes["mode"]
    if mode == "max":
        y = _reduce(attributes, values, -1.0, "max")
    else:
        real = (values - x_zero_point.to(torch.float32)) * x_scale
        if mode == "global_average":
            mean = real.mean((2, 3), keepdim=True)
        else:
            mean = _reduce(attributes, real, 0.0, "sum") / _counts(attributes, real)
        y = quantize_through(mean, y_scale, y_zero_point)
    y = y.permute(0, 2, 3, 1)
    return (y,) if table is None else qtable({}, y, table)


def _reduce(attributes: Any, x: torch.Tensor, fill: float, how: str) -> torch.Tensor:
    """The windows of x: [N, C, H, W], reduced; positions beyond it hold `fill`."""
    (kh, kw), (sh, sw) = attributes["kernel_shape"], attributes["strides"]
    top, left, bottom, right = attributes["pads"]
    rows = _count(x.shape[2], kh, sh, top, bottom, attributes["ceil_mode"])
    columns = _count(x.shape[3], kw, sw, left, right, attributes["ceil_mode"])
    below, beside = (rows - 1) * sh + kh - top - x.shape[2], (columns - 1) * sw + kw - left - x.shape[3]
    padded = F.pad(x, (left, max(beside, 0), top, max(below, 0)), value=fill)
    windows = padded.unfold(2, kh, sh).unfold(3, kw, sw)[:, :, :rows, :columns]
    return windows.amax((4, 5)) if how == "max" else windows.sum((4, 5))


def _count(size: int, kernel: int, stride: int, before: int, after: int, ceil_mode: int) -> int:
    span = size + before + after - kernel
    count = int((span + (stride - 1 if ceil_mode else 0)) / stride) + 1  # rounded up below zero, as the operator
    return count - 1 if ceil_mode and (count - 1) * stride >= size + before else count


def _counts(attributes: Any, x: torch.Tensor) -> torch.Tensor:
    """How many values each window is the mean of."""
    ones = torch.ones(1, 1, x.shape[2], x.shape[3])
    if not attributes["count_include_pad"]:
        return _reduce(attributes, ones, 0.0, "sum")
    top, left, bottom, right = attributes["pads"]
    padded = F.pad(ones, (left, right, top, bottom), value=1.0)
    # The padding counts; what the last windows of ceil_mode see beyond it does not.
    inner = {**attributes, "pads": (0, 0, 0, 0)}
    rows = _reduce(attributes, ones, 0.0, "sum").shape[2:]
    return _reduce(inner, padded, 0.0, "sum")[:, :, : rows[0], : rows[1]]
