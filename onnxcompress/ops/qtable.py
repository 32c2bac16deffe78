"""QTable: any element-wise function of one quantized tensor."""

from __future__ import annotations

from onnxcompress.ops.lookup import HINTS, look_up
from onnxcompress.ops.op import Array, Attributes, Op, Port, Variant


def _reference(attributes: Attributes, x: Array, table: Array) -> tuple[Array]:
    return (table[x],)


def _body(variant: Variant) -> str:
    return "\n".join(look_up(variant, "x", "y"))


QTABLE = Op(
    "QTable",
    inputs=(Port("x", ("uint8",)), Port("table", ("uint8",), constant=True)),
    outputs=(Port("y", ("uint8",)),),
    reference=_reference,
    body=_body,
    attributes=HINTS,
    doc="y = table[x]. x: uint8 of any shape; table: uint8 [256].",
)
