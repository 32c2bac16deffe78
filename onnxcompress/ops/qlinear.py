"""QLinear: a linear layer of quantized activations and weights, with what follows it."""

from __future__ import annotations

from typing import cast

import numpy as np

from onnxcompress.ops.activation import activation_body, activation_reference
from onnxcompress.ops.lookup import gather
from onnxcompress.ops.op import TABLE, Array, Attributes, Op, Port, Variant, parameters
from onnxcompress.ops.quantization import dequantize, quantize
from onnxcompress.ops.row_quantization import quantize_rows_body, quantize_rows_reference

LINEAR_INPUTS = (
    Port("x", ("uint8", "float")),
    Port("x_scale", ("float",)),
    Port("x_zero_point", ("uint8",)),
    Port("w", ("int8",), constant=True),
    Port("w_scale", ("float",), constant=True),
    Port("bias", ("float",), optional=True, constant=True),
)
"""Inputs of every operator that begins with a linear layer. x_scale and x_zero_point are constants of one value each
or, where x is uint8, computed for each row of x (shape [..., 1])."""


def linear_reference(
    x: Array, x_scale: Array, x_zero_point: Array, w: Array, w_scale: Array, bias: Array | None
) -> Array:
    """The real x * w^T + bias, float64 [..., N]."""
    if x.dtype == np.float32:
        x = quantize(x, x_scale, x_zero_point)
    scale = np.asarray(x_scale, np.float64) * np.asarray(w_scale, np.float64)
    sums = dequantize(x, 1.0, x_zero_point) @ w.T.astype(np.float64)
    return sums * scale + (0.0 if bias is None else bias.astype(np.float64))


def linear_body(variant: Variant, divisor: str = "") -> str:
    """Nodes that compute `linear`, the float x * w^T + bias, over the constant vector `divisor`, where one is named.

    ONNX Runtime makes one node, MatMulIntegerToFloat, of MatMulInteger, Cast, Mul and Add, if the scale is a product
    that it does not fold. It folds no DequantizeLinear, so a factor of 1, the same one in all bodies, comes from there.
    """
    lines, x, w_scale, bias = ["w_t = Transpose <perm = [1, 0]> (w)"], "x", "w_scale", "bias"
    if variant.inputs["x"] == "float":
        lines.append("x_quantized = QuantizeLinear (x, x_scale, x_zero_point)")
        x = "x_quantized"
    if divisor:
        lines += [f"inverse = Reciprocal ({divisor})", "w_scale_over = Mul (w_scale, inverse)"]
        w_scale = "w_scale_over"
        if variant.has("bias"):
            lines.append("bias_over = Mul (bias, inverse)")
            bias = "bias_over"
    lines += [
        "one = Constant <value = uint8 {1}> ()",
        "unit = Constant <value = float {1.0}> ()",
        "unit_kept = DequantizeLinear (one, unit)",
    ]
    rows = rows_are_dynamic(variant)
    if not rows:
        lines.append(f"products_scale = Mul (x_scale, {w_scale})")
        w_scale = "products_scale"
    zero = "" if rows else ", x_zero_point"
    lines += [
        f"products = MatMulInteger ({x}, w_t{zero})",
        "products_float = Cast <to = 1> (products)",
        f"scale = Mul (unit_kept, {w_scale})",
    ]
    scaled = "scaled" if variant.has("bias") else "linear"
    if rows:
        lines += ["sums = Mul (products_float, scale)", *_of_rows("sums", scaled, w_scale)]
    else:
        lines.append(f"{scaled} = Mul (products_float, scale)")
    if variant.has("bias"):
        lines.append(f"linear = Add (scaled, {bias})")
    return "\n".join(lines)


def _of_rows(x: str, y: str, w_scale: str) -> list[str]:
    """Nodes that take the zero points of rows off the sums x, for which MatMulInteger has one at most, and scale."""
    return [
        "first_axis = Constant <value_ints = [0]> ()",
        "w_float = Cast <to = 1> (w_t)",
        f"w_real = Mul (w_float, {w_scale})",
        "w_sums = ReduceSum <keepdims = 0> (w_real, first_axis)",
        "x_zero_float = Cast <to = 1> (x_zero_point)",
        "zero_sums = Mul (x_zero_float, w_sums)",
        f"centred = Sub ({x}, zero_sums)",
        f"{y} = Mul (centred, x_scale)",
    ]


def rows_are_dynamic(variant: Variant) -> bool:
    """Is every row of x quantized with a scale of its own, that is not known before the model runs?"""
    return variant.inputs["x"] == "uint8" and variant.shapes.get("x_scale", (0,)) not in ((), (1,))


