"""Small graphs as text, and what is in them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcompress.runtime.session import open_session
from tests.models import with_initializers

Array = np.ndarray[Any, Any]

HEADER = '<ir_version: 10, opset_import: ["" : 21]>'


def graph(signature: str, body: str, seed: int = 0, /, **shapes: tuple[int, ...]) -> ir.Model:
    """A model with random constants of the shapes given."""
    rng = np.random.default_rng(seed)
    arrays = {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    return with_initializers(ir.from_onnx_text(f"{HEADER} g {signature} {{ {body} }}"), arrays)


def outputs_of(model: ir.Model, **feed: Array) -> dict[str, Array]:
    """The outputs in ONNX Runtime by name."""
    session = open_session(model)
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feed), strict=True))


def post_norm_encoder(layers: int, seed: int = 0, width: int = 8) -> ir.Model:
    """`x` f32 [N, 5, width] through layers h = LN(h + MLP(h)), to their mean `y` [N, width]; its nodes bear the
    names of the layers, so that one with fewer layers is not one cut out of another."""
    lines = ["h0 = LayerNormalization <axis = -1> (x, g, z)"]
    shapes: dict[str, tuple[int, ...]] = {"g": (width,), "z": (width,)}
    for i in range(layers):
        lines += [
            f"[up{i}] u{i} = MatMul (h{i}, w{i})", f"[act{i}] a{i} = Gelu (u{i})",
            f"[down{i}] d{i} = MatMul (a{i}, v{i})", f"[sum{i}] s{i} = Add (h{i}, d{i})",
            f"[norm{i}] h{i + 1} = LayerNormalization <axis = -1> (s{i}, g, z)",
        ]  # fmt: skip
        shapes |= {f"w{i}": (width, 2 * width), f"v{i}": (2 * width, width)}
    lines.append(f"[pool] y = ReduceMean <keepdims = 0> (h{layers}, one)")
    model = graph(f"(float[N, 5, {width}] x) => (float[N, {width}] y)", "\n".join(lines), seed, **shapes)
    return with_initializers(model, {"one": np.array([1], np.int64)})
