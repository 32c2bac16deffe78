"""EmbedLayerNorm in torch."""

from __future__ import annotations

from typing import Any

import torch

from onnxcompress.torch.ops.rounding import quantize_through
from onnxcompress.torch.ops.row_quantization import quantize_rows


def embedlayernorm(
    attributes: Any,
    ids: torch.Tensor,
    table: torch.Tensor,
    table_scale: torch.Tensor,
    type_ids: torch.Tensor | None,
    type_table: torch.Tensor | None,
    position_table: torch.Tensor | None,
    position_ids: torch.Tensor | None,
    gamma: torch.Tensor,
    beta: torch.Tensor,
    q_scale: torch.Tensor | None,
    q_zero_point: torch.Tensor | None,
    position_scale: torch.Tensor | None,
) -> tuple[torch.Tensor | None, ...]:
    """The embeddings in float, normalised, and quantized where there is a scale or the rows have their own."""
    rows = ids.long()
    x = table[rows].to(torch.float32) * table_scale[rows][..., None]
    if type_table is not None and type_ids is not None:
        x = x + type_table[type_ids.long()]
    if position_table is not None:
        first = int(attributes["position_offset"])
        counted = torch.arange(first, first + ids.shape[1], device=ids.device)
        places = counted if position_ids is None else position_ids.long()
        position = position_table[places].to(torch.float32)
        x = x + (position if position_scale is None else position * position_scale[places][..., None])
    y = torch.nn.functional.layer_norm(x, x.shape[-1:], gamma, beta, attributes["epsilon"])
    if attributes["dynamic"]:
        return y, *quantize_rows(y if q_scale is None else y / q_scale)
    if q_scale is None:
        return y, None, None, None
    zero_point = torch.zeros((), dtype=torch.uint8) if q_zero_point is None else q_zero_point
    return y, quantize_through(y, q_scale, zero_point), None, None
