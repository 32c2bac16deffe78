"""Pad."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from onnxcompress.torch.standard.operator import Call, Function, Operator, Table, number, numbers


def pad(call: Call) -> Function:
    mode = call.get("mode", "constant")
    if mode not in ("constant", "reflect", "edge", "wrap"):
        raise call.refusal(f"mode {mode!r} is not known")
    if call.version < 11:
        amounts, value = call.attributes["pads"], call.get("value", 0.0)
        return lambda x: padded(x, amounts, mode, value)

    def apply(x: torch.Tensor, pads: torch.Tensor, value: Any = None, axes: torch.Tensor | None = None) -> torch.Tensor:
        amounts = numbers(pads)
        if axes is not None:
            amounts = _for_all_axes(amounts, [a % x.dim() for a in numbers(axes)], x.dim())
        return padded(x, amounts, mode, number(value, 0))

    return apply


def _for_all_axes(amounts: Sequence[int], axes: Sequence[int], rank: int) -> list[int]:
    full = [0] * (2 * rank)
    for i, axis in enumerate(axes):
        full[axis], full[rank + axis] = amounts[i], amounts[len(axes) + i]
    return full


def padded(x: torch.Tensor, amounts: Sequence[int], mode: str, value: float) -> torch.Tensor:
    """Begins, then ends, of every axis; negative ones crop, before anything is added."""
    rank = x.dim()
    if mode == "constant":
        pairs = [side for axis in reversed(range(rank)) for side in (amounts[axis], amounts[rank + axis])]
        return F.pad(x, pairs, value=value)
    for axis in range(rank):
        begin, end = amounts[axis], amounts[rank + axis]
        x = x.narrow(axis, max(-begin, 0), x.shape[axis] - max(-begin, 0) - max(-end, 0))
        begin, end = max(begin, 0), max(end, 0)
        if begin or end:
            x = x.index_select(axis, _source(x.shape[axis], begin, end, mode).to(x.device))
    return x


def _source(length: int, begin: int, end: int, mode: str) -> torch.Tensor:
    """Which element stands at each place of a padded axis."""
    places = torch.arange(-begin, length + end)
    if mode == "edge":
        return places.clamp(0, length - 1)
    if mode == "wrap":
        return places % length
    period = max(2 * (length - 1), 1)
    return (length - 1) - ((places % period) - (length - 1)).abs() if length > 1 else torch.zeros_like(places)


PADDING: Table = {"Pad": Operator(pad, numbers=(1, 2, 3))}
