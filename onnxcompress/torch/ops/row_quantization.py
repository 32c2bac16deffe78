"""Quantization of each row by its own range, in torch."""

from __future__ import annotations

import torch

from onnxcompress.ops.row_quantization import LEAST_SCALE
from onnxcompress.torch.ops.rounding import quantize_through


def quantize_rows(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Each row of x [..., C] as whole numbers of [0, 255], with its scale and its zero point, both [..., 1].

    The range counts as constant: gradients reach x through the rounding alone.
    """
    fixed = x.detach()
    low, high = fixed.amin(-1, keepdim=True).clamp(max=0), fixed.amax(-1, keepdim=True).clamp(min=0)
    scale = ((high - low) / 255).clamp(min=LEAST_SCALE).float()
    zero_point = torch.round(-low / scale.to(x.dtype)).clamp(0, 255)
    return quantize_through(x, scale.to(x.dtype), zero_point), scale, zero_point
