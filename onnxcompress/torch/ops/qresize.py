"""QResize in torch."""

from __future__ import annotations

from typing import Any

import torch

from onnxcompress.torch.ops.qtable import qtable


def qresize(attributes: Any, x: torch.Tensor, table: torch.Tensor | None) -> tuple[torch.Tensor]:
    """Every pixel of x: [N, H, W, C], repeated."""
    down, across = attributes["scales"]
    y = x.to(torch.float32) if table is None else qtable({}, x, table)[0]
    return (y.repeat_interleave(down, dim=1).repeat_interleave(across, dim=2),)
