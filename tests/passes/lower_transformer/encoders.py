"""Small transformers in the dialects of several exporters, quantized and lowered."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcompress.calibration import ChannelObserver, stream
from onnxcompress.data import open_data
from onnxcompress.ops import DOMAIN
from onnxcompress.passes.lower.functions import AttachFunctions
from onnxcompress.passes.lower.transformer import LowerTransformers, attention_tensors
from onnxcompress.passes.quantize.roles import Decision
from onnxcompress.passes.simplify import InferShapes
from onnxcompress.progress import silent
from onnxcompress.quantization_channels import smoothing_statistics
from onnxcompress.quantization_static import RangeSource, with_ranges
from onnxcompress.recipe import Recipe, insert, prepare
from onnxcompress.runtime import open_session
from tests.models import with_initializers

Array = np.ndarray[Any, Any]
Feed = dict[str, Array]

HEADS, SIZE, INNER, WORDS = 3, 8, 40, 50
WIDTH = HEADS * SIZE

SPLITS = {
    "separate": """
        q2 = MatMul (h, wq) q1 = Add (q2, bq) q0 = Reshape (q1, heads) q = Transpose <perm = [0, 2, 1, 3]> (q0)
        k2 = MatMul (h, wk) k1 = Add (bk, k2) k0 = Reshape (k1, heads) kt = Transpose <perm = [0, 2, 3, 1]> (k0)
        v2 = MatMul (h, wv) v1 = Add (v2, bv) v0 = Reshape (v1, heads) v = Transpose <perm = [0, 2, 1, 3]> (v0)
        s0 = MatMul (q, kt) s = Mul (s0, root)
    """,
    "slice": """
        p2 = MatMul (h, wp) p1 = Add (p2, bp) p0 = Reshape (p1, three)
        p = Transpose <perm = [2, 0, 3, 1, 4]> (p0)
        q1 = Slice (p, i0, i1, i0) q0 = Squeeze (q1, i0) q = Mul (q0, root)
        k1 = Slice (p, i1, i2, i0) k = Squeeze (k1, i0) kt = Transpose <perm = [0, 1, 3, 2]> (k)
        v1 = Slice (p, i2, i3, i0) v = Squeeze (v1, i0)
        s = MatMul (q, kt)
    """,
    "gather": """
        p2 = MatMul (h, wp) p1 = Add (p2, bp) p0 = Reshape (p1, three)
        p = Transpose <perm = [2, 0, 3, 1, 4]> (p0)
        q = Gather <axis = 0> (p, n0) k = Gather <axis = 0> (p, n1) v = Gather <axis = 0> (p, n2)
        kt = Transpose <perm = [0, 1, 3, 2]> (k)
        s0 = MatMul (q, kt) s = Div (s0, divisor)
    """,
    "split": """
        p2 = MatMul (h, wp) p1 = Add (p2, bp)
        q1, k1, v1 = Split <axis = 2, num_outputs = 3> (p1)
        q0 = Reshape (q1, heads) q = Transpose <perm = [0, 2, 1, 3]> (q0)
        k0 = Reshape (k1, heads) kt = Transpose <perm = [0, 2, 3, 1]> (k0)
        v0 = Reshape (v1, heads) v = Transpose <perm = [0, 2, 1, 3]> (v0)
        s0 = MatMul (q, kt) s = Mul (s0, root)
    """,
}
"""From the input `h` of attention to the scores `s` and the values `v`."""


@dataclass(frozen=True)
class Lowered:
    """A model in all of its stages.

    Attributes:
        prepared: in float32, smoothed.
        quantized: with Q/DQ pairs.
        native: lowered, with function bodies.
        decisions: of the lowering.
    """

    prepared: ir.Model
    quantized: ir.Model
    native: ir.Model
    decisions: list[Decision]

    @property
    def census(self) -> Counter[str]:
        return Counter(node.op_type for node in self.native.graph)

    def reasons(self) -> dict[str, str]:
        """Why nodes stayed, by name."""
        return {d.name: d.reason for d in self.decisions if not d.quantized}


def weights(seed: int = 3) -> dict[str, Array]:
    """Random constants of all the models here."""
    rng = np.random.default_rng(seed)
    shapes = {
        "wq": (WIDTH, WIDTH), "wk": (WIDTH, WIDTH), "wv": (WIDTH, WIDTH), "wp": (WIDTH, 3 * WIDTH),
        "wo": (WIDTH, WIDTH), "wu": (WIDTH, INNER), "wd": (INNER, WIDTH), "wh": (WIDTH, 5),
        "bq": (WIDTH,), "bk": (WIDTH,), "bv": (WIDTH,), "bp": (3 * WIDTH,), "bo": (WIDTH,), "bu": (INNER,),
        "bd": (WIDTH,), "bh": (5,), "words": (WORDS, WIDTH), "types": (2, WIDTH), "positions": (16, WIDTH),
    }  # fmt: skip
    arrays = {
        name: rng.normal(0, 1 if name in ("words", "types", "positions") else 0.3, shape)
        for name, shape in shapes.items()
    }
    for number in (0, 1, 2):
        arrays[f"g{number}"] = rng.uniform(0.5, 1.5, WIDTH)
        arrays[f"e{number}"] = rng.normal(0, 0.2, WIDTH)
    arrays["g1"][5] = 12  # a loud channel, which smoothing is for
    arrays |= {
        "root": np.array(SIZE**-0.5),
        "divisor": np.array(SIZE**0.5),
        "one": np.array(1.0),
        "far": np.array(-1e4),
    }
    constants = {name: array.astype(np.float32) for name, array in arrays.items()}
    integers = {
        "heads": [0, 0, HEADS, SIZE], "three": [0, 0, 3, HEADS, SIZE], "joined": [0, 0, WIDTH],
        "i0": [0], "i1": [1], "i2": [2], "i3": [3], "n0": 0, "n1": 1, "n2": 2, "axes": [1, 2], "last": [-1],
    }  # fmt: skip
    return constants | {name: np.array(value, np.int64) for name, value in integers.items()}


def model(text: str, **changed: Array) -> ir.Model:
    """A model of ONNX text, its free names those of `weights` or given."""
    made = with_initializers(
        ir.from_onnx_text(text), {n: a for n, a in (weights() | changed).items() if _names(n, text)}
    )
    InferShapes()(made)
    return made


def _names(name: str, text: str) -> bool:
    return any(f"{before}{name}{after}" in text for before in "( " for after in ",) ")


def pre_norm(split: str = "slice", activation: str = "a = Gelu (u)") -> ir.Model:
    """A block as of ViT; x float [B, S, C] to y."""
    return model(f"""<ir_version: 10, opset_import: ["" : 21]>
    block (float[B, S, {WIDTH}] x) => (float[B, S, {WIDTH}] y) {{
        h = LayerNormalization <axis = -1> (x, g0, e0)
        {SPLITS[split]}
        m = Softmax <axis = -1> (s)
        c2 = MatMul (m, v) c1 = Transpose <perm = [0, 2, 1, 3]> (c2) c = Reshape (c1, joined)
        o1 = MatMul (c, wo) o = Add (o1, bo)
        t = Add (x, o)
        n = LayerNormalization <axis = -1> (t, g1, e1)
        u1 = MatMul (n, wu) u = Add (u1, bu)
        {activation}
        d1 = MatMul (a, wd) d = Add (d1, bd)
        y = Add (t, d)
    }}""")


def sentence_encoder(split: str = "separate") -> ir.Model:
    """BERT with one layer, a masked mean of unit length; ids, mask, types int64 [B, S] to y float [B, C]."""
    return model(f"""<ir_version: 10, opset_import: ["" : 21]>
    encoder (int64[B, S] ids, int64[B, S] mask, int64[B, S] type_ids) => (float[B, {WIDTH}] y) {{
        length = Shape <start = 1, end = 2> (ids) count = Squeeze (length) order = Range (n0, count, n1)
        word = Gather (words, ids) type = Gather (types, type_ids) place = Gather (positions, order)
        z1 = Add (word, type) z = Add (z1, place)
        h = LayerNormalization <axis = -1, epsilon = 1e-12> (z, g0, e0)
        {SPLITS[split]}
        m0 = Cast <to = 1> (mask) m1 = Unsqueeze (m0, axes) m2 = Sub (one, m1) bias = Mul (m2, far)
        s1 = Add (s, bias)
        m = Softmax <axis = -1> (s1)
        c2 = MatMul (m, v) c1 = Transpose <perm = [0, 2, 1, 3]> (c2) c = Reshape (c1, joined)
        o1 = MatMul (c, wo) o = Add (o1, bo)
        t = Add (o, h)
        n = LayerNormalization <axis = -1, epsilon = 1e-12> (t, g1, e1)
        u1 = MatMul (n, wu) u = Add (u1, bu)
        a = Gelu (u)
        d1 = MatMul (a, wd) d = Add (d1, bd)
        r = Add (d, n)
        w = LayerNormalization <axis = -1, epsilon = 1e-12> (r, g2, e2)
        k3 = Unsqueeze (m0, last) k4 = Mul (w, k3) k5 = ReduceSum <keepdims = 0> (k4, i1)
        k6 = ReduceSum <keepdims = 0> (k3, i1) k7 = Clip (k6, least) k8 = Div (k5, k7)
        l1 = ReduceL2 <keepdims = 1> (k8, last) l2 = Clip (l1, tiny) y = Div (k8, l2)
    }}""", least=np.array(1e-9, np.float32), tiny=np.array(1e-12, np.float32))  # fmt: skip


def vectors(count: int = 12, seed: int = 1) -> list[Feed]:
    """Feeds of `pre_norm`, of several lengths."""
    rng = np.random.default_rng(seed)
    return [{"x": rng.normal(size=(2, 3 + i % 5, WIDTH)).astype(np.float32)} for i in range(count)]


def sentences(count: int = 12, seed: int = 1) -> list[Feed]:
    """Feeds of `sentence_encoder`, of several lengths, the second one shorter than the first."""
    rng = np.random.default_rng(seed)
    feeds = []
    for i in range(count):
        length = 4 + i % 6
        mask = np.ones((2, length), np.int64)
        mask[1, rng.integers(2, length) :] = 0
        ids, types = rng.integers(0, WORDS, (2, length)), rng.integers(0, 2, (2, length))
        feeds.append({"ids": ids, "mask": mask, "type_ids": types})
    return feeds


def lowered(source: ir.Model, feeds: list[Feed], *, smooth: float | None = 0.5, **options: Any) -> Lowered:
    """Prepare, smooth, calibrate, quantize and lower a model; `options` are those of LowerTransformers."""
    recipe = Recipe(mode="static", portable=True, native=True)
    prepared = prepare(source, recipe)
    if smooth is not None:
        found = smoothing_statistics(prepared, open_data(feeds, prepared))
        recipe = replace(recipe, smooth=smooth, channels={k: tuple(map(float, v)) for k, v in found.items()})
        prepared = prepare(source, recipe)
    ranges = RangeSource(prepared, recipe, None, open_data(feeds, prepared), "minmax", 1, silent)
    recipe, _ = with_ranges(recipe, ranges)
    quantized, _ = insert(prepared, recipe)
    native = quantized.clone()
    step = LowerTransformers(magnitudes(prepared, feeds), **options)
    step(native)
    AttachFunctions()(native)
    return Lowered(prepared, quantized, native, step.decisions)


def magnitudes(prepared: ir.Model, feeds: list[Feed]) -> dict[str, Array]:
    """Greatest magnitudes of the channels of queries, keys and values."""
    observers = {name: ChannelObserver(-1) for name in attention_tensors(prepared)}
    if observers:
        stream(prepared, open_data(feeds, prepared), observers)
    return {name: observer.statistics().max_abs for name, observer in observers.items()}


def outputs(made: ir.Model, feeds: list[Feed], *, native: bool = False) -> list[Array]:
    """The first output: by function bodies in stock ONNX Runtime, or (`native`) by the kernels."""
    session = open_session(made, native=native)
    return [np.asarray(session.run(None, feed)[0], np.float64) for feed in feeds]


def similarity(a: list[Array], b: list[Array]) -> float:
    """Mean cosine."""
    return float(np.mean([np.vdot(x, y) / (np.linalg.norm(x) * np.linalg.norm(y)) for x, y in zip(a, b, strict=True)]))


def ours(made: ir.Model) -> list[ir.Node]:
    """The nodes of our operators, in order."""
    return [node for node in made.graph if node.domain == DOMAIN]
