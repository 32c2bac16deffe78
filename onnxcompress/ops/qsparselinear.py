"""QSparseLinear: QLinear with block-sparse weights."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from onnxcompress.ops.blocks import blocks_body, from_blocks, output_count
from onnxcompress.ops.op import Array, Attributes, Op, Port, Variant
from onnxcompress.ops.qlinear import QLINEAR

BLOCK_INPUTS = (
    Port("values", ("int8",), constant=True),
    Port("row_start", ("int32",), constant=True),
    Port("column", ("int32",), constant=True),
)
"""The weights (onnxcompress.ops.blocks.Blocks) of operators with block-sparse weights."""


def dense_weights(variant: Variant, columns: int) -> tuple[str, int, dict[str, str]]:
    """Nodes that make `w` int8 [N, columns], N, and the inputs with `w` in place of the blocks."""
    values, starts = variant.shapes["values"], variant.shapes["row_start"][0]
    scales = variant.shapes["w_scale"]
    n = scales[0] if scales else (starts - 1) * values[1]
    inputs: dict[str, str] = {}
    for name, element_type in variant.inputs.items():
        if name == "values":
            inputs["w"] = "int8"
        elif name not in ("row_start", "column"):
            inputs[name] = element_type
    return blocks_body((starts, cast("tuple[int, int, int]", values)), n, columns, "w"), n, inputs


def sparse_version(name: str, dense: Op, doc: str) -> Op:
    """An operator like `dense`, a linear layer, with blocks in place of its `w` and the attribute in_features."""

    def reference(attributes: Attributes, *inputs: Array | None) -> tuple[Array | None, ...]:
        x, x_scale, x_zero, values, row_start, column, w_scale, *rest = inputs
        assert values is not None and row_start is not None and column is not None and w_scale is not None
        n = output_count(row_start, values.shape[1], w_scale)
        w = from_blocks(values, row_start, column, n, cast("int", attributes["in_features"]))
        return dense.reference(attributes, x, x_scale, x_zero, w, w_scale, *rest)

    def body(variant: Variant) -> str:
        k = cast("int", variant.attributes["in_features"])
        nodes, n, inputs = dense_weights(variant, k)
        return nodes + "\n" + dense.body(replace(variant, inputs=inputs, shapes={**variant.shapes, "w": (n, k)}))

    ports = ((port,) if port.name != "w" else BLOCK_INPUTS for port in dense.inputs)
    inputs = tuple(port for some in ports for port in some)
    return Op(name, inputs, dense.outputs, reference, body, {"in_features": 0, **dense.attributes}, doc)


QSPARSELINEAR = sparse_version(
    "QSparseLinear",
    QLINEAR,
    """QLinear with the int8 weights [N, K] given by their blocks that are not all zeros: `values` int8
        [blocks, n, 4] of n = 1, 4 or 16 outputs by 4 inputs, `row_start` int32 [ceil(N / n) + 1], `column` int32
        [blocks] in units of 4 inputs, increasing within a row of blocks (onnxcompress.ops.blocks makes them). K is the
        attribute in_features; N is the length of w_scale, or ceil(N / n) * n where that is one value. What blocks hold
        beyond N and K is not looked at.""",
)
