"""Reductions over axes."""

from __future__ import annotations

from collections.abc import Callable

import torch

from onnxcompress.torch.standard.operator import Call, Function, Operator, Table, numbers

Axes = tuple[int, ...]
Reduction = Callable[[torch.Tensor, Axes, bool], torch.Tensor]


def reduction(function: Reduction, axes_are_input_since: int = 18) -> Operator:
    """One with `axes` (none: all of them, or with `noop_with_empty_axes` nothing at all) and `keepdims`."""

    def build(call: Call) -> Function:
        keep, skip = bool(call.get("keepdims", 1)), bool(call.get("noop_with_empty_axes", 0))
        fixed = call.get("axes") if call.version < axes_are_input_since else None

        def reduced(x: torch.Tensor, axes: torch.Tensor | None = None) -> torch.Tensor:
            chosen = fixed if axes is None else numbers(axes)
            if not chosen and skip:
                return x
            return function(x, tuple(chosen or range(x.dim())), keep)

        return reduced

    return Operator(build, numbers=(1,))


def _sum(x: torch.Tensor, axes: Axes, keep: bool) -> torch.Tensor:
    return x.sum(axes, keepdim=keep, dtype=x.dtype) if axes else x


def _mean(x: torch.Tensor, axes: Axes, keep: bool) -> torch.Tensor:
    if x.is_floating_point():
        return x.mean(axes, keepdim=keep) if axes else x
    return x.double().mean(axes, keepdim=keep).to(x.dtype)


def _product(x: torch.Tensor, axes: Axes, keep: bool) -> torch.Tensor:
    for axis in sorted((a % x.dim() for a in axes), reverse=True):
        x = x.prod(axis, keepdim=keep, dtype=x.dtype)
    return x


def _largest(x: torch.Tensor, axes: Axes, keep: bool) -> torch.Tensor:
    return x.amax(axes, keepdim=keep)


def _least(x: torch.Tensor, axes: Axes, keep: bool) -> torch.Tensor:
    return x.amin(axes, keepdim=keep)


def _squares(x: torch.Tensor, axes: Axes, keep: bool) -> torch.Tensor:
    return _sum(x * x, axes, keep)


def _euclidean(x: torch.Tensor, axes: Axes, keep: bool) -> torch.Tensor:
    """The gradient at a zero vector is zero: that of a square root would not be a number."""
    if not x.is_floating_point():
        return _squares(x.double(), axes, keep).sqrt().to(x.dtype)
    return torch.linalg.vector_norm(x, 2, axes, keepdim=keep) if axes else x.abs()


def _logarithm_of_exponentials(x: torch.Tensor, axes: Axes, keep: bool) -> torch.Tensor:
    return torch.logsumexp(x, axes, keepdim=keep) if axes else x


def position(function: Callable[..., torch.Tensor]) -> Operator:
    """ArgMax and ArgMin: the first of equal elements, or the last."""

    def build(call: Call) -> Function:
        axis, keep, last = call.get("axis", 0), bool(call.get("keepdims", 1)), call.get("select_last_index", 0)

        def found(x: torch.Tensor) -> torch.Tensor:
            if not last:
                return function(x, axis, keepdim=keep)
            return x.shape[axis] - 1 - function(x.flip(axis), axis, keepdim=keep)

        return found

    return Operator(build)


REDUCTIONS: Table = {
    "ReduceSum": reduction(_sum, axes_are_input_since=13),
    "ReduceMean": reduction(_mean),
    "ReduceProd": reduction(_product),
    "ReduceMax": reduction(_largest),
    "ReduceMin": reduction(_least),
    "ReduceSumSquare": reduction(_squares),
    "ReduceL1": reduction(lambda x, axes, keep: _sum(x.abs(), axes, keep)),
    "ReduceL2": reduction(_euclidean),
    "ReduceLogSum": reduction(lambda x, axes, keep: torch.log(_sum(x, axes, keep))),
    "ReduceLogSumExp": reduction(_logarithm_of_exponentials),
    "ArgMax": position(torch.argmax),
    "ArgMin": position(torch.argmin),
}
