"""QSparseConv in torch."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import torch

from onnxcompress.torch.ops.blocks import on_blocks
from onnxcompress.torch.ops.qconv import qconv


def _kernel(attributes: Mapping[str, Any]) -> tuple[int, ...]:
    return (*attributes["kernel_shape"], attributes["in_channels"])


def _dense(
    attributes: Mapping[str, Any],
    x: torch.Tensor,
    x_scale: torch.Tensor,
    x_zero_point: torch.Tensor,
    w: torch.Tensor,
    *rest: torch.Tensor | None,
) -> tuple[torch.Tensor | None, ...]:
    fixed = {**attributes, "group": 1, "x_layout": "NHWC", "y_layout": "NHWC", "residual_after": 0}
    inputs = [x, x_scale, x_zero_point, w.reshape(-1, *_kernel(attributes)), *rest]
    return qconv(fixed, *inputs, *[None] * (16 - len(inputs)))


qsparseconv = on_blocks(_dense, lambda attributes: prod(_kernel(attributes)))
