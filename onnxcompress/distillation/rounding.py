"""Which way each weight is rounded, learned (AdaRound: Nagel et al. 2020, Up or Down? Adaptive Rounding for
Post-Training Quantization)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from onnxcompress.distillation.matching import WEIGHTED
from onnxcompress.torch.quantization import Grid
from onnxcompress.torch.types import INTEGER_RANGES, to_torch

STRETCH_LOW, STRETCH_HIGH = -0.1, 1.1
"""The sigmoid is stretched to this range and cut at 0 and 1, so that it reaches both."""

FIRST_BETA, LAST_BETA = 20.0, 2.0
"""Of the regularizer 1 - |2 h - 1|^beta: wide at first, so that only what is nearly decided is pushed."""

SAME = 1.01
"""In steps of the grid: how far a weight's integer may be from the float weight that it stands for."""


@dataclass(frozen=True)
class Rounded:
    """A constant of integers in a model, and the float weight that they stand for.

    Attributes:
        name: the constant.
        target: the float weight before quantization.
        scale, zero_point: of its shape, or shapes that broadcast with it.
        grid: the integers' range.
    """

    name: str
    target: Tensor
    scale: Tensor
    zero_point: Tensor
    grid: Grid


class SoftRounding(nn.Module):  # type: ignore[misc]
    """A weight between the grid's points below and above its target, as a learned number from 0 to 1 says.

    A transform of `OnnxModule`: what it is given is left aside.
    """

    def __init__(self, rounded: Rounded) -> None:
        super().__init__()
        steps = rounded.target / rounded.scale
        self.register_buffer("floor", steps.floor())
        self.register_buffer("scale", rounded.scale)
        self.register_buffer("low", rounded.grid.low - rounded.zero_point)
        self.register_buffer("high", rounded.grid.high - rounded.zero_point)
        share = (steps - steps.floor()).clamp(0.01, 0.99)
        self.choice = nn.Parameter(torch.logit((share - STRETCH_LOW) / (STRETCH_HIGH - STRETCH_LOW)))

    def up(self) -> Tensor:
        """0: rounded down, 1: up."""
        return (torch.sigmoid(self.choice) * (STRETCH_HIGH - STRETCH_LOW) + STRETCH_LOW).clamp(0, 1)

    def forward(self, weight: Tensor) -> Tensor:
        return self._on_grid(self.up())

    def undecided(self, done: float) -> Tensor:
        """The mean regularizer, from 1 (nothing is decided) to 0, at a share of the run from 0 to 1."""
        beta = LAST_BETA + (FIRST_BETA - LAST_BETA) * 0.5 * (1 + np.cos(np.pi * done))
        return (1 - (2 * self.up() - 1).abs().pow(beta)).mean()

    def decided(self) -> Tensor:
        """The weight with every choice made: on the grid."""
        return self._on_grid((self.up() >= 0.5).to(self.floor.dtype))

    def _on_grid(self, up: Tensor) -> Tensor:
        return (self.floor + up).clamp(min=self.low, max=self.high) * self.scale


def find_rounded(model: ir.Model, teacher: ir.Model) -> list[Rounded]:
    """The integer weights of a part of a student whose float weights the teacher has.

    1. A constant of at most 8 bits that one DequantizeLinear reads, with constant parameters, for the weight of one
       Conv, ConvTranspose, Gemm or MatMul.
    2. The teacher has a node of the same name and operator whose weight is a float constant of that shape.
    3. No integer is further than a step from it (else it stands for another weight: equalized, smoothed, trained).
    """
    layers = [node for node in teacher.graph if node.op_type in WEIGHTED]
    others = {(node.name, node.op_type): node for node in layers if node.name}
    found = []
    for node in model.graph:
        other = others.get((node.name or "", node.op_type))
        value = node.inputs[1] if other is not None else None
        maker = None if value is None else value.producer()
        if other is None or maker is None or maker.op_type != "DequantizeLinear" or len(maker.outputs[0].uses()) != 1:
            continue
        rounded = _rounded(maker, other)
        if rounded is not None:
            found.append(rounded)
    return found


def with_float_weights(model: ir.Model, found: list[Rounded]) -> ir.Model:
    """A copy of a model in which weights are floats (their targets), under their constants' names."""
    result = model.clone()
    graph = result.graph
    for rounded in found:
        old = graph.initializers[rounded.name]
        maker = next(iter(old.uses())).node
        graph.initializers.pop(rounded.name)
        tensor = ir.tensor(rounded.target.numpy(), name=rounded.name)
        new = ir.Value(
            name=rounded.name,
            shape=ir.Shape(rounded.target.shape),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
        graph.initializers.add(new)
        ir.convenience.replace_all_uses_with(maker.outputs[0], new)
        graph.remove(maker, safe=True)
    return result


def _rounded(maker: ir.Node, other: ir.Node) -> Rounded | None:
    integers, scale, zero = (*maker.inputs, None)[:3]
    weight = other.inputs[1]
    values = [value for value in (integers, scale, zero, weight) if value is not None]
    if len(values) < 3 or integers is None or scale is None or any(value.const_value is None for value in values):
        return None
    kind = ir.DataType(integers.const_value.dtype)  # type: ignore[union-attr]
    if kind not in INTEGER_RANGES or kind.itemsize > 1 or len(integers.uses()) != 1:
        return None
    axis, block = maker.attributes.get_int("axis", 1), maker.attributes.get_int("block_size", 0)
    grid = Grid.of(kind, axis, block)
    q, target = _tensor(integers), _tensor(weight)
    if q.shape != target.shape:
        return None
    step = grid.spread(_tensor(scale), target)
    point = torch.zeros(()) if zero is None else grid.spread(_tensor(zero), target)
    inside = target.div(step).clamp(min=grid.low - point, max=grid.high - point)
    if float((inside - (q - point)).abs().max()) > SAME:
        return None
    return Rounded(integers.name or "", target, step, point, grid)


def _tensor(value: ir.Value | None) -> Tensor:
    assert value is not None and value.const_value is not None
    return to_torch(value.const_value).float()
