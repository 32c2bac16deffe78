"""LowerAttention: ways to write attention and its masks, and what keeps it out."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxcompress.passes.lower.transformer import LowerAttention, attention_tensors
from onnxcompress.passes.lower.transformer.mask import find_mask
from tests.passes.lower_transformer import encoders
from tests.passes.lower_transformer.encoders import HEADS, SIZE, WIDTH, Feed, lowered, ours, outputs, similarity

BEFORE = "h = LayerNormalization <axis = -1> (x, g0, e0)"
Q = "q2 = MatMul (h, wq) q1 = Add (q2, bq) q0 = Reshape (q1, heads) q = Transpose <perm = [0, 2, 1, 3]> (q0)"
K = "k2 = MatMul (h, wk) k1 = Add (k2, bk) k0 = Reshape (k1, heads) kt = Transpose <perm = [0, 2, 3, 1]> (k0)"
V = "v2 = MatMul (h, wv) v1 = Add (v2, bv) v0 = Reshape (v1, heads) v = Transpose <perm = [0, 2, 1, 3]> (v0)"
SCORES = "s0 = MatMul (q, kt) s = Mul (s0, root)"
SOFTMAX = "m = Softmax <axis = -1> (s)"
AFTER = "c2 = MatMul (m, v) c1 = Transpose <perm = [0, 2, 1, 3]> (c2) c = Reshape (c1, joined)"
OUT = "o = MatMul (c, wo) y = Add (o, bo)"
PLAIN = (BEFORE, Q, K, V, SCORES, SOFTMAX, AFTER, OUT)
CLOSE = 0.999

Constants = dict[str, np.ndarray[Any, Any]]


def attention(*parts: str, inputs: str = "", outputs: str = "", constants: Constants | None = None) -> ir.Model:
    text = f"""<ir_version: 10, opset_import: ["" : 21]>
    g (float[B, S, {WIDTH}] x{inputs}) => (float[B, S, {WIDTH}] y{outputs}) {{ {" ".join(parts)} }}"""
    return encoders.model(text, **(constants or {}))


def replaced(**parts: str) -> list[str]:
    """The parts of PLAIN with some exchanged."""
    names = ("before", "q", "k", "v", "scores", "softmax", "after", "out")
    return [parts.get(name, part) for name, part in zip(names, PLAIN, strict=True)]


def feeds(**others: str) -> list[Feed]:
    """Feeds with masks: "keys" int64 [B, S], "added" float [B, 1, S, S], "causal" bool [S, S], "dropped" not that."""
    rng = np.random.default_rng(2)
    made = encoders.vectors(8)
    for feed in made:
        batch, length = feed["x"].shape[:2]
        causal = np.tril(np.ones((length, length), bool))
        keys = np.ones((batch, length), np.int64)
        keys[1, 2:] = 0
        bias = rng.normal(0, 2, (batch, 1, length, length)).astype(np.float32)
        kinds = {"keys": keys, "keys as bool": keys == 1, "added": bias, "causal": causal, "dropped": ~causal}
        kinds["slope"] = bias[0, 0]
        feed.update({name: kinds[kind] for name, kind in others.items()})
    return made


def check(source: ir.Model, data: list[Feed], *, mask_kind: str | None = None) -> list[str]:
    """It is lowered, and right; gives the types of what is left beside ours."""
    made = lowered(source, data, smooth=None)
    node = next((n for n in made.native.graph if n.op_type == "QAttention"), None)
    assert node is not None, made.reasons()
    assert node.attributes.get_int("num_heads") == HEADS
    if mask_kind is not None:
        assert node.attributes.get_string("mask_kind") == mask_kind
    assert similarity(outputs(made.native, data), outputs(made.prepared, data)) > CLOSE
    known = ours(made.native)
    return [n.op_type for n in made.native.graph if n not in known]


def test_separate_projections() -> None:
    assert check(attention(*PLAIN), feeds()) == []


def test_heads_that_are_interleaved() -> None:
    """Channel i of head h is column i * HEADS + h: an order that only trying it tells."""
    parts = replaced(
        q=Q.replace("heads)", "mixed)").replace("[0, 2, 1, 3]", "[0, 3, 1, 2]"),
        k=K.replace("heads)", "mixed)").replace("[0, 2, 3, 1]", "[0, 3, 2, 1]"),
        v=V.replace("heads)", "mixed)").replace("[0, 2, 1, 3]", "[0, 3, 1, 2]"),
    )
    mixed = np.array([0, 0, SIZE, HEADS], np.int64)
    assert check(attention(*parts, constants={"mixed": mixed}), feeds()) == []


def test_three_dimensional_products() -> None:
    """Batch and heads as one dimension."""
    text = BEFORE + "".join(
        f" {n}2 = MatMul (h, w{n}) {n}1 = Add ({n}2, b{n}) {n}0 = Reshape ({n}1, heads)"
        f" {n}5 = Transpose <perm = [0, 2, 1, 3]> ({n}0) sh{n} = Shape <start = 1, end = 2> ({n}1)"
        f" fl{n} = Concat <axis = 0> (last, sh{n}, size) {n} = Reshape ({n}5, fl{n})"
        for n in "qkv"
    )
    text += " kt = Transpose <perm = [0, 2, 1]> (k)"
    back = (
        "c2 = MatMul (m, v) b0 = Shape <start = 0, end = 1> (x) s1 = Shape <start = 1, end = 2> (x) "
        "full = Concat <axis = 0> (b0, count, s1, size) c3 = Reshape (c2, full) "
        "c1 = Transpose <perm = [0, 2, 1, 3]> (c3) c = Reshape (c1, joined)"
    )
    constants = {"size": np.array([SIZE], np.int64), "count": np.array([HEADS], np.int64)}
    assert check(attention(text, SCORES, SOFTMAX, back, OUT, constants=constants), feeds()) == []


def test_softmax_of_a_flattened_tensor() -> None:
    softmax = "f = Flatten <axis = 3> (s) sm = Softmax <axis = -1> (f) ss = Shape (s) m = Reshape (sm, ss)"
    assert check(attention(*replaced(softmax=softmax)), feeds()) == []


def test_a_guard_against_not_a_number() -> None:
    softmax = "m1 = Softmax <axis = -1> (s) nan = IsNaN (m1) m = Where (nan, zero, m1)"
    assert check(attention(*replaced(softmax=softmax), constants={"zero": np.array(0, np.float32)}), feeds()) == []


MASKS = {
    "subtracted": ("mf = Cast <to = 1> (a) mu = Unsqueeze (mf, axes) ms = Sub (one, mu) mb = Mul (ms, far) "
                   "t = Add (s, mb)",
                   "int64[B, S] a", "keys", "keep", []),
    "chosen": ("mu = Unsqueeze (a, axes) mb = Where (mu, none, far) t = Add (mb, s)",
               "bool[B, S] a", "keys as bool", "keep", []),
    "kept": ("mu = Unsqueeze (a, axes) t = Where (mu, s, far)", "bool[B, S] a", "keys as bool", "keep", []),
    "dropped": ("mu = Unsqueeze (a, axes) mi = Not (mu) t = Where (mi, far, s)",
                "bool[B, S] a", "keys as bool", "keep", []),
    "added": ("t = Add (s, a)", "float[B, 1, S, S] a", "added", "add", []),
    "added for all": ("t = Add (s, a)", "float[S, S] a", "slope", "add", ["Unsqueeze"]),
    "causal, kept": ("t = Where (a, s, far)", "bool[S, S] a", "causal", "add", ["Where", "Unsqueeze"]),
    "causal, dropped": ("t = Where (a, far, s)", "bool[S, S] a", "dropped", "add", ["Where", "Unsqueeze"]),
}  # fmt: skip


@pytest.mark.parametrize("name", MASKS)
def test_masks(name: str) -> None:
    text, declared, kind, mask_kind, left = MASKS[name]
    softmax = f"{text} m = Softmax <axis = -1> (t)"
    source = attention(*replaced(softmax=softmax), inputs=f", {declared}", constants={"none": np.array(0, np.float32)})
    assert check(source, feeds(a=kind), mask_kind=mask_kind) == left


REFUSED: dict[str, tuple[list[str], Constants]] = {
    "come from different tensors": (
        replaced(before=BEFORE + " h2 = LayerNormalization <axis = -1> (x, g1, e1)", k=K.replace("(h,", "(h2,")), {},
    ),
    "is not split into heads": (replaced(
        q="q2 = MatMul (h, wq) q1 = Add (q2, bq) q = Reshape (q1, torn)",
        k="k2 = MatMul (h, wk) k1 = Add (k2, bk) k0 = Reshape (k1, torn) kt = Transpose <perm = [0, 1, 3, 2]> (k0)",
        v="v2 = MatMul (h, wv) v1 = Add (v2, bv) v = Reshape (v1, torn)",
    ), {"torn": np.array([0, HEADS, -1, SIZE], np.int64)}),
    "have different heads": (replaced(
        v=V.replace("wv", "wn").replace("bv", "bn").replace("heads", "narrow"), after=AFTER.replace("joined", "less"),
        out=OUT.replace("wo", "wl"),
    ), {
        "wn": np.ones((WIDTH, HEADS * 4), np.float32), "bn": np.ones(HEADS * 4, np.float32),
        "narrow": np.array([0, 0, HEADS, 4], np.int64), "less": np.array([0, 0, HEADS * 4], np.int64),
        "wl": np.ones((HEADS * 4, WIDTH), np.float32),
    }),
    "its heads are not put side by side again": (replaced(after=AFTER.replace("[0, 2, 1, 3]", "[0, 2, 3, 1]")), {}),
    "its result is not quantized": (replaced(out="y = Relu (c)"), {}),
    "are not the results of quantized linear layers": (replaced(q=f"{Q.replace('q =', 'qr =')} q = Relu (qr)"), {}),
    "its mask is scaled, or there are two of them": (
        replaced(softmax="t = Add (s, root) t2 = Add (s, x2) t3 = Mul (t2, root) m = Softmax <axis = -1> (t3)"), {},
    ),
    "its products are not of rank 3 or 4": (replaced(
        q=f"{Q.replace('q =', 'q9 =')} q = Unsqueeze (q9, i1)",
        k=f"{K.replace('kt =', 'k9 =')} kt = Unsqueeze (k9, i1)",
        v=f"{V.replace('v =', 'v9 =')} v = Unsqueeze (v9, i1)",
        after=AFTER.replace("c2 =", "c9 =").replace("c1 =", "c2 = Squeeze (c9, i1) c1 ="),
    ), {}),
}  # fmt: skip


@pytest.mark.parametrize("reason", REFUSED)
def test_attention_that_stays(reason: str) -> None:
    parts, constants = REFUSED[reason]
    inputs, data = "", feeds()
    if any("x2" in part for part in parts):
        parts = [part.replace("t = Add (s, root) ", "") for part in parts]
        inputs, data = ", float[B, 1, S, S] x2", feeds(x2="added")
    made = lowered(attention(*parts, inputs=inputs, constants=constants), data, smooth=None)
    assert any(reason in found for found in made.reasons().values()), made.reasons()
    assert made.census["QAttention"] == 0
    assert similarity(outputs(made.native, data), outputs(made.prepared, data)) > 0.99


def test_what_is_read_elsewhere_too_stays() -> None:
    source = attention(*PLAIN, outputs=f", float[B, {HEADS}, S, {SIZE}] q")
    made = lowered(source, feeds(), smooth=None)
    assert "a value inside it is read elsewhere too" in made.reasons().values()


def test_magnitudes_must_be_known_and_fit() -> None:
    made = lowered(attention(*PLAIN), feeds(), smooth=None)
    for channels, reason in (({}, "were not measured"), ({n: np.ones(3) for n in ("q1", "k1", "v1")}, "3 numbers")):
        step = LowerAttention(channels)
        assert not step(made.quantized.clone()).modified
        assert [reason in decision.reason for decision in step.decisions] == [True]


def test_attention_tensors_are_the_results_with_their_biases() -> None:
    assert attention_tensors(attention(*PLAIN)) == ["q1", "k1", "v1"]
    assert attention_tensors(encoders.pre_norm("slice")) == ["p1"]
    classifier = attention(BEFORE, "o = MatMul (h, wq) y = Softmax <axis = -1> (o)")
    assert attention_tensors(classifier) == []


def test_a_softmax_that_is_no_attention_is_none_of_its_business() -> None:
    step = LowerAttention({})
    for body in ("y = Softmax <axis = -1> (x)", "t = Softmax <axis = 1> (x) y = MatMul (t, wq)"):
        assert not step(attention(body)).modified and not step.decisions


def test_queries_and_keys_are_balanced() -> None:
    """A loud channel of the queries would take the steps of all others of its head; a quiet one of the keys pays."""
    rng = np.random.default_rng(0)
    wq, wk = (rng.normal(0, 0.3, (WIDTH, WIDTH)).astype(np.float32) for _ in range(2))
    wq[:, ::SIZE] *= 60
    wk[:, ::SIZE] /= 60
    none = np.zeros(WIDTH, np.float32)
    data = feeds()
    made = lowered(attention(*PLAIN, constants={"wq": wq, "wk": wk, "bq": none, "bk": none}), data, smooth=None)
    assert similarity(outputs(made.native, data), outputs(made.prepared, data)) > CLOSE


def test_a_mask_of_unknown_rank_is_refused() -> None:
    value = ir.Value(name="mask", type=ir.TensorType(ir.DataType.FLOAT))
    assert find_mask(value, "added", HEADS) == "its mask is not float32 of known rank"
