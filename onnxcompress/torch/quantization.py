"""Fake quantization: tensors on an integer grid, held in floats so that gradients pass."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch

from onnxcompress.torch.ops.rounding import round_through
from onnxcompress.torch.types import INTEGER_RANGES


@dataclass(frozen=True)
class Grid:
    """Where scales and zero points lie on a tensor, and what its integers may be.

    Attributes:
        low, high: the range of the integers.
        axis: of per-channel and block-wise parameters.
        block_size: elements along the axis that share parameters; 0: one for each place of the axis.
    """

    low: int
    high: int
    axis: int = 1
    block_size: int = 0

    @classmethod
    def of(cls, kind: ir.DataType, axis: int, block_size: int) -> Grid:
        """The grid of an element type.

        Raises:
            KeyError: the type holds no integers that models are quantized to.
        """
        return cls(*INTEGER_RANGES[kind], axis, block_size)

    def spread(self, parameter: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """A scale or zero point in a shape that broadcasts with x."""
        if parameter.numel() == 1:
            return parameter.reshape(())
        if not self.block_size:
            shape = [1] * x.dim()
            shape[self.axis] = -1
            return parameter.reshape(shape)
        repeated = parameter.repeat_interleave(self.block_size, self.axis)
        return repeated.narrow(self.axis, 0, x.shape[self.axis])


class _FakeQuantize(torch.autograd.Function):  # type: ignore[misc]
    """Q then DQ in one, with the gradients of the straight-through estimator; parameters broadcast with x.

    To x: 1 where it rounds to an integer in range. To the scale: round(v) - v with v = x / scale there, else the
    bound (Esser et al., Learned Step Size Quantization, 2020; they end the range half a step earlier).
    """

    @staticmethod
    def forward(
        context: Any, x: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor | None, low: int, high: int
    ) -> torch.Tensor:
        if zero is not None:
            low, high = low - zero, high - zero
        steps = x / scale
        q = torch.round(steps)
        q = torch.clamp(q, low, high)
        context.save_for_backward(steps if scale.requires_grad else (q == torch.round(steps)), q, scale)
        context.learned = scale.requires_grad
        return q * scale

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        steps, q, scale = context.saved_tensors
        if not context.learned:
            return gradient * steps, None, None, None, None
        inside = torch.round(steps) == q
        to_scale = gradient * torch.where(inside, q - steps, q)
        return gradient * inside, to_scale.sum_to_size(scale.shape), None, None, None


def fake_quantize(x: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor | None, grid: Grid) -> torch.Tensor:
    """DequantizeLinear(QuantizeLinear(x)): float, of the shape of x. Rounds ties to even, as ONNX Runtime does."""
    zero = None if zero_point is None else grid.spread(zero_point, x).to(x.dtype)
    scale = damped(scale, x, grid.high)
    return _FakeQuantize.apply(x, grid.spread(scale, x).to(x.dtype), zero, grid.low, grid.high)


def quantize(x: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor | None, grid: Grid) -> torch.Tensor:
    """QuantizeLinear: whole numbers as floats, with the gradient of x / scale where they do not saturate."""
    zero = 0 if zero_point is None else grid.spread(zero_point, x).to(x.dtype)
    return torch.clamp(round_through(x / grid.spread(damped(scale, x, grid.high), x)) + zero, grid.low, grid.high)


def dequantize(q: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor | None, grid: Grid) -> torch.Tensor:
    """DequantizeLinear: of integers, or of floats that hold whole numbers."""
    scale = grid.spread(damped(scale, q, grid.high), q)
    whole = q.to(scale.dtype)
    return (whole if zero_point is None else whole - grid.spread(zero_point, q).to(scale.dtype)) * scale


def integers(x: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor | None, grid: Grid) -> torch.Tensor:
    """The integers of x on the grid: int64, exact for 32-bit grids too."""
    zero = 0 if zero_point is None else grid.spread(zero_point, x).double()
    steps = torch.round((x / grid.spread(scale, x).to(x.dtype)).double()) + zero
    return torch.clamp(steps, grid.low, grid.high).to(torch.int64)


def damped(scale: torch.Tensor, x: torch.Tensor, high: int) -> torch.Tensor:
    """The scale of x, its gradient times 1 / sqrt(elements for each scale * largest integer), as LSQ has it."""
    if not scale.requires_grad:
        return scale
    factor = 1.0 / math.sqrt(max(x.numel() // scale.numel(), 1) * high)
    return (scale * factor) + (scale * (1.0 - factor)).detach()
