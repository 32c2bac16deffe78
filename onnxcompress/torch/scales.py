"""Which scales of QuantizeLinear and DequantizeLinear are learned, and what follows from them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxcompress.torch.constants import Constants, tensor_of
from onnxcompress.torch.standard import operator_of
from onnxcompress.torch.types import FLOATS
from onnxcompress.torch.weights import is_quantizer

COMPUTES = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2}
"""Operators with a bias, and which input it is."""


@dataclass
class Scales:
    """Names of constants.

    Attributes:
        learned: scales with a step size to learn.
        same: a scale that equals a learned one, which it stands beside in a pair, to that one.
        products: the scale of a 32-bit bias to those of its input and weight, whose product it must stay.
    """

    learned: list[str] = field(default_factory=list)
    same: dict[str, str] = field(default_factory=dict)
    products: dict[str, tuple[str, str]] = field(default_factory=dict)


def find_scales(model: ir.Model, constants: Constants, freeze: Collection[str] = ()) -> Scales:
    """The scales of a model.

    1. A scale is learned where it is a float constant that only quantizers, and integer products, read as their scale.
    2. In a pair of QuantizeLinear and DequantizeLinear with equal scales in two constants, the second is the first.
    3. The scale of a 32-bit bias is the product of two others, not learned; where it is that of several biases with
       other factors, neither it nor its factors are learned.
    4. Those in `freeze` are not learned.
    """
    names = {value: name for name, value in constants.items()}
    scales, held = Scales(), set(freeze)
    for node in model.graph.all_nodes():
        _note_pair(node, names, scales)
    for node in model.graph.all_nodes():
        found = _bias_product(node, names)
        if found is not None:
            bias, factors = found[0], (scales.same.get(found[1], found[1]), scales.same.get(found[2], found[2]))
            if scales.products.setdefault(bias, factors) != factors:
                held.update((bias, *factors, *scales.products[bias]))
    for name, value in constants.items():
        tensor = tensor_of(value)
        if tensor is None or ir.DataType(tensor.dtype) not in FLOATS or not value.uses():
            continue
        is_scale = all(
            (operator := operator_of(use.node)) is not None and use.idx in operator.scales for use in value.uses()
        )
        if is_scale and name not in held and name not in scales.same and name not in scales.products:
            scales.learned.append(name)
    scales.products = {
        bias: factors for bias, factors in scales.products.items() if bias not in held and not set(factors) & held
    }
    return scales


def _note_pair(node: ir.Node, names: Mapping[ir.Value, str], scales: Scales) -> None:
    quantizer = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    if not is_quantizer(node, "DequantizeLinear") or quantizer is None or not is_quantizer(quantizer, "QuantizeLinear"):
        return
    first, second = quantizer.inputs[1], node.inputs[1]
    if first is None or second is None or first is second or not equal_constants(first, second):
        return
    if len(second.uses()) == 1:
        scales.same[names[second]] = names[first]


def equal_constants(a: ir.Value | None, b: ir.Value | None) -> bool:
    """The same constant, or two with equal values."""
    if a is b:
        return True
    if a is None or b is None:
        return False
    first, second = tensor_of(a), tensor_of(b)
    if first is None or second is None or first.dtype != second.dtype or tuple(first.shape) != tuple(second.shape):
        return False
    return bool(np.array_equal(first.numpy(), second.numpy()))


def _bias_product(node: ir.Node, names: Mapping[ir.Value, str]) -> tuple[str, str, str] | None:
    """The scales of a bias, and of the input and weight whose product it is."""
    place = COMPUTES.get(node.op_type)
    if place is None or node.domain not in ("", "ai.onnx") or len(node.inputs) <= place:
        return None
    scales = []
    for index in (place, 0, 1):
        value = node.inputs[index]
        maker = value.producer() if value is not None else None
        if maker is None or not is_quantizer(maker, "DequantizeLinear"):
            return None
        scale = maker.inputs[1]
        if scale is None or scale not in names:
            return None
        scales.append(scale)
    arrays = [
        np.asarray(tensor.numpy(), np.float64).reshape(-1) for v in scales if (tensor := tensor_of(v)) is not None
    ]
    if len(arrays) != 3 or arrays[1].size != 1 or arrays[0].size not in (arrays[2].size, 1):
        return None
    if not np.allclose(arrays[0], arrays[1] * arrays[2], rtol=1e-5, atol=0):
        return None
    return names[scales[0]], names[scales[1]], names[scales[2]]
