"""Weights of 4 bits for linear layers of quantized activations."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcompress.ops import DOMAIN
from onnxcompress.ops.qlayernorm import NORM_OUTPUTS
from onnxcompress.ops.qlinear4 import QLINEAR4, pack4
from onnxcompress.passes.lower.functions import replaced_nodes
from onnxcompress.passes.lower.rewriting import (
    constant,
    given_attributes,
    given_inputs,
    replace,
    taken_outputs,
    written,
)
from onnxcompress.passes.quantize.blocks import block_parameters, quantize_blocks
from onnxcompress.passes.quantize.roles import Decision

Array = np.ndarray[Any, Any]

LEAST_BLOCK = 32
"""Inputs of the smallest block that QLinear4 takes."""

_SHRINKS = np.linspace(1.0, 0.7, 7, dtype=np.float32)
"""What a block's largest scale is multiplied by, to find one with a smaller error: clipping the largest weight pays."""

_OF_NORM = ("gamma", "beta", "q_scale", "q_zero_point")


class UseFourBits(ir.passes.InPlacePass):
    """Lowered linear layers store their weights in 4 bits, with a scale for each block of inputs.

    1. QLinear becomes QLinear4.
    2. QLinearLayerNorm becomes QLinear4, which adds the residual in float, and QLayerNorm.

    Layers stay in 8 bits that give a scale for each row, or bytes by a table, and those whose inputs are no whole
    number of blocks.

    Args:
        block_size: inputs that share a scale; a multiple of 4 from 32 on.

    After a run, `decisions` says what became of each layer, under the names of the nodes that it replaces.

    Raises:
        ValueError: the block size is another.
    """

    def __init__(self, block_size: int) -> None:
        super().__init__()
        if block_size < LEAST_BLOCK or block_size % 4:
            raise ValueError(f"blocks of 4-bit weights have a multiple of 4 inputs from 32 on, not {block_size}")
        self.block_size = block_size
        self.decisions: list[Decision] = []

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        self.decisions = []
        for node in list(model.graph):
            if node.domain != DOMAIN or node.op_type not in ("QLinear", "QLinearLayerNorm"):
                continue
            names = replaced_nodes(node) or [node.name or ""]
            reason = _why_not(node, self.block_size)
            if not reason:
                _rewrite(model.graph, node, self.block_size)
            text = reason or f"4-bit weights, blocks of {self.block_size}"
            for name in names:
                self.decisions.append(Decision(name, node.op_type, not reason, text))
        return ir.passes.PassResult(model, any(decision.quantized for decision in self.decisions))


def _why_not(node: ir.Node, block_size: int) -> str:
    """Why the layer keeps its 8 bits; empty: it does not."""
    given = given_inputs(node)
    outputs = {port.name for port, value in zip(_ports(node), node.outputs, strict=False) if value.name}
    inputs = int(given["w"].shape[1])  # type: ignore[index, arg-type]
    if not inputs or inputs % block_size:
        return f"8 bits: {inputs} inputs are no blocks of {block_size}"
    if node.op_type == "QLinear":
        if node.attributes.get_int("dynamic", 0):
            return "8 bits: its result has a scale for each row"
        if "table" in given:
            return "8 bits: its result goes through a table"
        if {"y", "y_float"} <= outputs:
            return "8 bits: its result is read in float and in bytes"
    return ""


def _ports(node: ir.Node) -> tuple[Any, ...]:
    return NORM_OUTPUTS if node.op_type == "QLinearLayerNorm" else QLINEAR4.outputs


def _rewrite(graph: ir.Graph, node: ir.Node, block_size: int) -> None:
    given = given_inputs(node)
    integers, scale = (given[name].const_value.numpy() for name in ("w", "w_scale"))  # type: ignore[union-attr]
    w, w_scale = four_bits(integers * scale.reshape(-1, 1).astype(np.float32), block_size)
    given["w"] = constant(graph, f"{node.name}/w4", w)
    given["w_scale"] = constant(graph, f"{node.name}/w4_scale", w_scale)
    attributes = {**given_attributes(node), "block_size": block_size}
    outputs = taken_outputs(node)
    if node.op_type == "QLinear":
        return replace(graph, node, written("QLinear4", given, attributes, outputs[: len(QLINEAR4.outputs)]))
    names = [port.name for port in NORM_OUTPUTS]
    total = next((v for name, v in zip(names, outputs, strict=False) if name == "sum" and v.name), None)
    if total is None:
        total = ir.Value(name=f"{node.name}/sum", type=ir.TensorType(ir.DataType.FLOAT))
    normed = {"x": total, **{name: value for name, value in given.items() if name in _OF_NORM}}
    linear = written("QLinear4", given, {"block_size": block_size}, [ir.Value(name=""), total])
    norm = written("QLayerNorm", normed, given_attributes(node), outputs[: names.index("sum")])
    return replace(graph, node, linear, norm)


def four_bits(w: Array, block_size: int) -> tuple[Array, Array]:
    """Weights of QLinear4, uint8 [N, K / 2], and scales, float32 [N, K / block_size], of a float [N, K] weight.

    Of a few scales below the one that reaches a block's largest weight, the one with the least squared error is taken.
    """
    largest, zero = block_parameters(w, block_size, 4, symmetric=True)
    best_error, best = np.full(largest.shape, np.inf, np.float32), largest
    blocks = w.reshape(*largest.shape, block_size)
    for shrink in _SHRINKS:
        scale = largest * shrink
        rounded = quantize_blocks(w, scale, zero, block_size, 4).reshape(blocks.shape).astype(np.float32) - 8
        error = np.square(rounded * scale[..., None] - blocks).sum(axis=-1)
        best = np.where(error < best_error, scale, best)
        best_error = np.minimum(error, best_error)
    return pack4(quantize_blocks(w, best, zero, block_size, 4)), best.astype(np.float32)
