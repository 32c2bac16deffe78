"""QConvTranspose in torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F

from onnxcompress.torch.ops.qtable import qtable
from onnxcompress.torch.ops.rounding import quantize_through


def qconvtranspose(
    attributes: Mapping[str, Any],
    x: torch.Tensor,
    x_scale: torch.Tensor,
    x_zero_point: torch.Tensor,
    w: torch.Tensor,
    w_scale: torch.Tensor,
    bias: torch.Tensor | None = None,
    y_scale: torch.Tensor | None = None,
    y_zero_point: torch.Tensor | None = None,
    table: torch.Tensor | None = None,
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """(y, y_float); shapes and layouts as in the operator's schema. Gradients pass straight through the rounding."""
    # In float64, where sums of whole numbers are exact.
    centred = x.to(torch.float64).permute(0, 3, 1, 2) - x_zero_point.to(torch.float64)
    sums = F.conv_transpose2d(centred, w.to(torch.float64).permute(3, 0, 1, 2), stride=tuple(attributes["strides"]))
    (top, left, bottom, right), (rows, columns) = attributes["pads"], attributes["output_padding"]
    sums = F.pad(sums, (-left, columns - right, -top, rows - bottom)).permute(0, 2, 3, 1)
    real = sums * (x_scale.to(torch.float64) * w_scale)
    real = (real if bias is None else real + bias).to(torch.float32)
    y_float = real.permute(0, 3, 1, 2) if attributes["y_layout"] == "NCHW" else real
    if y_scale is None or y_zero_point is None:
        return None, y_float
    y = quantize_through(real, y_scale, y_zero_point)
    return y if table is None else qtable({}, y, table)[0], y_float
