"""The operators of this project, as inspection sees them: shapes, work, weights, and what they replaced.

A node of theirs is looked at as a whole: its function body is what runs where there is no library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import onnx_ir as ir

from onnxcompress.inspection.facts import Facts, Shape, Visit, product
from onnxcompress.inspection.results import Quantization
from onnxcompress.ops import DOMAIN, OPS, VERSION
from onnxcompress.ops.shapes import output_shapes, weight_matrix


def is_native(visit: Visit) -> bool:
    """Is it an operator of this project, of the version that is known here?"""
    return visit.node.domain == DOMAIN and visit.node.op_type in OPS and visit.version == VERSION


def is_body(function: ir.Function) -> bool:
    """Is it the function body of an operator of this project?"""
    return function.domain == DOMAIN and function.name in OPS


def native_outputs(visit: Visit) -> list[Facts]:
    """Types and shapes of the outputs.

    Raises:
        ValueError, TypeError: the inputs do not fit the operator.
    """
    op = OPS[visit.node.op_type]
    shapes = output_shapes(op, _attributes(visit), _shapes(visit))
    first = visit.input(0)
    types = {
        port.name: ir.DataType[port.types[0].upper()] if len(port.types) == 1 or first is None else first.dtype
        for port in op.outputs
    }  # of several, that of the first input
    pairs = zip(visit.node.outputs, op.outputs, strict=False)
    return [Facts(value.name or "", types[port.name], shapes[port.name]) for value, port in pairs]


def named_inputs(visit: Visit) -> Iterator[tuple[str, Facts]]:
    """The inputs given, by the name of their port."""
    names = OPS[visit.node.op_type].names(len(visit.inputs))
    return ((name, facts) for name, facts in zip(names, visit.inputs, strict=True) if facts is not None)


def is_parameter(op: str, name: str) -> bool:
    """Does a constant input hold weights, rather than a scale, a zero point, indices, or a function by its values?"""
    if name.endswith(("_scale", "_zero_point")) or name in ("row_start", "column", "tables"):
        return False
    return name not in ("table", "values") or op == "EmbedLayerNorm" or op.startswith("QSparse")


def matrix(visit: Visit) -> tuple[int, int] | None:
    """[N, K] of the node's weight; None where it has none."""
    return weight_matrix(OPS[visit.node.op_type], _attributes(visit), _shapes(visit))


def native_quantization(visit: Visit) -> Quantization | None:
    """How it runs; None for an operator without products."""
    if visit.node.op_type not in COUNTED:
        return None
    if visit.node.op_type == "WeightOnlyLinear":
        bits = _attributes(visit).get("bits", OPS["WeightOnlyLinear"].attributes["bits"])
        return Quantization("weight-only", f"int{bits}", None, "its activations are float")
    inputs = dict(named_inputs(visit))
    scale = inputs.get("x_scale")
    activations = "uint8 dynamic" if scale is not None and not scale.constant else "uint8 static"
    return Quantization("quantized", _WEIGHTS.get(visit.node.op_type, "int8"), activations)


def native_macs(visit: Visit) -> int | None:
    """Multiply-accumulates of one execution, those of the dense weights; None where shapes are unknown."""
    counter = COUNTED.get(visit.node.op_type)
    return 0 if counter is None else counter(visit)


def _layer(visit: Visit) -> int | None:
    weight = matrix(visit)
    return None if weight is None else product((visit.outputs[0].size, weight[1]))


def _weight_only(visit: Visit) -> int | None:
    weight, x = matrix(visit), visit.inputs[0]
    rows = None if x is None or not x.shape else product(x.shape[:-1])
    return None if weight is None or rows is None else rows * weight[0] * weight[1]


def _transposed(visit: Visit) -> int | None:
    # Each input element is multiplied with its [outputs, *kernel] weights.
    shapes = _shapes(visit)
    x, w = shapes["x"], shapes["w"]
    return None if w is None else product((product(x), *w[:-1]))


def _attention(visit: Visit) -> int | None:
    batch, tokens, width = visit.outputs[0].shape or (None,) * 3
    return product((2, batch, tokens, tokens, width))


def _gate(visit: Visit) -> int | None:
    shapes = _shapes(visit)
    first, second = product(shapes["w1"]), product(shapes["w2"])
    x = shapes["x"]
    return None if first is None or second is None or x is None else product((x[0], first + second))


COUNTED: Mapping[str, Callable[[Visit], int | None]] = {
    **dict.fromkeys(("QLinear", "QLinear4", "QSparseLinear", "QLinearLayerNorm", "QSparseLinearLayerNorm"), _layer),
    **dict.fromkeys(("QConv", "QSparseConv"), _layer),
    "WeightOnlyLinear": _weight_only,
    "QConvTranspose": _transposed,
    "QAttention": _attention,
    "QSqueezeExcite": _gate,
}
"""The operators with products, and how to count them."""

_WEIGHTS = {"QLinear4": "int4", "QAttention": "uint8"}
"""Types of the second factor where it is not int8."""


def _attributes(visit: Visit) -> dict[str, int | float | str | tuple[int, ...] | tuple[float, ...]]:
    given = {name: attribute.value for name, attribute in visit.attributes.items()}
    return {name: tuple(value) if isinstance(value, (list, tuple)) else value for name, value in given.items()}


def _shapes(visit: Visit) -> dict[str, Shape | None]:
    return {name: facts.shape for name, facts in named_inputs(visit)}
