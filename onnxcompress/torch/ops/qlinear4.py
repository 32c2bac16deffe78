"""QLinear4 in torch."""

from __future__ import annotations

from typing import Any

import torch

from onnxcompress.torch.ops.activation import ACTIVATIONS
from onnxcompress.torch.ops.rounding import quantize_through


def qlinear4(
    attributes: Any,
    x: torch.Tensor,
    x_scale: torch.Tensor,
    x_zero_point: torch.Tensor,
    w: torch.Tensor,
    w_scale: torch.Tensor,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    y_scale: torch.Tensor | None = None,
    y_zero_point: torch.Tensor | None = None,
) -> tuple[torch.Tensor | None, ...]:
    """The operator's outputs; a floating x holds real values unless attributes["x_quantized"] (see qlinear.linear).

    Gradients reach x, the scales, the bias and the residual; the packed weights are integers.
    """
    dtype = x.dtype if x.is_floating_point() else torch.float64
    if x.is_floating_point() and not attributes.get("x_quantized", False):
        x = quantize_through(x, x_scale, x_zero_point)
    halves = torch.stack([w & 15, w >> 4], dim=-1).flatten(-2).to(dtype)
    real_weights = (halves - 8) * w_scale.to(dtype).repeat_interleave(attributes["block_size"], dim=1)
    real = ((x.to(dtype) - x_zero_point.to(dtype)) @ real_weights.mT) * x_scale.to(dtype)
    real = ACTIVATIONS[attributes["activation"]](real if bias is None else real + bias)
    if residual is not None:
        real = real + residual
    if y_scale is None:
        return None, real.float()
    zero = torch.zeros((), dtype=torch.uint8) if y_zero_point is None else y_zero_point
    return quantize_through(real, y_scale, zero), real.float()
