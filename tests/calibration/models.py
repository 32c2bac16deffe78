"""Small models and data for the calibration tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir

Array = np.ndarray[Any, Any]
Feeds = list[dict[str, Array]]

HEADER = '<ir_version: 10, opset_import: ["" : 21]>\n'

MLP = """
    mlp (float[N, 4] x) => (float[N, 3] y)
    <float[4, 3] w = {0.5, -1.0, 2.0, 1.5, 0.25, -0.75, -2.0, 1.0, 0.125, 0.5, 0.5, -0.5},
     float[3] b = {0.1, -0.2, 0.3}> {
        shape = Shape (x)
        h = MatMul (x, w)
        s = Add (h, b)
        a = Relu (s)
        scaled = Constant <value_float: float = 3.0> ()
        y = Mul (a, scaled)
    }"""


def parse_proto(text: str) -> onnx.ModelProto:
    """A checked model of a graph as text."""
    proto = onnx.parser.parse_model(HEADER + text)
    onnx.checker.check_model(proto)
    return proto


def parse(text: str) -> ir.Model:
    """The same for onnx_ir."""
    return ir.from_proto(parse_proto(text))


def feeds(count: int, seed: int = 0) -> Feeds:
    """Feeds for MLP, of 1 to 6 rows each."""
    rng = np.random.default_rng(seed)
    return [{"x": rng.standard_normal((int(rng.integers(1, 7)), 4)).astype(np.float32)} for _ in range(count)]


def f32(values: Any) -> Array:
    """An array of float32."""
    return np.array(values, np.float32)
