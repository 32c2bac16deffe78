"""Small models for tests, with fixed random weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

Array = np.ndarray[Any, Any]


def small_cnn(classes: int = 10) -> ir.Model:
    """Conv, ReLU, depthwise Conv, HardSwish, a residual, pooling, Gemm; `x` f32 [N, 3, 16, 16] to `y` [N, classes]."""
    rng = np.random.default_rng(7)
    text = f"""
    <ir_version: 10, opset_import: ["" : 21]>
    cnn (float[N, 3, 16, 16] x) => (float[N, {classes}] y) {{
        a = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w1, b1)
        r = Relu (a)
        d = Conv <pads = [1, 1, 1, 1], group = 32> (r, w2, b2)
        h = HardSwish (d)
        c = Conv (h, w3, b3)
        s = Add (c, r)
        g = GlobalAveragePool (s)
        f = Flatten (g)
        y = Gemm <transB = 1> (f, w4, b4)
    }}
    """
    model = ir.from_onnx_text(text)
    weights: dict[str, Array] = {
        "w1": rng.normal(0, 0.3, (32, 3, 3, 3)),
        "w2": rng.normal(0, 0.4, (32, 1, 3, 3)),
        "w3": rng.normal(0, 0.2, (32, 32, 1, 1)),
        "w4": rng.normal(0, 0.2, (classes, 32)),
        "b1": rng.normal(0, 0.1, 32),
        "b2": rng.normal(0, 0.1, 32),
        "b3": rng.normal(0, 0.1, 32),
        "b4": rng.normal(0, 0.1, classes),
    }
    return with_initializers(model, {name: array.astype(np.float32) for name, array in weights.items()})


def with_initializers(model: ir.Model, arrays: dict[str, Array]) -> ir.Model:
    """The model with constants in the place of the undefined names of its text."""
    proto = ir.to_proto(model)
    for name, array in arrays.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return ir.from_proto(proto)


def images(count: int, size: int = 16, seed: int = 0) -> list[dict[str, Array]]:
    """Feeds for `small_cnn`, one image each."""
    rng = np.random.default_rng(seed)
    return [{"x": rng.normal(0, 1, (1, 3, size, size)).astype(np.float32)} for _ in range(count)]


def wide_cnn() -> ir.Model:
    """Three convolutions of 64 channels, which int8 speeds up anywhere, and a Softmax; `x` f32 [N, 3, 32, 32]."""
    rng = np.random.default_rng(11)
    text = """
    <ir_version: 10, opset_import: ["" : 21]>
    wide (float[N, 3, 32, 32] x) => (float[N, 10] probabilities) {
        [c1] a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
        r = Relu (a)
        [c2] b = Conv <pads = [1, 1, 1, 1]> (r, w2, b2)
        s = Relu (b)
        [c3] c = Conv <pads = [1, 1, 1, 1]> (s, w3, b3)
        t = Relu (c)
        g = GlobalAveragePool (t)
        f = Flatten (g)
        [fc] l = Gemm (f, w4, b4)
        probabilities = Softmax (l)
    }
    """
    weights: dict[str, Array] = {
        "w1": rng.normal(0, 0.2, (64, 3, 3, 3)),
        "w2": rng.normal(0, 0.06, (64, 64, 3, 3)),
        "w3": rng.normal(0, 0.06, (64, 64, 3, 3)),
        "w4": rng.normal(0, 2.0, (64, 10)),
        **{f"b{i}": rng.normal(0, 0.1, 64) for i in (1, 2, 3)},
        "b4": rng.normal(0, 0.1, 10),
    }
    return with_initializers(
        ir.from_onnx_text(text), {name: array.astype(np.float32) for name, array in weights.items()}
    )


def encoder() -> ir.Model:
    """LayerNormalization with one loud channel, MatMul, Add, Gelu, MatMul; `x` f32 [N, 16, 64] to `y` f32."""
    rng = np.random.default_rng(5)
    text = """
    <ir_version: 10, opset_import: ["" : 21]>
    encoder (float[N, 16, 64] x) => (float[N, 16, 64] y) {
        n = LayerNormalization <axis = -1> (x, g, b)
        [up] u = MatMul (n, w1)
        v = Add (u, b1)
        a = Gelu (v)
        [down] d = MatMul (a, w2)
        y = Add (d, x)
    }
    """
    gain = np.ones(64)
    gain[3] = 60
    weights: dict[str, Array] = {
        "g": gain,
        "b": np.zeros(64),
        "w1": rng.normal(0, 0.1, (64, 256)),
        "b1": rng.normal(0, 0.1, 256),
        "w2": rng.normal(0, 0.1, (256, 64)),
    }
    return with_initializers(
        ir.from_onnx_text(text), {name: array.astype(np.float32) for name, array in weights.items()}
    )
