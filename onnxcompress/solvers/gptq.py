"""GPTQ: rounding a layer's weights to the grid of weight-only quantization, each column making up for those before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcompress.data import DataSet
from onnxcompress.passes.prune import Layer, find_layers
from onnxcompress.passes.quantize import QuantizeWeights
from onnxcompress.passes.quantize.blocks import block_parameters, dequantize_blocks, quantize_blocks
from onnxcompress.passes.quantize.storage import Blocks, Storage
from onnxcompress.progress import Progress, silent
from onnxcompress.solvers.least_squares import damped, output_error
from onnxcompress.solvers.obs import COLUMNS, inverse_factor, sweep
from onnxcompress.solvers.sequential import SAMPLES, solvable, solve_layers

Array = np.ndarray[Any, Any]


class Rounding:
    """Rounds columns on the way, to integers in blocks of inputs; scales and zero points are the block's as it is met.

    Attributes:
        integers: uint8 [N, blocks * block_size]; what pads the last block is its zero point.
        scales: float32 [N, blocks].
        zeros: uint8 [N, blocks].
    """

    def __init__(self, shape: tuple[int, int], block_size: int, bits: int, *, symmetric: bool) -> None:
        outputs, inputs = shape
        self.block_size, self.bits, self.symmetric = block_size, bits, symmetric
        blocks = -(-inputs // block_size)
        self.integers = np.zeros((outputs, blocks * block_size), np.uint8)
        self.scales = np.ones((outputs, blocks), np.float32)
        self.zeros = np.zeros((outputs, blocks), np.uint8)

    def begin(self, start: int, columns: Array, diagonal: Array) -> None:
        """Nothing is known before a block is met."""

    def settle(self, column: int, left: Array, diagonal: Array) -> Array:
        block = column // self.block_size
        if column % self.block_size == 0:
            part = left[:, : self.block_size].astype(np.float32)
            scales, zeros = block_parameters(part, self.block_size, self.bits, symmetric=self.symmetric)
            self.scales[:, block], self.zeros[:, block] = scales[:, 0], zeros[:, 0]
            self.integers[:, column : column + self.block_size] = zeros
        scales, zeros = self.scales[:, block : block + 1], self.zeros[:, block : block + 1]
        value = left[:, :1].astype(np.float32)
        self.integers[:, column] = quantize_blocks(value, scales, zeros, 1, self.bits)[:, 0]
        new: Array = dequantize_blocks(self.integers[:, column : column + 1], scales, zeros, 1)[:, 0]
        return new.astype(np.float64)


@dataclass
class QuantizeLayers:
    """`solve` for `solve_layers`: rounds each layer's weight, and keeps what is to be stored.

    Attributes:
        storages: how each weight will be stored, in blocks, by initializer.
        blocks: filled: what `QuantizeWeights` stores, by initializer.
        errors: filled: E||(W' - W) x||^2 / E||W x||^2 of each layer's output, by layer name.
    """

    storages: Mapping[str, Storage]
    blocks: dict[str, Blocks] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)

    def __call__(self, layer: Layer, weight: Array, second: Array) -> Array:
        """The weight on its grid, [1, N, K], of second moments [1, K, K]."""
        storage = self.storages[layer.weight]
        size = storage.block_size or layer.inputs
        rule = Rounding((layer.outputs, layer.inputs), size, storage.bits, symmetric=storage.symmetric)
        new = sweep(weight[0], inverse_factor(damped(second)[0]), rule, -(-COLUMNS // size) * size)[None]
        self.blocks[layer.weight] = Blocks(rule.integers, rule.scales, rule.zeros)
        self.errors[layer.name] = output_error(new, weight, second)
        return new


def gptq_blocks(
    model: ir.Model, step: QuantizeWeights, data: DataSet, *, threads: int = 0, progress: Progress = silent
) -> dict[str, Blocks]:
    """The integers that a weight-only pass is to store, by initializer, solved layer by layer.

    Each layer sees the layers before it quantized. Weights that several nodes read are not solved: the pass rounds
    them.

    Args:
        model: the float model that the pass will change; is not changed.
        step: the pass.
        data: its first feeds are used.

    Raises:
        CalibrationError: activations that are not finite, no feeds.
        DataError: feeds that do not fit the model.
    """
    copy = model.clone()
    storages = step.storages(copy)
    turned = _without_transposes(copy, storages)
    storages |= {name: storages[original] for name, original in turned.items()}
    layers = [layer for layer in find_layers(copy)[0] if layer.weight in storages and solvable(layer) is None]
    solve = QuantizeLayers(storages)
    feeds = data.take(0, SAMPLES)
    solve_layers(copy, layers, feeds, solve, correct_bias=False, threads=threads, progress=progress)
    # The view [N, K] of a weight is the same whichever way round it is stored.
    return {turned.get(name, name): blocks for name, blocks in solve.blocks.items()}


def _without_transposes(model: ir.Model, weights: Mapping[str, Storage]) -> dict[str, str]:
    """Let products read weights that they read through a Transpose directly; what the new ones are made of, by name."""
    made: dict[str, str] = {}
    for node in list(model.graph):
        value = node.inputs[1] if len(node.inputs) > 1 else None
        transpose = None if value is None else value.producer()
        if value is None or transpose is None or transpose.op_type != "Transpose" or len(value.uses()) > 1:
            continue
        source = transpose.inputs[0]
        if source is None or source.name not in weights or source.const_value is None or len(source.uses()) > 1:
            continue
        name, original = f"{value.name}/constant", source.name or ""
        array = np.ascontiguousarray(source.const_value.numpy().T)
        tensor = ir.tensor(array, name=name)
        constant = ir.Value(name=name, shape=ir.Shape(array.shape), type=source.type, const_value=tensor)
        model.graph.register_initializer(constant)
        node.replace_input_with(1, constant)
        made[name] = original
    return made
