"""QLinear4: a linear layer of quantized activations and weights of 4 bits."""

from __future__ import annotations

from typing import cast

import numpy as np

from onnxcompress.ops.activation import activation_body, activation_reference
from onnxcompress.ops.op import Array, Attributes, Op, Port, Variant
from onnxcompress.ops.qlinear import QLINEAR, quantize_body
from onnxcompress.ops.quantization import dequantize, quantize


def pack4(values: Array) -> Array:
    """Pairs of weights in a byte, the first in the low half: uint8 [N, K / 2] of uint8 [N, K] below 16.

    Raises:
        ValueError: K is odd, or a value is above 15.
    """
    if values.shape[-1] % 2 or values.max(initial=0) > 15:
        raise ValueError(f"weights of shape {values.shape} up to {values.max(initial=0)} are no pairs of 4 bits")
    packed: Array = values[..., ::2] | values[..., 1::2] << 4
    return packed.astype(np.uint8)


def unpack4(packed: Array) -> Array:
    """What pack4 packed."""
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)


def _reference(attributes: Attributes, *inputs: Array | None) -> tuple[Array | None, ...]:
    x, x_scale, x_zero, w, w_scale, bias, residual, y_scale, y_zero = inputs
    assert x is not None and x_scale is not None and x_zero is not None and w is not None and w_scale is not None
    scale = np.repeat(w_scale.astype(np.float64), cast("int", attributes["block_size"]), axis=1)
    if x.dtype == np.float32:
        x = quantize(x, x_scale, x_zero)
    real = dequantize(x, x_scale, x_zero) @ ((unpack4(w).astype(np.float64) - 8) * scale).T
    if bias is not None:
        real = real + bias
    real = activation_reference(cast("str", attributes["activation"]), real)
    if residual is not None:
        real = real + residual
    floats = real.astype(np.float32)
    return None if y_scale is None else quantize(real, y_scale, 0 if y_zero is None else y_zero), floats


def _body(variant: Variant) -> str:
    """Weights become floats from constants, and so when the model is loaded."""
    n, pairs = variant.shapes["w"]
    blocks = variant.shapes["w_scale"][1]
    x = "x"
    lines = []
    if variant.inputs["x"] == "float":
        lines.append("x_quantized = QuantizeLinear (x, x_scale, x_zero_point)")
        x = "x_quantized"
    lines.append(f"""
        four_bits = Constant <value = uint8 {{4}}> ()
        fifteen = Constant <value = uint8 {{15}}> ()
        eight = Constant <value_float = 8.0> ()
        last_axis = Constant <value = int64[1] {{-1}}> ()
        by_block = Constant <value = int64[3] {{{n}, {blocks}, {2 * pairs // blocks}}}> ()
        matrix = Constant <value = int64[2] {{{n}, {2 * pairs}}}> ()
        low = BitwiseAnd (w, fifteen)
        high = BitShift <direction = "RIGHT"> (w, four_bits)
        low_3d = Unsqueeze (low, last_axis)
        high_3d = Unsqueeze (high, last_axis)
        halves = Concat <axis = -1> (low_3d, high_3d)
        w_blocks = Reshape (halves, by_block)
        w_float = Cast <to = 1> (w_blocks)
        w_centred = Sub (w_float, eight)
        w_scale_3d = Unsqueeze (w_scale, last_axis)
        w_scaled = Mul (w_centred, w_scale_3d)
        w_real = Reshape (w_scaled, matrix)
        w_t = Transpose <perm = [1, 0]> (w_real)
        x_float = Cast <to = 1> ({x})
        x_zero_float = Cast <to = 1> (x_zero_point)
        x_centred = Sub (x_float, x_zero_float)
        product = MatMul (x_centred, w_t)
    """)
    activation = cast("str", variant.attributes["activation"])
    floats = "y_float" if "y_float" in variant.outputs else "real"
    steps = [("Mul (product, x_scale)", "scaled")]
    if variant.has("bias"):
        steps.append(("Add (scaled, bias)", "linear"))
    if activation:
        steps.append((activation_body(activation, steps[-1][1], "activated"), "activated"))
    if variant.has("residual"):
        steps.append((f"Add ({steps[-1][1]}, residual)", "total"))
    lines += [text if name == "activated" else f"{name} = {text}" for text, name in steps]
    lines.append(f"{floats} = Identity ({steps[-1][1]})")
    if "y" in variant.outputs:
        lines.append(quantize_body(variant, floats, "y", "y_scale", "y_zero_point"))
    return "\n".join(lines)


_PORTS = {port.name: port for port in QLINEAR.inputs}

QLINEAR4 = Op(
    "QLinear4",
    inputs=(
        *(_PORTS[name] for name in ("x", "x_scale", "x_zero_point")),
        Port("w", ("uint8",), constant=True),
        *(_PORTS[name] for name in ("w_scale", "bias", "residual", "y_scale", "y_zero_point")),
    ),
    outputs=(Port("y", ("uint8",), optional=True), Port("y_float", ("float",), optional=True)),
    attributes={"block_size": 32, "activation": ""},
    reference=_reference,
    body=_body,
    doc="""real = activation(x * w^T + bias) + residual, and y_float = real, without y_scale, or
        y = saturate(round(real / y_scale) + y_zero_point), with y_scale.

        x, x_scale, x_zero_point, bias, residual, y_scale, y_zero_point, activation: as in QLinear. w: uint8 [N, K / 2],
        pairs of weights, the first in the low half of a byte; a weight is (0..15) - 8. w_scale: float
        [N, K / block_size]; block_size: a multiple of 4 from 32 on that divides K.""",
)
