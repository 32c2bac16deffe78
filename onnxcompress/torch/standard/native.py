"""This project's own operators as entries of the operator table, through their torch functions."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from onnxcompress.ops import DOMAIN, OPS, Op
from onnxcompress.torch.ops import TORCH_OPS
from onnxcompress.torch.standard.operator import Call, Function, Integers, Operator

FIXED = ("_scale", "_zero_point", "table")
"""What names of inputs end in that are never trained; tables of positions and types are."""

TRAINED_TABLES = ("position_table", "type_table")


def _build(op: Op) -> Any:
    function = TORCH_OPS[op.name]
    count = 0 if op.inputs[-1].variadic else len(op.inputs)

    def build(call: Call) -> Function:
        attributes = {**op.attributes, **call.attributes}
        # Bytes come as floats that hold whole numbers, which the functions cannot tell from real values.
        attributes["x_quantized"] = call.kind(0) == ir.DataType.UINT8
        absent = (None,) * (count - len(call.given))
        return lambda *inputs: function(attributes, *inputs, *absent)

    return build


def _operator(op: Op) -> Operator:
    names = [port.name for port in op.inputs]
    fixed = [i for i, name in enumerate(names) if name.endswith(FIXED) and name not in TRAINED_TABLES]
    trained = [i for i in range(len(names)) if i not in fixed]
    return Operator(_build(op), fixed=tuple(fixed), weights=tuple(trained), integers=_integers(op))


def _integers(op: Op) -> dict[int, Integers]:
    """Constant inputs of signed bytes with a scale for each place of their first axis."""
    names = [port.name for port in op.inputs]
    return {
        i: Integers(names.index(f"{port.name}_scale"), None, 0)
        for i, port in enumerate(op.inputs)
        if port.constant and port.types == ("int8",) and f"{port.name}_scale" in names
    }


NATIVE: dict[tuple[str, str], Operator] = {(DOMAIN, name): _operator(OPS[name]) for name in TORCH_OPS}


def output_kind(node: ir.Node, index: int) -> ir.DataType | None:
    """The element type of an output of one of our operators, where only one is possible."""
    op = OPS.get(node.op_type) if node.domain == DOMAIN else None
    if op is None or index >= len(op.outputs) or len(op.outputs[index].types) != 1:
        return None
    return ir.DataType[op.outputs[index].types[0].upper()]