def _reference(attributes: Attributes, *inputs: Array | None) -> tuple[Array | None, ...]:
    x, x_scale, x_zero, w, w_scale, bias, residual, y_scale, y_zero, table = inputs
    assert x is not None and x_scale is not None and x_zero is not None and w is not None and w_scale is not None
    real = linear_reference(x, x_scale, x_zero, w, w_scale, bias)
    real = activation_reference(cast("str", attributes["activation"]), real)
    if residual is not None:
        real = real + residual
    floats = real.astype(np.float32)
    if attributes["dynamic"]:
        y, row_scale, row_zero = quantize_rows_reference(real if y_scale is None else real / y_scale)
        return y if table is None else table[y], floats, row_scale, row_zero
    if y_scale is None:
        return None, floats, None, None
    y = quantize(real, y_scale, 0 if y_zero is None else y_zero)
    return y if table is None else table[y], floats, None, None


def _body(variant: Variant) -> str:
    activation = cast("str", variant.attributes["activation"])
    floats = "y_float" if "y_float" in variant.outputs else "real"
    activated = "activated" if variant.has("residual") else floats
    folded = _divides(variant) and activation in ("", "relu") and floats == "real" and not variant.has("residual")
    text = linear_body(variant, "y_scale" if folded else "")
    if activation:
        text += "\n" + activation_body(activation, "linear", activated)
    else:
        text = text.replace("linear =", f"{activated} =")
    if variant.has("residual"):
        text += f"\n{floats} = Add ({activated}, residual)"
    if "y" not in variant.outputs and not variant.attributes["dynamic"]:
        return text
    y = "y_untranslated" if variant.has("table") else "y"
    if not variant.attributes["dynamic"]:
        text += "\n" + quantize_body(variant, floats, y, "y_scale", "y_zero_point", folded)
    else:
        if variant.has("y_scale") and not folded:
            text += "\n" + divide_body(floats, "y_scale", "smoothed")
            floats = "smoothed"
        text += "\n" + quantize_rows_body(floats, y, "y_row_scale", "y_row_zero_point")
    if variant.has("table"):
        text += "\n" + "\n".join(gather(y, "y", "table"))
    return text


def _divides(variant: Variant) -> bool:
    """Does a vector of scales, or one of a dynamic form, divide the real result before it is quantized?"""
    if not variant.has("y_scale"):
        return False
    return bool(variant.attributes["dynamic"]) or has_vector(variant, "y_scale")


def has_vector(variant: Variant, scale: str) -> bool:
    """Is this input given, with a scale for every channel?"""
    return variant.has(scale) and variant.shapes.get(scale, ()) != ()


def divide_body(x: str, scale: str, y: str) -> str:
    """Nodes that compute y = x / scale, for a constant vector `scale`."""
    return f"{y}_inverse = Reciprocal ({scale})\n{y} = Mul ({x}, {y}_inverse)"


def quantize_body(variant: Variant, x: str, y: str, scale: str, zero_point: str, divided: bool = False) -> str:
    """Nodes that quantize the float x by a constant scale, [] or [C], and a zero point [], which may be absent.

    With a scale for each channel, QuantizeLinear takes 20 times as long in ONNX Runtime as with one: x is divided by
    such a scale first, or has been (`divided`).
    """
    if not has_vector(variant, scale):
        return f"{y} = QuantizeLinear ({x}, {tensors_given(variant, scale, zero_point)})"
    text = f"{scale}_unit = Constant <value = float {{1.0}}> ()\n"
    if not divided:
        text += divide_body(x, scale, f"{y}_over") + "\n"
        x = f"{y}_over"
    arguments = ", ".join((x, f"{scale}_unit", zero_point)[: 3 if variant.has(zero_point) else 2])
    return text + f"{y} = QuantizeLinear ({arguments})"


def tensors_given(variant: Variant, *names: str) -> str:
    """Those of the inputs that are given, as arguments."""
    return ", ".join(name for name in names if variant.has(name))


QLINEAR = Op(
    "QLinear",
    inputs=(
        *LINEAR_INPUTS,
        Port("residual", ("float",), optional=True),
        *parameters("y", optional=True),
        TABLE,
    ),
    outputs=(
        Port("y", ("uint8",), optional=True),
        Port("y_float", ("float",), optional=True),
        Port("y_row_scale", ("float",), optional=True),
        Port("y_row_zero_point", ("uint8",), optional=True),
    ),
    attributes={"activation": "", "dynamic": 0},
    reference=_reference,
    body=_body,
    doc="""real = activation(x * w^T + bias) + residual, and one of:
        y_float = real, without y_scale;
        y = table[saturate(round(real / y_scale) + y_zero_point)], with y_scale;
        y, y_row_scale and y_row_zero_point, with dynamic = 1: each row of real (over y_scale, where it is given: it
        then smooths the channels) is quantized by its own range, which is extended to contain 0.

        x: uint8 or float [..., K], quantized with x_scale and x_zero_point: constants [], or, for uint8, computed
        for each row: [..., 1]. w: int8 [N, K], w_scale float [] or [N], bias float [N]. residual: float [..., N].
        y_scale: float [] or [N], y_zero_point: uint8 []. table: uint8 [256].
        activation: "", "relu", "gelu" (exact), "gelu_tanh", "silu" or "hardswish".""",
)
