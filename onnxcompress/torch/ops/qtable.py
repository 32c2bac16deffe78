"""QTable in torch."""

from __future__ import annotations

from typing import Any

import torch


def qtable(attributes: Any, x: torch.Tensor, table: torch.Tensor) -> tuple[torch.Tensor]:
    """y = table[x]; the gradient is the table's central difference at x."""
    index = x.detach().round().long().clamp(0, 255)
    values = table.to(torch.float32)
    y = values[index]
    if not x.is_floating_point():
        return (y,)
    slope = torch.gradient(values)[0][index]
    return (y + slope * (x - x.detach()),)
