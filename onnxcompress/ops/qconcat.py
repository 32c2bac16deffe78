"""QConcat: images side by side along their channels, each requantized by a table."""

from __future__ import annotations

from typing import cast

import numpy as np

from onnxcompress.ops.lookup import gather
from onnxcompress.ops.op import Array, Attributes, Op, Port, Variant


def _per_input(attributes: Attributes, name: str, count: int, default: int) -> tuple[int, ...]:
    return tuple(cast("tuple[int, ...]", attributes[name])) or (default,) * count


def _reference(attributes: Attributes, tables: Array, *x: Array) -> tuple[Array]:
    factors = _per_input(attributes, "upsample", len(x), 1)
    parts = [
        table[image].repeat(factor, axis=1).repeat(factor, axis=2)
        for table, image, factor in zip(tables, x, factors, strict=True)
    ]
    return (np.concatenate(parts, axis=3),)


def _body(variant: Variant) -> str:
    names = [name for name in variant.inputs if name != "tables"]
    factors = _per_input(variant.attributes, "upsample", len(names), 1)
    identity = _per_input(variant.attributes, "identity", len(names), 0)
    lines: list[str] = []
    parts = []
    for i, (name, factor) in enumerate(zip(names, factors, strict=True)):
        part = name
        if not identity[i]:
            lines += [
                f"row{i} = Constant <value_int = {i}> ()",
                f"table{i} = Gather (tables, row{i})",
                *gather(part, f"mapped{i}", f"table{i}"),
            ]
            part = f"mapped{i}"
        if factor > 1:
            lines += [
                f"axes{i} = Constant <value_ints = [2, 4]> ()",
                f"apart{i} = Unsqueeze ({part}, axes{i})",
                f"factors{i} = Constant <value_ints = [1, 1, {factor}, 1, {factor}, 1]> ()",
                f"repeated{i} = Expand (apart{i}, factors{i})",
                f"small{i} = Shape ({part})",
                f"scales{i} = Constant <value_ints = [1, {factor}, {factor}, 1]> ()",
                f"shape{i} = Mul (small{i}, scales{i})",
                f"large{i} = Reshape (repeated{i}, shape{i})",
            ]
            part = f"large{i}"
        parts.append(part)
    return "\n".join([*lines, f"y = Concat <axis = 3> ({', '.join(parts)})"])


QCONCAT = Op(
    "QConcat",
    inputs=(Port("tables", ("uint8",), constant=True), Port("x", ("uint8",), variadic=True)),
    outputs=(Port("y", ("uint8",)),),
    reference=_reference,
    body=_body,
    attributes={"upsample": (), "identity": ()},
    doc=(
        "y: uint8 [N, H, W, sum of C_i] of n images x_i: uint8 [N, H / upsample_i, W / upsample_i, C_i]. tables: uint8 "
        "[n, 256] requantizes each; identity: 1 for each image whose table changes nothing (default: none is known "
        "to). upsample: a factor for each, nearest (default: 1)."
    ),
)
