"""Which constants of a model are trained."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxcompress.torch.constants import Constants, tensor_of
from onnxcompress.torch.placement import Placement
from onnxcompress.torch.quantization import Grid
from onnxcompress.torch.standard import operator_of
from onnxcompress.torch.standard.operator import Integers
from onnxcompress.torch.types import FLOATS, INTEGER_RANGES

GREATEST = 1e9
"""Constants with numbers from here on are masks of what is not to be seen."""


@dataclass(frozen=True)
class Quantization:
    """How the integers of a constant stand for floats: names of the constants that say so, and the grid.

    `whole`: its readers take the integers themselves, not the floats.
    """

    scale: str
    zero_point: str | None
    grid: Grid
    whole: bool = False


@dataclass(frozen=True)
class Weight:
    """A constant that is trained.

    Attributes:
        kind: its element type in the model.
        quantized: for integers under a DequantizeLinear, which are trained as floats; None for floats.
    """

    name: str
    value: ir.Value
    kind: ir.DataType
    quantized: Quantization | None = None


def find_weights(constants: Constants, placement: Placement, freeze: Collection[str] = ()) -> dict[str, Weight]:
    """The constants that are trained, by name.

    1. Floats with at least one axis, whose every reader takes a tensor to train: not statistics, quantization
       parameters, bounds, shapes, or anything in shape arithmetic.
    2. Of one element: where it stands for a weight or a bias, not for a number of a formula.
    3. Not with infinities or numbers from 1e9 on (masks); not of whole numbers beyond -1, 0 and 1 that only
       arithmetic on elements reads (grids, strides).
    4. Integers that only DequantizeLinear nodes with the same parameters read, or only operators that multiply with
       them and then scale: trained as floats.
    5. Never those in `freeze`.
    """
    names = {value: name for name, value in constants.items()}
    result: dict[str, Weight] = {}
    for name, value in constants.items():
        tensor = tensor_of(value)
        if name in freeze or tensor is None or not tensor.shape or not tensor.size or not value.uses():
            continue
        kind = ir.DataType(tensor.dtype)
        if kind in FLOATS and _is_trained(value, tensor, placement):
            result[name] = Weight(name, value, kind)
        elif kind in INTEGER_RANGES and tensor.size > 1:
            quantized = quantization_of(value, kind, names)
            if quantized is not None:
                result[name] = Weight(name, value, kind, quantized)
    return result


def _is_trained(value: ir.Value, tensor: ir.TensorProtocol, placement: Placement) -> bool:
    operators = [(operator_of(use.node), use.idx) for use in value.uses()]
    if any(placement.is_number(use) for use in value.uses()):
        return False
    if any(operator is not None and index in operator.fixed for operator, index in operators):
        return False
    if tensor.size == 1:
        return any(operator is not None and index in operator.weights for operator, index in operators)
    array = np.asarray(tensor.numpy(), dtype=np.float32)
    if not bool((np.abs(array) < GREATEST).all()):
        return False
    only_formulas = all(operator is not None and operator.elementwise for operator, _ in operators)
    return not only_formulas or not _is_grid(array)


def _is_grid(array: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> bool:
    return bool((array == np.rint(array)).all()) and bool((np.abs(array) > 1).any())


def is_quantizer(node: ir.Node | None, op: str) -> bool:
    """Is it a QuantizeLinear, or a DequantizeLinear, of either domain?"""
    return node is not None and node.op_type == op and node.domain in ("", "ai.onnx", "com.microsoft")


def quantization_of(value: ir.Value, kind: ir.DataType, names: Mapping[ir.Value, str]) -> Quantization | None:
    """How a constant's readers dequantize it; None where they do not agree, or do something else."""
    found = {_reading(use.node, use.idx, kind, names) for use in value.uses()}
    return found.pop() if len(found) == 1 else None


def _reading(node: ir.Node, index: int, kind: ir.DataType, names: Mapping[ir.Value, str]) -> Quantization | None:
    operator = operator_of(node)
    if is_quantizer(node, "DequantizeLinear") and index == 0:
        axis, block = node.attributes.get_int("axis", 1), node.attributes.get_int("block_size", 0)
        places, grid, whole = Integers(1, 2, 0), Grid.of(kind, axis or 0, block or 0), False
    elif operator is not None and index in operator.integers:
        places, whole = operator.integers[index], True
        grid = Grid.of(kind, places.axis, 0)
    else:
        return None
    inputs = [*node.inputs, None, None]
    scale, zero = inputs[places.scale], None if places.zero_point is None else inputs[places.zero_point]
    if scale is None or scale not in names or not (zero is None or zero in names):
        return None
    if whole and not _lies_along(scale, node.inputs[index], places.axis):
        return None
    return Quantization(names[scale], None if zero is None else names[zero], grid, whole)


def _lies_along(scale: ir.Value, weight: ir.Value | None, axis: int) -> bool:
    """Is there one scale, or one for each place of the axis?"""
    tensors = tensor_of(scale), None if weight is None else tensor_of(weight)
    if tensors[0] is None or tensors[1] is None:
        return False
    return tensors[0].size in (1, tensors[1].shape[axis])
