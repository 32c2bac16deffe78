"""QResize: an image enlarged by whole factors, every pixel repeated."""

from __future__ import annotations

from typing import cast

from onnxcompress.ops.lookup import HINTS, look_up
from onnxcompress.ops.op import TABLE, Array, Attributes, Op, Port, Variant


def _reference(attributes: Attributes, x: Array, table: Array | None) -> tuple[Array]:
    down, across = cast("tuple[int, int]", attributes["scales"])
    y = x.repeat(down, axis=1).repeat(across, axis=2)
    return (y if table is None else table[y],)


def _body(variant: Variant) -> str:
    down, across = cast("tuple[int, int]", variant.attributes["scales"])
    image = "x"
    lines = []
    if variant.has("table"):
        lines += look_up(variant, "x", "mapped")
        image = "mapped"
    # Copies of whole pixels: several times as fast as Resize with channels innermost.
    lines += [
        "axes = Constant <value_ints = [2, 4]> ()",
        f"apart = Unsqueeze ({image}, axes)",
        f"factors = Constant <value_ints = [1, 1, {down}, 1, {across}, 1]> ()",
        "repeated = Expand (apart, factors)",
        "small = Shape (x)",
        f"scales = Constant <value_ints = [1, {down}, {across}, 1]> ()",
        "shape = Mul (small, scales)",
        "y = Reshape (repeated, shape)",
    ]
    return "\n".join(lines)


QRESIZE = Op(
    "QResize",
    inputs=(Port("x", ("uint8",)), TABLE),
    outputs=(Port("y", ("uint8",)),),
    reference=_reference,
    body=_body,
    attributes={"scales": (1, 1), **HINTS},
    doc="y[n, h, w] = table[x[n, h / scales[0], w / scales[1]]]: nearest upsampling of uint8 [N, H, W, C].",
)
