"""Where the outputs of a Resize lie in its input, and what they are made of (ONNX specification of Resize)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch

from onnxcompress.torch.standard.operator import Call

TRANSFORMATIONS = (
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_crop_and_resize",
    "tf_half_pixel_for_nn",
)  # fmt: skip


@dataclass(frozen=True)
class Sampling:
    """The attributes of a Resize."""

    mode: str
    coordinates: str = "half_pixel"
    rounding: str = "round_prefer_floor"
    cubic: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False
    extrapolation: float = 0.0

    @classmethod
    def of(cls, call: Call) -> Sampling:
        """Of a node.

        Raises:
            ModelError: a mode that is not known.
        """
        mode = call.get("mode", "nearest")
        if call.version < 11:
            return cls(mode, "asymmetric", "floor")
        coordinates = call.get("coordinate_transformation_mode", "half_pixel")
        if mode not in ("nearest", "linear", "cubic") or coordinates not in TRANSFORMATIONS:
            raise call.refusal(f"mode {mode!r} with coordinates {coordinates!r} is not known")
        return cls(
            mode, coordinates, call.get("nearest_mode", "round_prefer_floor"), call.get("cubic_coeff_a", -0.75),
            bool(call.get("exclude_outside", 0)), bool(call.get("antialias", 0)), call.get("extrapolation_value", 0.0),
        )  # fmt: skip


@dataclass(frozen=True)
class Axis:
    """One axis that is resized: its length before and its size after, the scale, and the region (as shares)."""

    axis: int
    length: int
    size: int
    scale: float
    start: float = 0.0
    end: float = 1.0

    def is_whole(self, sampling: Sampling) -> bool:
        """Does it stay as it is?"""
        cropped = sampling.coordinates == "tf_crop_and_resize" and (self.start, self.end) != (0.0, 1.0)
        return self.length == self.size and self.scale == 1.0 and not cropped

    def positions(self, sampling: Sampling) -> torch.Tensor:
        """Where each output lies in the input: float32 [size]."""
        x, scale, length = torch.arange(self.size, dtype=torch.float32), self.scale, self.length
        match sampling.coordinates:
            case "asymmetric":
                return x / scale
            case "align_corners":
                return x * ((length - 1) / (self.size - 1)) if self.size > 1 else torch.zeros(1)
            case "tf_half_pixel_for_nn":
                return (x + 0.5) / scale
            case "tf_crop_and_resize":
                if self.size == 1:
                    return torch.full((1,), 0.5 * (self.start + self.end) * (length - 1))
                step = (self.end - self.start) * (length - 1) / (self.size - 1)
                return self.start * (length - 1) + x * step
            case "pytorch_half_pixel" if self.size == 1:
                return torch.zeros(1)
            case "half_pixel_symmetric":
                adjustment = self.size / (scale * length)
                return length / 2 * (1 - adjustment) + (x + 0.5) / scale - 0.5
        return (x + 0.5) / scale - 0.5

    def is_outside(self, sampling: Sampling) -> torch.Tensor:
        """Which outputs lie beyond the input."""
        positions = self.positions(sampling)
        return (positions < 0) | (positions > self.length - 1)


@lru_cache(maxsize=256)
def nearest_places(axis: Axis, sampling: Sampling) -> torch.Tensor:
    """The element that each output is: int64 [size]."""
    positions = axis.positions(sampling)
    rounded = {
        "floor": torch.floor,
        "ceil": torch.ceil,
        "round_prefer_ceil": lambda t: torch.floor(t + 0.5),
    }.get(sampling.rounding, lambda t: torch.ceil(t - 0.5))(positions)
    return rounded.clamp(0, axis.length - 1).long()


Taps = tuple[torch.Tensor, torch.Tensor]
"""Elements int64 [size, taps] and their weights float32 [size, taps]."""


@lru_cache(maxsize=256)
def linear_taps(axis: Axis, sampling: Sampling) -> Taps:
    """Two neighbours, or all under a triangle as wide as an output when it shrinks with antialias."""
    if sampling.antialias and axis.scale < 1:
        return _filtered(axis, sampling, 1.0)
    positions = axis.positions(sampling).clamp(0, axis.length - 1)
    first = positions.floor()
    share = positions - first
    places = torch.stack((first, first + 1), -1).clamp(max=axis.length - 1).long()
    return places, torch.stack((1 - share, share), -1)


@lru_cache(maxsize=256)
def cubic_taps(axis: Axis, sampling: Sampling) -> Taps:
    """Four neighbours (Keys, 1981), or all under the kernel when it shrinks with antialias."""
    if sampling.antialias and axis.scale < 1:
        return _filtered(axis, sampling, 2.0)
    positions = axis.positions(sampling)
    first = positions.floor()
    offsets = torch.arange(-1.0, 3.0)
    weights = _cubic((positions - first)[:, None] - offsets, sampling.cubic)
    places = first[:, None] + offsets
    if sampling.exclude_outside:
        weights = weights * ((places >= 0) & (places <= axis.length - 1))
        weights = weights / weights.sum(-1, keepdim=True)
    return places.clamp(0, axis.length - 1).long(), weights


def _cubic(distance: torch.Tensor, a: float) -> torch.Tensor:
    d = distance.abs()
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))


def _filtered(axis: Axis, sampling: Sampling, radius: float) -> Taps:
    """The kernel widened by 1 / scale, its weights summing to 1; the edge stands for what lies beyond it."""
    positions = axis.positions(sampling)
    reach = radius / axis.scale
    first = (positions - reach).floor()
    places = first[:, None] + torch.arange(math.ceil(2 * reach) + 2)
    distance = (places - positions[:, None]) * axis.scale
    weights = (1 - distance.abs()).clamp(min=0) if sampling.mode == "linear" else _cubic(distance, sampling.cubic)
    if sampling.exclude_outside:
        weights = weights * ((places >= 0) & (places <= axis.length - 1))
    return places.clamp(0, axis.length - 1).long(), weights / weights.sum(-1, keepdim=True)
