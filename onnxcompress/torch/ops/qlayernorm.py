"""QLayerNorm in torch."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from onnxcompress.torch.ops.rounding import quantize_through
from onnxcompress.torch.ops.row_quantization import quantize_rows


def normalize(
    attributes: Any,
    total: torch.Tensor,
    gamma: torch.Tensor,
    beta: torch.Tensor | None,
    q_scale: torch.Tensor | None,
    q_zero_point: torch.Tensor | None,
) -> tuple[torch.Tensor | None, ...]:
    """The operator's outputs, from the sum before the normalization."""
    shift = None if beta is None else beta.to(total.dtype)
    y = F.layer_norm(total, gamma.shape, gamma.to(total.dtype), shift, attributes["epsilon"])
    q = row_scale = row_zero = None
    if attributes["dynamic"]:
        q, row_scale, row_zero = quantize_rows(y if q_scale is None else y / q_scale)
    elif q_scale is not None:
        zero = torch.zeros((), dtype=torch.uint8) if q_zero_point is None else q_zero_point
        q = quantize_through(y, q_scale, zero)
    return y.float(), q, row_scale, row_zero, total.float()


def qlayernorm(
    attributes: Any,
    x: torch.Tensor,
    residual: torch.Tensor | None,
    gamma: torch.Tensor,
    beta: torch.Tensor | None = None,
    q_scale: torch.Tensor | None = None,
    q_zero_point: torch.Tensor | None = None,
) -> tuple[torch.Tensor | None, ...]:
    """The operator's outputs."""
    return normalize(attributes, x if residual is None else x + residual, gamma, beta, q_scale, q_zero_point)
