"""DequantizeNCHW in torch."""

from __future__ import annotations

from typing import Any

import torch

from onnxcompress.torch.ops.qtable import qtable


def dequantizenchw(
    attributes: Any,
    x: torch.Tensor,
    x_scale: torch.Tensor,
    x_zero_point: torch.Tensor,
    values: torch.Tensor | None,
) -> tuple[torch.Tensor]:
    """x: [N, H, W, C] to floats [N, C, H, W]."""
    if values is not None:
        return (qtable({}, x, values)[0].permute(0, 3, 1, 2),)
    return (((x.to(torch.float32) - x_zero_point.to(torch.float32)) * x_scale).permute(0, 3, 1, 2),)
