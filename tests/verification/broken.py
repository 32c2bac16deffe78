"""Pairs of an original and a result, most of which are broken in one known way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxcompress.data import Array, Feed
from onnxcompress.verification import Verification
from tests.passes.quantize.models import build, normal

LAYERS = "h = MatMul (x, v) r = Relu (h) y = MatMul (r, w)"
WEIGHTS = {"v": normal(32, 64, scale=0.2), "w": normal(64, 8, seed=1, scale=0.2)}


@dataclass(frozen=True)
class Models:
    """An original, a result, and data."""

    original: ir.Model
    result: ir.Model
    feeds: list[Feed]


def vectors(count: int = 24, width: int = 32, live: int = 32) -> list[Feed]:
    """Feeds `x` f32 [1, width] of normal numbers; those from `live` on are zero in all."""
    rng = np.random.default_rng(3)
    feeds = [{"x": rng.normal(0, 1, (1, width)).astype(np.float32)} for _ in range(count)]
    for feed in feeds:
        feed["x"][:, live:] = 0
    return feeds


def model(body: str, weights: Mapping[str, Array], *, outputs: str = "float[n, 8] y", n: str = "n") -> ir.Model:
    """A graph of `x` f32 [n, 32]."""
    return build(f"agraph (float[{n}, 32] x) => ({outputs}) {{ {body} }}", weights)


def two_layers(**changed: Array) -> ir.Model:
    """MatMul, Relu, MatMul; `changed` weights take the place of its own."""
    return model(LAYERS, {**WEIGHTS, **changed})


def layers_and(more: str, weights: Mapping[str, Array] | None = None) -> ir.Model:
    """The same two layers up to `y0`, and more that makes `y` of it."""
    return model(f"{LAYERS.replace('y =', 'y0 =')} {more}", {**WEIGHTS, **(weights or {})})


def saturating(share: float) -> Models:
    """A result that quantizes `h`, with `share` of the range that it takes on noisy data.

    Half of the inputs is zero in all data, as the borders of images are, and has large weights: noise makes `h` ten
    times as large as clean data does.
    """
    scale = np.where(np.arange(32) < 16, 0.25, 7.0).astype(np.float32)
    weights = {"v": normal(32, 64) * scale[:, None], "w": WEIGHTS["w"]}
    step = np.array(40.0 * share / 127, np.float32)
    body = LAYERS.replace("h =", "h0 =").replace(
        "r =", "q = QuantizeLinear (h0, s, z) h = DequantizeLinear (q, s, z) r ="
    )
    result = model(body, {**weights, "s": step, "z": np.array(128, np.uint8)})
    return Models(model(LAYERS, weights), result, vectors(live=16))


def one_channel_wrong() -> Models:
    """The scale of one output channel's weights is four times what it should be."""
    wrong = WEIGHTS["w"].copy()
    wrong[:, 3] *= 4
    return Models(two_layers(), two_layers(w=wrong), vectors())


def too_loud() -> Models:
    """All outputs are half as large again: no cosine and no argmax shows that."""
    return Models(two_layers(), two_layers(w=WEIGHTS["w"] * np.float32(1.5)), vectors())


def channels_permuted() -> Models:
    return Models(two_layers(), two_layers(w=np.roll(WEIGHTS["w"], 1, axis=1)), vectors())


def not_finite_for_constants() -> Models:
    """The result divides by the deviation of its input: zero for a constant one."""
    more = """
        m = ReduceMean <keepdims = 1> (x, last) d = Sub (x, m) d2 = Mul (d, d)
        p = ReduceMean <keepdims = 1> (d2, last) s = Sqrt (p) u = Div (d, s)
        t = ReduceSum <keepdims = 1> (u, last) t0 = Mul (t, none) y = Add (y0, t0)
    """
    constants = {"last": np.array([1]), "none": np.array(0, np.float32)}
    return Models(two_layers(), layers_and(more, constants), vectors())


def batch_dependent() -> ir.Model:
    """Two layers whose outputs grow with the size of the batch; right for one feed."""
    more = """
        b = Shape <start = 0, end = 1> (x) f = Cast <to = 1> (b) g = Sub (f, one) k = Add (g, one)
        y = Mul (y0, k)
    """
    return layers_and(more, {"one": np.array([1], np.float32)})


def single_only() -> ir.Model:
    """Two layers that can take one row only."""
    return layers_and("y = Reshape (y0, shape)", {"shape": np.array([1, 8])})


def two_outputs(order: str = "y z", swap: bool = False) -> ir.Model:
    """Outputs `y` and `z`, both [n, 8], in this order; `swap`: each has the other's value."""
    body = f"{LAYERS.replace('y =', 'a =')} b = MatMul (r, w2)"
    body += " y = Identity (b) z = Identity (a)" if swap else " y = Identity (a) z = Identity (b)"
    outputs = ", ".join(f"float[n, 8] {name}" for name in order.split())
    return model(body, {**WEIGHTS, "w2": normal(64, 8, seed=9, scale=0.2)}, outputs=outputs)


def failed(found: Verification) -> set[str]:
    """Names of the checks that failed."""
    return {check.name for check in found.failures}


def row(found: Verification, name: str) -> tuple[str, str]:
    """Outcome and note of the one check of that name."""
    (check,) = [check for check in found.checks if check.name == name]
    return check.outcome, check.note
