"""QLinear in torch."""

from __future__ import annotations

from typing import Any

import torch

from onnxcompress.torch.ops.activation import ACTIVATIONS
from onnxcompress.torch.ops.qtable import qtable
from onnxcompress.torch.ops.rounding import quantize_through
from onnxcompress.torch.ops.row_quantization import quantize_rows


def linear(
    attributes: Any,
    x: torch.Tensor,
    x_scale: torch.Tensor,
    x_zero_point: torch.Tensor,
    w: torch.Tensor,
    w_scale: torch.Tensor,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """The real x * w^T + bias; gradients reach x, w, the scales and the bias.

    A floating x holds real values, unless attributes["x_quantized"] says that they are whole numbers that stand for
    unsigned bytes. Integers are multiplied exactly, in double precision.
    """
    dtype = x.dtype if x.is_floating_point() else torch.float64
    if x.is_floating_point() and not attributes.get("x_quantized", False):
        x = quantize_through(x, x_scale, x_zero_point)
    sums = (x.to(dtype) - x_zero_point.to(dtype)) @ w.to(dtype).mT
    real = sums * (x_scale.to(dtype) * w_scale.to(dtype))
    return real if bias is None else real + bias


def qlinear(
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
    table: torch.Tensor | None = None,
) -> tuple[torch.Tensor | None, ...]:
    """The operator's outputs; a floating x holds real values unless attributes["x_quantized"] (see `linear`)."""
    real = ACTIVATIONS[attributes["activation"]](linear(attributes, x, x_scale, x_zero_point, w, w_scale, bias))
    if residual is not None:
        real = real + residual
    row_scale = row_zero = None
    if attributes["dynamic"]:
        y, row_scale, row_zero = quantize_rows(real if y_scale is None else real / y_scale)
    elif y_scale is None:
        return None, real.float(), None, None
    else:
        zero = torch.zeros((), dtype=torch.uint8) if y_zero_point is None else y_zero_point
        y = quantize_through(real, y_scale, zero)
    if table is not None:
        y = qtable(attributes, y, table)[0]
    return y, real.float(), row_scale, row_zero
