"""QSqueezeExcite: the channels of an image, each scaled by a gate that two small layers compute from their means."""

from __future__ import annotations

from typing import cast

import numpy as np

from onnxcompress.ops.channel_means import channel_means
from onnxcompress.ops.lookup import HINTS, look_up
from onnxcompress.ops.op import TABLE, Array, Attributes, Op, Port, Variant, parameters
from onnxcompress.ops.quantization import dequantize, quantize


def _gate(attributes: Attributes, x: Array) -> Array:
    if attributes["gate"] == "sigmoid":
        return np.asarray(1 / (1 + np.exp(-np.clip(x, -80, 80))))
    alpha, beta = cast(float, attributes["alpha"]), cast(float, attributes["beta"])
    return np.asarray(np.clip(alpha * x + beta, 0, 1))


def _activation(attributes: Attributes, x: Array) -> Array:
    if attributes["activation"] == "relu":
        return np.maximum(x, 0)
    if attributes["activation"] == "silu":
        return np.asarray(x / (1 + np.exp(-np.clip(x, -80, 80))))
    return x * np.clip(x / 6 + 0.5, 0, 1)


def _reference(
    attributes: Attributes,
    x: Array,
    x_scale: Array,
    x_zero_point: Array,
    w1: Array,
    w1_scale: Array,
    b1: Array | None,
    w2: Array,
    w2_scale: Array,
    b2: Array | None,
    y_scale: Array,
    y_zero_point: Array,
    table: Array | None,
) -> tuple[Array]:
    real = dequantize(x if table is None else table[x], x_scale, x_zero_point)
    mean = real.mean((1, 2)) if real.size else np.zeros((x.shape[0], x.shape[3]))
    hidden = mean @ w1.T.astype(np.float64) * w1_scale + (0 if b1 is None else b1)
    logits = _activation(attributes, hidden) @ w2.T.astype(np.float64) * w2_scale + (0 if b2 is None else b2)
    gate = _gate(attributes, logits)
    y = real * (gate[:, None, None, :] + cast(int, attributes["residual"]))
    return (quantize(y, y_scale, y_zero_point),)


def _dense(lines: list[str], x: str, w: str, bias: bool) -> str:
    lines += [
        f"{w}_t = Transpose <perm = [1, 0]> ({w})",
        f"{w}_real = Cast <to = 1> ({w}_t)",
        f"{w}_sums = MatMul ({x}, {w}_real)",
        f"{w}_scaled = Mul ({w}_sums, {w}_scale)",
    ]
    if not bias:
        return f"{w}_scaled"
    lines.append(f"{w}_biased = Add ({w}_scaled, b{w[-1]})")
    return f"{w}_biased"


def _body(variant: Variant) -> str:
    attributes = variant.attributes
    image = "x"
    lines: list[str] = []
    if variant.has("table"):
        lines += look_up(variant, "x", "mapped")
        image = "mapped"
    lines += channel_means(image)
    first = _dense(lines, "mean", "w1", variant.has("b1"))
    if attributes["activation"] == "relu":
        lines.append(f"hidden = Relu ({first})")
    elif attributes["activation"] == "silu":
        lines += [f"open = Sigmoid ({first})", f"hidden = Mul ({first}, open)"]
    else:
        lines.append(f"hidden = HardSwish ({first})")
    second = _dense(lines, "hidden", "w2", variant.has("b2"))
    if attributes["gate"] == "sigmoid":
        lines.append(f"gate = Sigmoid ({second})")
    else:
        alpha, beta = (float(cast(float, attributes[name])) for name in ("alpha", "beta"))
        lines.append(f"gate = HardSigmoid <alpha = {alpha!r}, beta = {beta!r}> ({second})")
    factor = "gate"
    if attributes["residual"]:
        lines += ["one = Constant <value_float = 1.0> ()", "factor = Add (gate, one)"]
        factor = "factor"
    lines += [
        "axis = Constant <value_ints = [1]> ()",
        f"factors = Unsqueeze ({factor}, axis)",  # [N, 1, 1, C]
        f"real = DequantizeLinear ({image}, x_scale, x_zero_point)",
        "gated = Mul (real, factors)",
        "y = QuantizeLinear (gated, y_scale, y_zero_point)",
    ]
    return "\n".join(lines)


QSQUEEZEEXCITE = Op(
    "QSqueezeExcite",
    inputs=(
        Port("x", ("uint8",)),
        *parameters("x"),
        Port("w1", ("int8",), constant=True),
        Port("w1_scale", ("float",), constant=True),
        Port("b1", ("float",), optional=True, constant=True),
        Port("w2", ("int8",), constant=True),
        Port("w2_scale", ("float",), constant=True),
        Port("b2", ("float",), optional=True, constant=True),
        *parameters("y"),
        TABLE,
    ),
    outputs=(Port("y", ("uint8",)),),
    reference=_reference,
    body=_body,
    attributes={
        "gate": "hardsigmoid",
        "activation": "relu",
        "alpha": 1 / 6,
        "beta": 0.5,
        "residual": 0,
        **HINTS,
    },
    doc=(
        "y = quantize(x' * g), or of x' + x' * g with residual = 1; x' = table[x] in real units, x: uint8 [N, H, W, "
        "C]; g = gate(w2 * activation(w1 * mean_hw(x') + b1) + b2) [N, C]. w1: int8 [R, C], w2: int8 [C, R], scales "
        "[] or one per output. gate = hardsigmoid (clip(alpha * x + beta, 0, 1)) | sigmoid, activation = relu | silu "
        "| hardswish. (Hu et al., Squeeze-and-Excitation Networks, 2018.)"
    ),
)
