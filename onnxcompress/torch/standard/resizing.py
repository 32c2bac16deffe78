"""Resize, Upsample and GridSample. Where each output lies is computed in `coordinates`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from onnxcompress.torch.standard.coordinates import Axis, Sampling, cubic_taps, linear_taps, nearest_places
from onnxcompress.torch.standard.operator import Call, Function, Operator, Table, numbers

INTERPOLATIONS = {
    ("linear", 3): "linear",
    ("linear", 4): "bilinear",
    ("linear", 5): "trilinear",
    ("cubic", 4): "bicubic",
}


def resize(call: Call) -> Function:
    sampling = Sampling.of(call)
    policy, chosen = call.get("keep_aspect_ratio_policy", "stretch"), call.get("axes")

    def apply(x: torch.Tensor, roi: Any = None, scales: Any = None, sizes: Any = None) -> torch.Tensor:
        if call.version < 11:
            roi, scales = None, roi  # version 10 has no region
        axes = [a % x.dim() for a in chosen] if chosen else list(range(x.dim()))
        if sizes is not None and sizes.numel():
            scale, size = _from_sizes([x.shape[a] for a in axes], numbers(sizes), policy)
        else:
            scale = [float(s) for s in numbers(scales)]
            size = [math.floor(x.shape[a] * s) for a, s in zip(axes, scale, strict=True)]
        region = numbers(roi) if roi is not None and roi.numel() else [0.0] * len(axes) + [1.0] * len(axes)
        places = [
            Axis(a, x.shape[a], n, s, region[i], region[len(axes) + i])
            for i, (a, n, s) in enumerate(zip(axes, size, scale, strict=True))
        ]
        return resized(x, [p for p in places if not p.is_whole(sampling)], sampling)

    return apply


def upsample(call: Call) -> Function:
    """The ancestor of Resize: version 7 has the scales as an attribute."""
    sampling = Sampling(call.get("mode", "nearest"), "asymmetric", "floor")
    fixed = call.get("scales")

    def apply(x: torch.Tensor, scales: torch.Tensor | None = None) -> torch.Tensor:
        factors = fixed if scales is None else numbers(scales)
        places = [Axis(a, n, math.floor(n * s), s) for a, (n, s) in enumerate(zip(x.shape, factors, strict=True))]
        return resized(x, [p for p in places if not p.is_whole(sampling)], sampling)

    return apply


def _from_sizes(lengths: Sequence[int], sizes: Sequence[int], policy: str) -> tuple[list[float], list[int]]:
    scale = [size / length for length, size in zip(lengths, sizes, strict=True)]
    if policy == "stretch":
        return scale, list(sizes)
    common = min(scale) if policy == "not_larger" else max(scale)
    return [common] * len(scale), [math.floor(common * length + 0.5) for length in lengths]


def resized(x: torch.Tensor, axes: Sequence[Axis], sampling: Sampling) -> torch.Tensor:
    """Axis by axis, or by torch's own interpolation where it computes the same."""
    kind = x.dtype
    if not axes:
        return x
    if not kind.is_floating_point and sampling.mode != "nearest":
        x = x.float()
    y = _in_one(x, axes, sampling)
    if y is not None:
        return y.to(kind)
    outside = None
    for axis in axes:
        x = _along(x, axis, sampling)
        if sampling.coordinates == "tf_crop_and_resize":
            beyond = (
                axis.is_outside(sampling).to(x.device).reshape([-1 if a == axis.axis else 1 for a in range(x.dim())])
            )
            outside = beyond if outside is None else outside | beyond
    if outside is not None:
        x = torch.where(outside, torch.full_like(x, sampling.extrapolation), x)
    return x.to(kind)


def _in_one(x: torch.Tensor, axes: Sequence[Axis], sampling: Sampling) -> torch.Tensor | None:
    """By torch.nn.functional.interpolate; None where it computes something else."""
    leading = x.dim() - len(axes)
    if leading < 1 or x.dim() not in (3, 4, 5) or any(axis.axis < 2 for axis in axes):
        return None
    size = list(x.shape[2:])
    for axis in axes:
        size[axis.axis - 2] = axis.size
    if sampling.mode == "nearest":
        whole = all(axis.size % axis.length == 0 for axis in axes)
        if x.is_floating_point() and whole and all(_is_repetition(axis, sampling) for axis in axes):
            return F.interpolate(x, size=size, mode="nearest")
        return None
    mode = INTERPOLATIONS.get((sampling.mode, x.dim()))
    if mode is None or sampling.antialias or sampling.exclude_outside or sampling.cubic != -0.75:
        return None
    if any(abs(axis.scale * axis.length - axis.size) > 1e-4 for axis in axes):
        return None
    if sampling.coordinates in ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel"):
        if sampling.coordinates == "pytorch_half_pixel" and any(axis.size == 1 for axis in axes):
            return None
        return F.interpolate(x, size=size, mode=mode, align_corners=False)
    if sampling.coordinates == "align_corners":
        return F.interpolate(x, size=size, mode=mode, align_corners=True)
    return None


def _is_repetition(axis: Axis, sampling: Sampling) -> bool:
    times = axis.size // axis.length
    return bool(torch.equal(nearest_places(axis, sampling), torch.arange(axis.size) // times))


def _along(x: torch.Tensor, axis: Axis, sampling: Sampling) -> torch.Tensor:
    if sampling.mode == "nearest":
        return x.index_select(axis.axis, nearest_places(axis, sampling).to(x.device))
    places, weights = (linear_taps if sampling.mode == "linear" else cubic_taps)(axis, sampling)
    shape = [-1 if a == axis.axis else 1 for a in range(x.dim())]
    total = None
    for place, weight in zip(places.to(x.device).t(), weights.to(x.device, x.dtype).t(), strict=True):
        part = x.index_select(axis.axis, place) * weight.reshape(shape)
        total = part if total is None else total + part
    assert total is not None
    return total


def grid_sample(call: Call) -> Function:
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(call.get("mode", "linear"), call.get("mode", "linear"))
    padding, aligned = call.get("padding_mode", "zeros"), bool(call.get("align_corners", 0))
    return lambda x, grid: F.grid_sample(x, grid, mode=mode, padding_mode=padding, align_corners=aligned)


RESIZING: Table = {
    "Resize": Operator(resize, numbers=(1, 2, 3)),
    "Upsample": Operator(upsample, numbers=(1,)),
    "GridSample": Operator(grid_sample),
}
