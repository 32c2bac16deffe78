"""Gathering, scattering, and what finds places."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from onnxcompress.torch.standard.operator import Call, Function, Operator, Table, number, plain

REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def gather(call: Call) -> Function:
    axis = call.get("axis", 0)

    def apply(x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        if indices.dim() == 0 and indices.device.type == "cpu":
            return x.select(axis, int(indices))
        index = _counted_from_start(indices, x.shape[axis])
        if axis == 0 and x.dim() == 2 and x.is_floating_point():
            return F.embedding(index, x)
        along = axis % x.dim()
        y = x.index_select(along, index.reshape(-1))
        return y.reshape(x.shape[:along] + index.shape + x.shape[along + 1 :])

    return apply


def gather_elements(call: Call) -> Function:
    axis = call.get("axis", 0)
    return lambda x, indices: torch.gather(x, axis, _counted_from_start(indices, x.shape[axis]))


def gather_nd(call: Call) -> Function:
    batch = call.get("batch_dims", 0)

    def apply(x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        return x[_places(x, indices, batch)]

    return apply


def _places(x: torch.Tensor, indices: torch.Tensor, batch: int) -> tuple[torch.Tensor, ...]:
    """Index tensors of the leading axes, that select slices of x at the tuples in the last axis of `indices`."""
    rank = indices.dim() - 1
    own = []
    for axis in range(batch):
        shape = [1] * rank
        shape[axis] = x.shape[axis]
        own.append(torch.arange(x.shape[axis], device=x.device).reshape(shape))
    given = [_counted_from_start(part, x.shape[batch + i]) for i, part in enumerate(indices.unbind(-1))]
    return (*own, *given)


def scatter_elements(call: Call) -> Function:
    axis, how = call.get("axis", 0), REDUCTIONS.get(call.get("reduction") or "none")

    def apply(x: torch.Tensor, indices: torch.Tensor, updates: torch.Tensor) -> torch.Tensor:
        index = _counted_from_start(indices, x.shape[axis])
        if how is None:
            return x.scatter(axis, index, updates.to(x.dtype))
        return x.scatter_reduce(axis, index, updates.to(x.dtype), how)

    return apply


def scatter_nd(call: Call) -> Function:
    how = REDUCTIONS.get(call.get("reduction") or "none")

    def apply(x: torch.Tensor, indices: torch.Tensor, updates: torch.Tensor) -> torch.Tensor:
        if indices.shape[-1] == 0:  # updates replace the whole of x
            return updates.to(x.dtype).reshape(x.shape)
        places = _places(x, indices, 0)
        if how in (None, "sum"):
            return x.index_put(places, updates.to(x.dtype), accumulate=how == "sum")
        flat = torch.zeros_like(places[0])
        for part, length in zip(places, x.shape, strict=False):
            flat = flat * length + part
        tail = x.shape[len(places) :]
        rows = flat.reshape(-1, 1).expand(-1, tail.numel())
        wide = x.reshape(-1, tail.numel())
        return wide.scatter_reduce(0, rows, updates.to(x.dtype).reshape(rows.shape), how).reshape(x.shape)

    return apply


def one_hot(call: Call) -> Function:
    axis = call.get("axis", -1)

    def apply(indices: torch.Tensor, depth: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        count = int(number(depth))
        index = indices.long()
        index = torch.where(index < 0, index + count, index)
        along = axis % (indices.dim() + 1)
        shape = [1] * (indices.dim() + 1)
        shape[along] = count
        hot = index.unsqueeze(along) == torch.arange(count, device=index.device).reshape(shape)
        return torch.where(hot, values[1], values[0])

    return apply


def top_k(call: Call) -> Function:
    axis, largest, in_order = call.get("axis", -1), bool(call.get("largest", 1)), bool(call.get("sorted", 1))
    fixed = call.get("k") if call.version < 10 else None

    def apply(x: torch.Tensor, k: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        count = int(number(k, fixed))
        if in_order:  # equal elements in the order of their indices, which torch.topk does not promise
            values, index = torch.sort(x, dim=axis, descending=largest, stable=True)
            return values.narrow(axis, 0, count), index.narrow(axis, 0, count)
        return tuple(torch.topk(x, count, axis, largest, False))

    return apply


def compress(call: Call) -> Function:
    axis = call.get("axis")

    def apply(x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        kept = condition.nonzero().reshape(-1)
        return x.reshape(-1)[kept] if axis is None else x.index_select(axis, kept)

    return apply


def unique(call: Call) -> Function:
    """Values, where each stands first, where each element went, and how often each stands."""
    axis, in_order = call.get("axis"), bool(call.get("sorted", 1))

    def apply(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        values, inverse, counts = torch.unique(x, return_inverse=True, return_counts=True, dim=axis)
        inverse, along = inverse.reshape(-1), axis or 0
        first = torch.full_like(counts, inverse.numel()).scatter_reduce(
            0, inverse, torch.arange(inverse.numel(), device=x.device), "amin"
        )
        if not in_order:
            order = first.argsort()
            rank = order.argsort()
            values, first, counts, inverse = (
                values.index_select(along, order),
                first[order],
                counts[order],
                rank[inverse],
            )
        return values, first, inverse, counts

    return apply


def reverse_sequence(call: Call) -> Function:
    time, batch = call.get("time_axis", 0), call.get("batch_axis", 1)

    def apply(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        places = torch.arange(x.shape[time], device=x.device)[:, None]
        source = torch.where(places < lengths, lengths - 1 - places, places)
        shape = [1] * x.dim()
        shape[time], shape[batch] = x.shape[time], x.shape[batch]
        source = source if time < batch else source.t()
        return torch.gather(x, time, source.reshape(shape).expand(x.shape))

    return apply


def _counted_from_start(indices: torch.Tensor, length: int) -> torch.Tensor:
    index = indices.long()
    return torch.where(index < 0, index + length, index)


def nonzero(x: torch.Tensor) -> Any:
    return x.nonzero().t()


INDEXING: Table = {
    "Gather": Operator(gather),
    "GatherElements": Operator(gather_elements),
    "GatherND": Operator(gather_nd),
    "Scatter": Operator(scatter_elements),
    "ScatterElements": Operator(scatter_elements),
    "ScatterND": Operator(scatter_nd),
    "OneHot": Operator(one_hot, numbers=(1,)),
    "TopK": Operator(top_k, numbers=(1,)),
    "Compress": Operator(compress),
    "NonZero": plain(nonzero),
    "Unique": Operator(unique),
    "ReverseSequence": Operator(reverse_sequence),
}
