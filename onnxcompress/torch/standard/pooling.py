"""Pools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from onnxcompress.torch.standard.convolution import CONVOLUTIONS
from onnxcompress.torch.standard.operator import Call, Function, Operator, Table, plain
from onnxcompress.torch.standard.windows import Windows, pad_spatial

MAXIMA = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
MEANS = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def max_pool(call: Call) -> Function:
    windows = _windows(call)
    kernel = list(windows.kernel or [])
    with_indices = call.outputs > 1 and call.wanted[1]
    if call.get("storage_order", 0):
        raise call.refusal("column-major indices are not supported")

    def pool(x: torch.Tensor) -> Any:
        kind, size = x.dtype, x.shape[2:]
        if not kind.is_floating_point:
            x = x.float()
        begins, ends = windows.padding(size, kernel)
        over = windows.overhang(size, kernel, begins, ends)
        padding: Sequence[int] = [0] * len(kernel)
        if begins == ends and not any(over) and all(2 * b <= k for b, k in zip(begins, kernel, strict=True)):
            padding = begins
        else:
            lowest = torch.finfo(x.dtype).min if with_indices else -torch.inf
            x = pad_spatial(x, begins, [e + o for e, o in zip(ends, over, strict=True)], lowest)
        options = (kernel, windows.strides, padding, windows.dilations)
        if not with_indices:
            return MAXIMA[len(kernel)](x, *options).to(kind)
        y, index = MAXIMA[len(kernel)](x, *options, return_indices=True)
        if x.shape[2:] != size:
            index = _without_padding(index, x.shape[2:], begins, size)
        planes = torch.arange(x.shape[0] * x.shape[1], device=x.device).reshape(x.shape[:2] + (1,) * len(size))
        return y.to(kind), index + planes * size.numel()

    return pool


def _without_padding(index: torch.Tensor, padded: torch.Size, begins: Sequence[int], size: torch.Size) -> torch.Tensor:
    """Positions in a padded plane as positions in the plane itself."""
    result, rest = torch.zeros_like(index), index
    step = 1
    for axis in reversed(range(len(size))):
        result = result + (rest % padded[axis] - begins[axis]) * step
        rest, step = rest // padded[axis], step * size[axis]
    return result


def average_pool(call: Call) -> Function:
    windows, with_padding = _windows(call), bool(call.get("count_include_pad", 0))
    kernel = list(windows.kernel or [])

    def pool(x: torch.Tensor) -> torch.Tensor:
        begins, ends = windows.padding(x.shape[2:], kernel)
        over = windows.overhang(x.shape[2:], kernel, begins, ends)
        simple = not any(over) and all(d == 1 for d in windows.dilations)
        if simple and begins == ends and all(2 * b <= k for b, k in zip(begins, kernel, strict=True)):
            return MEANS[len(kernel)](x, kernel, windows.strides, begins, False, with_padding)
        ones = torch.ones_like(x[:1, :1])
        counted = pad_spatial(ones, begins, ends, float(with_padding))
        more = [end + reach for end, reach in zip(ends, over, strict=True)]
        sums = _window_sums(pad_spatial(x, begins, more), windows, kernel)
        return sums / _window_sums(pad_spatial(counted, [0] * len(over), over), windows, kernel)

    return pool


def _window_sums(x: torch.Tensor, windows: Windows, kernel: Sequence[int]) -> torch.Tensor:
    ones = x.new_ones(1, 1, *kernel)
    planes = x.reshape(-1, 1, *x.shape[2:])
    sums = CONVOLUTIONS[len(kernel)](planes, ones, None, windows.strides, 0, windows.dilations)
    return sums.reshape(*x.shape[:2], *sums.shape[2:])


def norm_pool(call: Call) -> Function:
    """(sum of |x|^p)^(1/p) over each window."""
    windows, p = _windows(call), call.get("p", 2)
    kernel = list(windows.kernel or [])

    def pool(x: torch.Tensor) -> torch.Tensor:
        begins, ends = windows.padding(x.shape[2:], kernel)
        over = windows.overhang(x.shape[2:], kernel, begins, ends)
        padded = pad_spatial(x.abs() ** p, begins, [e + o for e, o in zip(ends, over, strict=True)])
        return _window_sums(padded, windows, kernel) ** (1.0 / p)

    return pool


def _windows(call: Call) -> Windows:
    dimensions = len(call.get("kernel_shape") or [])
    if dimensions not in CONVOLUTIONS:
        raise call.refusal(f"pools over {dimensions} axes are not supported")
    return Windows.of(call, dimensions)


def _spatial(x: torch.Tensor) -> tuple[int, ...]:
    return tuple(range(2, x.dim()))


def global_norm_pool(call: Call) -> Function:
    p = call.get("p", 2)
    return lambda x: torch.linalg.vector_norm(x, p, _spatial(x), keepdim=True)


POOLING: Table = {
    "MaxPool": Operator(max_pool),
    "AveragePool": Operator(average_pool),
    "LpPool": Operator(norm_pool),
    "GlobalAveragePool": plain(lambda x: x.mean(_spatial(x), keepdim=True)),
    "GlobalMaxPool": plain(lambda x: x.amax(_spatial(x), keepdim=True)),
    "GlobalLpPool": Operator(global_norm_pool),
}
