"""EmbedLayerNorm: word + type + position embedding of every token, normalised and quantized."""

from __future__ import annotations

import numpy as np

from onnxcompress.ops.op import Array, Attributes, Op, Port, Variant, parameters
from onnxcompress.ops.qlayernorm import norm_body, norm_reference, sum_body


def _reference(
    attributes: Attributes,
    ids: Array,
    table: Array,
    table_scale: Array,
    type_ids: Array | None,
    type_table: Array | None,
    position_table: Array | None,
    position_ids: Array | None,
    gamma: Array,
    beta: Array,
    q_scale: Array | None,
    q_zero_point: Array | None,
    position_scale: Array | None,
) -> tuple[Array | None, ...]:
    x = table[ids].astype(np.float64) * table_scale[ids].astype(np.float64)[..., None]
    if type_table is not None:
        x = x + type_table[type_ids]
    if position_table is not None:
        offset = int(str(attributes["position_offset"]))
        rows = offset + np.arange(ids.shape[1]) if position_ids is None else position_ids
        position = position_table[rows].astype(np.float64)
        x = x + (position if position_scale is None else position * position_scale[rows][..., None])
    return norm_reference(attributes, x, gamma, beta, q_scale, q_zero_point)[:4]


def _body(variant: Variant) -> str:
    text = "last = Constant <value_ints = [-1]> ()\n" + _rows("word", "table", "ids", "table_scale")
    terms = ["word"]
    if variant.has("type_table"):
        text += "type = Gather (type_table, type_ids)\n"
        terms.append("type")
    if variant.has("position_table"):
        text += _positions(variant)
        terms.append("position")
    return text + sum_body("total", *terms) + "\n" + norm_body(variant, "total")


def _rows(name: str, table: str, ids: str, scale: str) -> str:
    """Rows of an int8 table, each times its scale."""
    return f"""
        {name}_row = Gather ({table}, {ids})
        {name}_steps = Cast <to = 1> ({name}_row)
        {name}_row_scale = Gather ({scale}, {ids})
        {name}_factor = Unsqueeze ({name}_row_scale, last)
        {name} = Mul ({name}_steps, {name}_factor)
    """


def _positions(variant: Variant) -> str:
    text, rows = "", "position_ids"
    if not variant.has("position_ids"):
        rows = "counted"
        text = f"""
        length = Shape <start = 1, end = 2> (ids)
        count = Squeeze (length)
        begin = Constant <value_int = {variant.attributes["position_offset"]}> ()
        step = Constant <value_int = 1> ()
        end = Add (begin, count)
        counted = Range (begin, end, step)
        """
    if variant.has("position_scale"):
        return text + _rows("position", "position_table", rows, "position_scale")
    return text + f"position = Gather (position_table, {rows})\n"


EMBEDLAYERNORM = Op(
    "EmbedLayerNorm",
    inputs=(
        Port("ids", ("int64", "int32")),
        Port("table", ("int8",), constant=True),
        Port("table_scale", ("float",), constant=True),
        Port("type_ids", ("int64", "int32"), optional=True),
        Port("type_table", ("float",), optional=True, constant=True),
        Port("position_table", ("float", "int8"), optional=True, constant=True),
        Port("position_ids", ("int64", "int32"), optional=True),
        Port("gamma", ("float",), constant=True),
        Port("beta", ("float",), constant=True),
        *parameters("q", optional=True),
        Port("position_scale", ("float",), optional=True, constant=True),
    ),
    outputs=(
        Port("y", ("float",), optional=True),
        Port("q", ("uint8",), optional=True),
        Port("row_scale", ("float",), optional=True),
        Port("row_zero_point", ("uint8",), optional=True),
    ),
    attributes={"epsilon": 1e-12, "position_offset": 0, "dynamic": 0},
    reference=_reference,
    body=_body,
    doc="""y = LayerNorm(table[ids] * table_scale[ids] + type_table[type_ids] + position_table[positions]), gamma, beta.

    ids [B, S]; table int8 [V, C], table_scale [V]; type_ids [B, S] with type_table [T, C]; position_table [P, C] with
    position_ids [S], [1, S] or [B, S], or positions position_offset + 0 .. S - 1 without them: float, or int8 with a
    position_scale [P] that multiplies its rows. Ids beyond a table are errors (the
    kernel also refuses negative ones, which Gather counts from the end).
    y float [B, S, C]. q uint8: saturate(round(y / q_scale) + q_zero_point), q_scale [] or [C]; with dynamic = 1 each
    row of y (over q_scale, where it is given) by its own range, which row_scale and row_zero_point [B, S, 1] tell.""",
)
