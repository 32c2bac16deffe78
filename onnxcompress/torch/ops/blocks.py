"""Block-sparse weights in torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def dense_weights(
    values: torch.Tensor, row_start: torch.Tensor, column: torch.Tensor, w_scale: torch.Tensor, columns: int
) -> torch.Tensor:
    """The matrix [N, columns] of these blocks (onnxcompress.ops.blocks.Blocks), of the type of `values`.

    Gradients reach `values`: blocks that are absent stay so.
    """
    n, k = values.shape[1:]
    groups = len(row_start) - 1
    rows = w_scale.shape[0] if w_scale.ndim else groups * n
    group = torch.repeat_interleave(torch.arange(groups, device=values.device), row_start.diff().long())
    grid = values.new_zeros(groups, -(-columns // k), n, k).index_put((group, column.long()), values)
    return grid.transpose(1, 2).reshape(groups * n, -1)[:rows, :columns]


def on_blocks(
    dense: Callable[..., tuple[Any, ...]], columns: Callable[[Any], int] = lambda attributes: attributes["in_features"]
) -> Callable[..., tuple[Any, ...]]:
    """The torch function of a layer with its weights [rows, `columns(attributes)`] made of their blocks.

    Gradients reach `values`.
    """

    def sparse(
        attributes: Any,
        x: torch.Tensor,
        x_scale: torch.Tensor,
        x_zero_point: torch.Tensor,
        values: torch.Tensor,
        row_start: torch.Tensor,
        column: torch.Tensor,
        w_scale: torch.Tensor,
        *rest: torch.Tensor | None,
    ) -> tuple[Any, ...]:
        w = dense_weights(values, row_start, column, w_scale, columns(attributes))
        return dense(attributes, x, x_scale, x_zero_point, w, w_scale, *rest)

    return sparse
