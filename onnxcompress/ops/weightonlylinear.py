"""WeightOnlyLinear: a linear layer of floats by weights of 4 or 8 bits, which stay packed in memory."""

from __future__ import annotations

from typing import cast

import numpy as np

from onnxcompress.ops.activation import activation_body, activation_reference
from onnxcompress.ops.op import Array, Attributes, Op, Port, Variant
from onnxcompress.ops.qlinear4 import unpack4

BLOCK_SIZES = (0, 32, 64, 128)
"""Inputs that share a scale, of those that kernels exist for; 0: all of an output's."""


def weights(w: Array, w_scale: Array, w_zero_point: Array | None, bits: int, block_size: int, k: int) -> Array:
    """The real weights, float64 [N, K].

    Args:
        w, w_scale, w_zero_point: the operator's inputs.
        bits, block_size: its attributes.
        k: inputs; 4 bits do not tell an odd K from the even one above.
    """
    codes = unpack4(w) if bits == 4 else w
    size = block_size or codes.shape[1]
    zero: Array | int = 1 << (bits - 1)
    if w_zero_point is not None:
        zero = np.repeat(w_zero_point.astype(np.float64), size, axis=1)[:, : codes.shape[1]]
    scale = np.repeat(w_scale.astype(np.float64), size, axis=1)[:, : codes.shape[1]]
    real: Array = ((codes.astype(np.float64) - zero) * scale)[:, :k]
    return real


def _reference(attributes: Attributes, *inputs: Array | None) -> tuple[Array | None, ...]:
    x, w, w_scale, w_zero_point, bias, residual = inputs
    assert x is not None and w is not None and w_scale is not None
    bits, block_size = cast("int", attributes["bits"]), cast("int", attributes["block_size"])
    with np.errstate(invalid="ignore", over="ignore"):
        real = x.astype(np.float64) @ weights(w, w_scale, w_zero_point, bits, block_size, x.shape[-1]).T
        if bias is not None:
            real = real + bias
        activation = cast("str", attributes["activation"])
        if attributes["gated"]:
            real = activation_reference(activation, real[..., ::2]) * real[..., 1::2]
        else:
            real = activation_reference(activation, real)
        if residual is not None:
            real = real + residual
        return (real.astype(x.dtype),)


def _body(variant: Variant) -> str:
    """Weights become uint4 or uint8 [K, N] when the model is loaded, and stay so: ONNX Runtime makes the two nodes
    DequantizeLinear and MatMul one that decodes them. A gated layer is two such products.

    Integers of 4 bits come from QuantizeLinear: runtimes before 1.23 cannot cast to them.
    """
    four = variant.attributes["bits"] == 4
    gated = bool(variant.attributes["gated"])
    lines = ["last_axis = Constant <value = int64[1] {-1}> ()"]
    half = variant.inputs["x"] == "float16"
    lines.append("x_real = Cast <to = 1> (x)" if half else "x_real = Identity (x)")
    lines += _codes(variant) if four else ["x_whole = Identity (x_real)", "codes = Identity (w)"]
    parts = ["gate", "up"] if gated else ["all"]
    for i, part in enumerate(parts):
        lines += _product(variant, part, i if gated else None)
    activation = cast("str", variant.attributes["activation"])
    lines.append(activation_body(activation, f"{parts[0]}_linear", "activated"))
    result = "activated"
    if gated:
        lines.append("gated = Mul (activated, up_linear)")
        result = "gated"
    if variant.has("residual"):
        lines += [f"residual_real = Cast <to = 1> (residual)\ntotal = Add ({result}, residual_real)"]
        result = "total"
    lines.append(f"y = Cast <to = 10> ({result})" if half else f"y = Identity ({result})")
    return "\n".join(lines)


def _codes(variant: Variant) -> list[str]:
    """Codes of 4 bits one a byte, [N, K]; and x, with a zero at the end where K is odd."""
    n, pairs = variant.shapes["w"]
    lines = [
        f"""
        four_bits = Constant <value = uint8 {{4}}> ()
        fifteen = Constant <value = uint8 {{15}}> ()
        matrix = Constant <value = int64[2] {{{n}, {2 * pairs}}}> ()
        low = BitwiseAnd (w, fifteen)
        high = BitShift <direction = "RIGHT"> (w, four_bits)
        low_3d = Unsqueeze (low, last_axis)
        high_3d = Unsqueeze (high, last_axis)
        halves = Concat <axis = -1> (low_3d, high_3d)
        codes = Reshape (halves, matrix)
    """
    ]
    if variant.sizes.get("x") == 2 * pairs:
        return [*lines, "x_whole = Identity (x_real)"]
    return [
        *lines,
        f"""
        zero_index = Constant <value = int64[1] {{0}}> ()
        even = Constant <value = int64[1] {{{2 * pairs}}}> ()
        x_shape = Shape <start = -1> (x_real)
        missing = Sub (even, x_shape)
        padding = Concat <axis = 0> (zero_index, missing)
        x_whole = Pad (x_real, padding, , last_axis)
    """,
    ]


