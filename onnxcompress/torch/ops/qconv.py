"""QConv in torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F

from onnxcompress.torch.ops.qtable import qtable
from onnxcompress.torch.ops.rounding import quantize_through

_NAMES = (
    "x", "x_scale", "x_zero_point", "w", "w_scale", "bias", "y_scale", "y_zero_point", "table", "residual",
    "residual_scale", "residual_zero_point", "inner_scale", "inner_zero_point", "final_scale", "final_zero_point",
)  # fmt: skip


def qconv(attributes: Mapping[str, Any], *inputs: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
    """(y, y_float) of QConv; shapes and layouts as in its schema. Gradients pass straight through the rounding."""
    given = {name: value for name, value in zip(_NAMES, inputs, strict=True) if value is not None}
    real = _convolve(attributes, given)
    after = bool(attributes["residual_after"])
    residual = _dequantize(given, "residual") if "residual" in given else None
    total = real if residual is None or after else real + residual
    y_float = total.permute(0, 3, 1, 2) if attributes["y_layout"] == "NCHW" else total
    if "y_scale" not in given:
        return None, y_float
    y = quantize_through(total, given["y_scale"], given["y_zero_point"])
    if "table" in given:
        (y,) = qtable({}, y, given["table"])
    if after:
        assert residual is not None
        inner = _dequantize({**given, "inner": y}, "inner")
        y = quantize_through(inner + residual, given["final_scale"], given["final_zero_point"])
    return y, y_float


def _convolve(attributes: Mapping[str, Any], given: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Real results [N, OH, OW, M], summed in float64 so that sums of whole numbers are exact."""
    x, zero = given["x"], given["x_zero_point"].to(torch.float64)
    if attributes["x_layout"] == "NCHW":
        far = 256 * given["x_scale"]  # saturates, and is finite: infinity less infinity would be no number
        x = torch.clamp(torch.nan_to_num(x, nan=-torch.inf), -far, far)
        x = quantize_through(x, given["x_scale"], given["x_zero_point"]).permute(0, 2, 3, 1)
    centred = x.to(torch.float64).permute(0, 3, 1, 2) - zero
    top, left, bottom, right = attributes["pads"]
    sums = F.conv2d(
        F.pad(centred, (left, right, top, bottom)),
        given["w"].to(torch.float64).permute(0, 3, 1, 2),
        stride=tuple(attributes["strides"]),
        dilation=tuple(attributes["dilations"]),
        groups=attributes["group"],
    ).permute(0, 2, 3, 1)
    real = sums * (given["x_scale"].to(torch.float64) * given["w_scale"])
    return (real + given["bias"] if "bias" in given else real).to(torch.float32)


def _dequantize(given: Mapping[str, torch.Tensor], name: str) -> torch.Tensor:
    return (given[name].to(torch.float32) - given[f"{name}_zero_point"].to(torch.float32)) * given[f"{name}_scale"]
