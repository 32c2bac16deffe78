"""QSparseConv in torch."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import torch

from onnxcompress.torch.ops.blocks import dense_weights
from onnxcompress.torch.ops.qconv import qconv


def qsparseconv(
    attributes: Mapping[str, Any],
    x: torch.Tensor,
    x_scale: torch.Tensor,
    x_zero_point: torch.Tensor,
    values: torch.Tensor,
    row_start: torch.Tensor,
    column: torch.Tensor,
    w_scale: torch.Tensor,
    *rest: torch.Tensor | None,
) -> tuple[torch.Tensor | None, ...]:
    """qconv with the weights made of their blocks; gradients reach `values`."""
    kernel = (*attributes["kernel_shape"], attributes["in_channels"])
    w = dense_weights(values, row_start, column, w_scale, prod(kernel))
    fixed = {**attributes, "group": 1, "x_layout": "NHWC", "y_layout": "NHWC", "residual_after": 0}
    inputs = [x, x_scale, x_zero_point, w.reshape(-1, *kernel), w_scale, *rest]
    return qconv(fixed, *inputs, *[None] * (16 - len(inputs)))
