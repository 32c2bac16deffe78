"""QElementwise in torch."""

from __future__ import annotations

from typing import Any

import torch

from onnxcompress.torch.ops.qtable import qtable
from onnxcompress.torch.ops.rounding import quantize_through


def qelementwise(
    attributes: Any,
    a: torch.Tensor,
    a_scale: torch.Tensor,
    a_zero_point: torch.Tensor,
    b: torch.Tensor,
    b_scale: torch.Tensor | None,
    b_zero_point: torch.Tensor | None,
    y_scale: torch.Tensor,
    y_zero_point: torch.Tensor,
    table: torch.Tensor | None,
) -> tuple[torch.Tensor]:
    """y = table[quantize(a op b)]. A b in real units comes without b_scale and b_zero_point."""
    upsample = int(attributes["upsample"])
    if upsample > 1:
        b = b.repeat_interleave(upsample, dim=1).repeat_interleave(upsample, dim=2)
    left = (a.to(torch.float32) - a_zero_point.to(torch.float32)) * a_scale
    right = b.to(torch.float32)
    if b_zero_point is not None:
        right = right - b_zero_point.to(torch.float32)
    if b_scale is not None:
        right = right * b_scale
    combine = {"add": torch.add, "sub": torch.sub, "mul": torch.mul}[attributes["operation"]]
    y = quantize_through(combine(left, right), y_scale, y_zero_point)
    return (y,) if table is None else qtable({}, y, table)
