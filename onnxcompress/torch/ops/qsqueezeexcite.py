"""QSqueezeExcite in torch."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from onnxcompress.torch.ops.qtable import qtable
from onnxcompress.torch.ops.rounding import quantize_through

_ACTIVATIONS = {"relu": F.relu, "silu": F.silu, "hardswish": F.hardswish}


def qsqueezeexcite(
    attributes: Any,
    x: torch.Tensor,
    x_scale: torch.Tensor,
    x_zero_point: torch.Tensor,
    w1: torch.Tensor,
    w1_scale: torch.Tensor,
    b1: torch.Tensor | None,
    w2: torch.Tensor,
    w2_scale: torch.Tensor,
    b2: torch.Tensor | None,
    y_scale: torch.Tensor,
    y_zero_point: torch.Tensor,
    table: torch.Tensor | None,
) -> tuple[torch.Tensor]:
    """y = quantize(x * gate(means of x)), x: [N, H, W, C]."""
    values = x.to(torch.float32) if table is None else qtable({}, x, table)[0]
    real = (values - x_zero_point.to(torch.float32)) * x_scale
    mean = real.mean((1, 2)) if real.numel() else real.new_zeros(x.shape[0], x.shape[3])
    hidden = _ACTIVATIONS[attributes["activation"]](_dense(mean, w1, w1_scale, b1))
    logits = _dense(hidden, w2, w2_scale, b2)
    if attributes["gate"] == "sigmoid":
        gate = torch.sigmoid(logits)
    else:
        gate = torch.clamp(float(attributes["alpha"]) * logits + float(attributes["beta"]), 0, 1)
    factor = gate[:, None, None, :] + int(attributes["residual"])
    return (quantize_through(real * factor, y_scale, y_zero_point),)


def _dense(x: torch.Tensor, w: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    y = x @ w.to(torch.float32).T * scale
    return y if bias is None else y + bias
