"""Rounding that lets gradients through."""

from __future__ import annotations

import torch


def round_through(x: torch.Tensor) -> torch.Tensor:
    """round(x), ties to even, with the gradient of x (the straight-through estimator of Bengio et al., 2013)."""
    return x + (torch.round(x) - x).detach()


def quantize_through(x: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor) -> torch.Tensor:
    """saturate(round(x / scale) + zero_point) to [0, 255] as whole floats; the gradient is 0 where it saturates.

    Not-a-number becomes 0.
    """
    steps = torch.nan_to_num(x / scale, nan=-1e9, posinf=1e9, neginf=-1e9)
    return torch.clamp(round_through(steps) + zero_point.to(x.dtype), 0, 255)
