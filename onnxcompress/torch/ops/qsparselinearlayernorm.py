"""QSparseLinearLayerNorm in torch."""

from __future__ import annotations

from typing import Any

import torch

from onnxcompress.torch.ops.blocks import dense_weights
from onnxcompress.torch.ops.qlinearlayernorm import qlinearlayernorm


def qsparselinearlayernorm(
    attributes: Any,
    x: torch.Tensor,
    x_scale: torch.Tensor,
    x_zero_point: torch.Tensor,
    values: torch.Tensor,
    row_start: torch.Tensor,
    column: torch.Tensor,
    w_scale: torch.Tensor,
    *rest: Any,
) -> tuple[torch.Tensor | None, ...]:
    """qlinearlayernorm with the weights made of their blocks; gradients reach `values`."""
    w = dense_weights(values, row_start, column, w_scale, attributes["in_features"])
    return qlinearlayernorm(attributes, x, x_scale, x_zero_point, w, w_scale, *rest)
