"""LowerPooling: the ways to write a masked mean."""

from __future__ import annotations

import numpy as np
import pytest

from onnxcompress.passes.lower.transformer import LowerPooling
from tests.passes.lower_transformer.graphs import K, applied, graph, ran

MASKS = {
    "unsqueezed": "f = Cast <to = 1> (mask) m = Unsqueeze (f, last)",
    "expanded": "u = Unsqueeze (mask, last) s = Shape (x) e = Expand (u, s) m = Cast <to = 1> (e)",
}
SUMS = "p = Mul (x, m) t = ReduceSum <keepdims = 0> (p, i1) n = ReduceSum <keepdims = 0> (m, i1)"
MEAN = "c = Clip (n, least) a = Div (t, c)"
LENGTH = "l = ReduceL2 <keepdims = 1> (a, last) k = Clip (l, tiny) y = Div (a, k)"
RNG = np.random.default_rng(0)
FEED = {"x": RNG.normal(size=(2, 5, K)).astype(np.float32), "mask": np.array([[1] * 5, [1, 1, 0, 0, 0]])}
INPUTS, OUTPUT = f"float[B, S, {K}] x, int64[B, S] mask", f"float[B, {K}]"


@pytest.mark.parametrize("mask", MASKS.values(), ids=list(MASKS))
@pytest.mark.parametrize("unit", [True, False])
def test_a_masked_mean(mask: str, unit: bool) -> None:
    result = "y" if unit else "a"
    made = graph(INPUTS, f"{OUTPUT} {result}", f"{mask} {SUMS} {MEAN} {LENGTH if unit else ''}")
    done = applied(LowerPooling(), made)
    (node,) = done.graph
    assert node.op_type == "MeanPool" and node.attributes.get_int("normalize") == unit
    assert list(node.inputs) == list(done.graph.inputs)
    np.testing.assert_allclose(ran(done, FEED)[0], ran(made, FEED)[0], atol=1e-6)


def test_max_as_the_bound_and_the_order_of_factors() -> None:
    text = f"{MASKS['unsqueezed']} {SUMS.replace('(x, m)', '(m, x)')} c = Max (least, n) a = Div (t, c)"
    made = graph(INPUTS, f"{OUTPUT} a", text)
    done = applied(LowerPooling(), made)
    assert [n.op_type for n in done.graph] == ["MeanPool"]
    np.testing.assert_allclose(ran(done, FEED)[0], ran(made, FEED)[0], atol=1e-6)


def test_a_mean_that_is_read_too_is_not_made_a_unit() -> None:
    made = graph(INPUTS, f"{OUTPUT} y, {OUTPUT} a", f"{MASKS['unsqueezed']} {SUMS} {MEAN} {LENGTH}")
    done = applied(LowerPooling(), made)
    assert [n.op_type for n in done.graph] == ["MeanPool", "ReduceL2", "Clip", "Div"]


@pytest.mark.parametrize(
    "body",
    [
        f"o = Unsqueeze (other, last) m = Cast <to = 1> (o) p = Mul (x, m) t = ReduceSum <keepdims = 0> (p, i1) "
        f"w = Unsqueeze (mask, last) v = Cast <to = 1> (w) n = ReduceSum <keepdims = 0> (v, i1) {MEAN}",
        f"{MASKS['unsqueezed']} {SUMS.replace('i1', 'two')} {MEAN}",
        f"{MASKS['unsqueezed']} {SUMS} c = Clip (n, minus) a = Div (t, c)",
        f"f = Cast <to = 1> (mask) g = Add (f, half) m = Unsqueeze (g, last) {SUMS} {MEAN}",
    ],
    ids=["two masks", "another axis", "no positive bound", "not the mask itself"],
)
def test_what_is_no_masked_mean_stays(body: str) -> None:
    inputs = INPUTS + (", int64[B, S] other" if "other" in body else "")
    shape = "float[B, S] a" if "two" in body else f"{OUTPUT} a"
    assert not LowerPooling()(graph(inputs, shape, body)).modified