def _product(variant: Variant, part: str, first: int | None) -> list[str]:
    """NAME_linear = x * w^T + bias, of all rows of w or of every other one from `first` on."""
    four = variant.attributes["bits"] == 4
    size = cast("int", variant.attributes["block_size"])
    names = ["codes", "w_scale", *[name for name in ("w_zero_point", "bias") if variant.has(name)]]
    lines = []
    rows = {name: name for name in names}
    if first is not None:
        rows = {name: f"{part}_{name}" for name in names}
        lines.append(f"""
            {part}_first = Constant <value = int64[1] {{{first}}}> ()
            {part}_end = Constant <value = int64[1] {{{variant.shapes["w"][0]}}}> ()
            {part}_axis = Constant <value = int64[1] {{0}}> ()
            {part}_two = Constant <value = int64[1] {{2}}> ()
        """)
        of_part = f"{part}_first, {part}_end, {part}_axis, {part}_two"
        lines += [f"{rows[name]} = Slice ({name}, {of_part})" for name in names]
    inputs = [_stored(lines, f"{part}_t", rows["codes"], four), _laid_out(lines, f"{part}_s", rows["w_scale"], size)]
    if variant.has("w_zero_point"):
        laid_out = _laid_out(lines, f"{part}_z", rows["w_zero_point"], size)
        inputs.append(_four_bits(lines, f"{part}_zi", laid_out) if four else laid_out)
    else:
        inputs.append(_middle(lines, part, inputs[1], four))
    blocks = f"axis = 0, block_size = {size}" if size else "axis = 1"
    lines.append(f"""
        {part}_real = DequantizeLinear <{blocks}> ({", ".join(inputs)})
        {part}_product = MatMul (x_whole, {part}_real)
    """)
    last = f"{part}_product"
    lines.append(f"{part}_linear = " + (f"Add ({last}, {rows['bias']})" if "bias" in rows else f"Identity ({last})"))
    return lines


def _stored(lines: list[str], name: str, codes: str, four: bool) -> str:
    lines.append(f"{name} = Transpose <perm = [1, 0]> ({codes})")
    return _four_bits(lines, f"{name}i", name) if four else name


def _four_bits(lines: list[str], name: str, values: str) -> str:
    lines.append(f"""
        {name}_float = Cast <to = 1> ({values})
        {name}_one = Constant <value_float = 1.0> ()
        {name} = QuantizeLinear <output_dtype = 21> ({name}_float, {name}_one)
    """)
    return name


def _laid_out(lines: list[str], name: str, values: str, size: int) -> str:
    """[N, blocks] as [blocks, N], or as [N]."""
    lines.append(
        f"{name} = Transpose <perm = [1, 0]> ({values})" if size else f"{name} = Reshape ({values}, last_axis)"
    )
    return name


def _middle(lines: list[str], part: str, like: str, four: bool) -> str:
    """The middle code in the shape of the scales."""
    name = f"{part}_middle"
    lines.append(f"{name}_shape = Shape ({like})")
    lines.append(f"{name} = ConstantOfShape <value = uint8[1] {{{8 if four else 128}}}> ({name}_shape)")
    return _four_bits(lines, f"{name}i", name) if four else name


_REAL = ("float", "float16")

WEIGHTONLYLINEAR = Op(
    "WeightOnlyLinear",
    inputs=(
        Port("x", _REAL),
        Port("w", ("uint8",), constant=True),
        Port("w_scale", ("float",), constant=True),
        Port("w_zero_point", ("uint8",), optional=True, constant=True),
        Port("bias", ("float",), optional=True, constant=True),
        Port("residual", _REAL, optional=True),
    ),
    outputs=(Port("y", _REAL),),
    attributes={"bits": 4, "block_size": 32, "activation": "", "gated": 0},
    reference=_reference,
    body=_body,
    doc="""y = activation(x * weight^T + bias) + residual, weight = (code - w_zero_point) * w_scale; or, gated, the rows
        of w being gate and up in turn, y = activation(gate) * up + residual.

        x: float or float16 [..., K]. w: codes, with 8 bits uint8 [N, K], with 4 bits uint8 [N, (K + 1) / 2], pairs of
        them, the first in the low half of a byte. w_scale: float [N, blocks], blocks = ceil(K / block_size), each of
        block_size (32, 64 or 128) inputs; or one, with block_size 0. w_zero_point: uint8 [N, blocks], 8 or 128 where it
        is left out. bias: float [N]. residual: as y, which is of the type of x: [..., N], or, gated, [..., N / 2].""",
)
