"""QLinearLayerNorm in torch."""

from __future__ import annotations

from typing import Any

import torch

from onnxcompress.torch.ops.qlayernorm import normalize
from onnxcompress.torch.ops.qlinear import linear


def qlinearlayernorm(
    attributes: Any,
    x: torch.Tensor,
    x_scale: torch.Tensor,
    x_zero_point: torch.Tensor,
    w: torch.Tensor,
    w_scale: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor,
    gamma: torch.Tensor,
    beta: torch.Tensor | None = None,
    q_scale: torch.Tensor | None = None,
    q_zero_point: torch.Tensor | None = None,
) -> tuple[torch.Tensor | None, ...]:
    """The operator's outputs; a floating x holds real values unless attributes["x_quantized"] (see `linear`)."""
    total = linear(attributes, x, x_scale, x_zero_point, w, w_scale, bias) + residual
    return normalize(attributes, total, gamma, beta, q_scale, q_zero_point)
