"""QConcat in torch."""

from __future__ import annotations

from typing import Any

import torch

from onnxcompress.torch.ops.qtable import qtable


def qconcat(attributes: Any, tables: torch.Tensor, *x: torch.Tensor) -> tuple[torch.Tensor]:
    """Images [N, H, W, C_i] side by side, each through its row of the tables."""
    factors = tuple(attributes["upsample"]) or (1,) * len(x)
    parts = []
    for table, image, factor in zip(tables, x, factors, strict=True):
        (mapped,) = qtable({}, image, table)
        parts.append(mapped.repeat_interleave(factor, dim=1).repeat_interleave(factor, dim=2))
    return (torch.cat(parts, dim=3),)
