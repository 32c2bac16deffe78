"""MeanPool in torch."""

from __future__ import annotations

from typing import Any

import torch


def meanpool(attributes: Any, x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor]:
    """The masked mean over axis 1 of x [B, S, C], then normalised where the attribute says so."""
    weight = mask.to(x.dtype)
    count = weight.sum(1, keepdim=True).clamp(min=attributes["minimum_count"])
    y = torch.einsum("bs,bsc->bc", weight, x) / count
    if attributes["normalize"]:
        y = y / y.norm(dim=1, keepdim=True).clamp(min=attributes["norm_epsilon"])
    return (y,)
