"""QuantizeNHWC in torch."""

from __future__ import annotations

from typing import Any

import torch

from onnxcompress.torch.ops.rounding import quantize_through


def quantizenhwc(
    attributes: Any, x: torch.Tensor, y_scale: torch.Tensor, y_zero_point: torch.Tensor
) -> tuple[torch.Tensor]:
    """x: float [N, C, H, W] to whole floats [N, H, W, C]."""
    return (quantize_through(x, y_scale, y_zero_point).permute(0, 2, 3, 1),)
