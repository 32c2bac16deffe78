"""Convolutions."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from onnxcompress.torch.standard.operator import Call, Function, Operator, Table
from onnxcompress.torch.standard.windows import Windows, pad_spatial

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def convolution(call: Call) -> Function:
    """x float [N, C, ...], w [M, C / group, ...], b [M]."""
    group, windows_of = call.get("group", 1), _remembered(call)

    def convolve(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None = None) -> torch.Tensor:
        n = w.dim() - 2
        windows = windows_of(n)
        begins, ends = windows.padding(x.shape[2:], w.shape[2:])
        if begins != ends:
            x, begins = pad_spatial(x, begins, ends), [0] * n
        return CONVOLUTIONS[n](x, w, b, windows.strides, begins, windows.dilations, group)

    return convolve


def transposed_convolution(call: Call) -> Function:
    """x float [N, C, ...], w [C, M / group, ...], b [M]; `output_shape` chooses the padding."""
    group, windows_of = call.get("group", 1), _remembered(call)
    output_shape = call.get("output_shape")

    def convolve(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None = None) -> torch.Tensor:
        n = w.dim() - 2
        windows = windows_of(n)
        extra = list(call.get("output_padding") or [0] * n)
        full = [
            windows.strides[i] * (x.shape[2 + i] - 1) + windows.dilations[i] * (w.shape[2 + i] - 1) + 1
            for i in range(n)
        ]
        begins, ends = _cut(windows, full, extra, x.shape[2:], output_shape)
        if begins == ends and all(begin >= 0 for begin in begins) and _is_allowed(extra, windows):
            return TRANSPOSED[n](x, w, b, windows.strides, begins, extra, group, windows.dilations)
        y = TRANSPOSED[n](x, w, None, windows.strides, 0, 0, group, windows.dilations)
        y = pad_spatial(y, [-begin for begin in begins], [more - end for more, end in zip(extra, ends, strict=True)])
        return y if b is None else y + b.reshape(-1, *[1] * n)

    return convolve


def _cut(
    windows: Windows, full: list[int], extra: list[int], size: torch.Size, output_shape: list[int] | None
) -> tuple[list[int], list[int]]:
    """What is taken off the full result, before and after."""
    n = len(full)
    if output_shape is None and windows.pads is not None:
        return list(windows.pads[:n]), list(windows.pads[n:])
    if output_shape is None and windows.auto_pad == "VALID":
        return [0] * n, [0] * n
    target = (
        output_shape[-n:] if output_shape else [s * stride for s, stride in zip(size, windows.strides, strict=True)]
    )
    totals = [max(f + e - t, 0) for f, e, t in zip(full, extra, target, strict=True)]
    smaller = [total // 2 for total in totals]
    larger = [total - half for total, half in zip(totals, smaller, strict=True)]
    return (smaller, larger) if windows.auto_pad == "SAME_UPPER" else (larger, smaller)


def _is_allowed(extra: list[int], windows: Windows) -> bool:
    """torch wants an output padding below the stride or the dilation."""
    return all(e < max(s, d) for e, s, d in zip(extra, windows.strides, windows.dilations, strict=True))


def _remembered(call: Call) -> Callable[[int], Windows]:
    """The windows by the number of spatial axes, which only the weight tells."""
    known: dict[int, Windows] = {}

    def windows_of(dimensions: int) -> Windows:
        if dimensions not in CONVOLUTIONS:
            raise call.refusal(f"convolutions over {dimensions} axes are not supported")
        if dimensions not in known:
            known[dimensions] = Windows.of(call, dimensions)
        return known[dimensions]

    return windows_of


CONVOLUTION: Table = {
    "Conv": Operator(convolution, weights=(1, 2)),
    "ConvTranspose": Operator(transposed_convolution, weights=(1, 2)),
}
