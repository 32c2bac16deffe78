"""LowerEmbedding: the tables that go in, in which order, and what keeps an embedding out."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxcompress.passes.lower.transformer import LowerEmbedding
from onnxcompress.passes.quantize import QuantizeWeights
from onnxcompress.passes.simplify import InferShapes
from tests.passes.lower_transformer.graphs import K, applied, graph, ops, ran, reasons

WORD, TYPE = "w = Gather (table, ids)", "t = Gather (types, kinds)"
NORM = "y = LayerNormalization <axis = -1> (z, gamma, beta)"
INPUTS, OUTPUT = "int64[B, S] ids, int64[B, S] kinds", f"float[B, S, {K}] y"
RNG = np.random.default_rng(0)
FEED = {"ids": RNG.integers(0, 20, (2, 3)), "kinds": RNG.integers(0, 2, (2, 3))}
PLACES = {
    "range": "l = Shape <start = 1, end = 2> (ids) n = Squeeze (l) o = Range (begin, n, step) p = Gather (table, o)",
    "slice of a constant": "l = Shape <start = 1, end = 2> (ids) o = Slice (many, i0, l, i0) p = Gather (table, o)",
    "from 2 on": """l = Shape <start = 1, end = 2> (ids) e = Add (l, two) o = Slice (many, two, e, i0)
        p = Gather (table, o)""",
    "computed": "c = CumSum (kinds, step) p = Gather (table, c)",
}

OWN_PLACES = PLACES["range"].replace("table", "wide2")


def embedding(body: str, inputs: str = INPUTS, output: str = OUTPUT) -> ir.Model:
    made = graph(inputs, output, body)
    for name, array in {"begin": np.array(0), "step": np.array(1), "many": np.arange(20)}.items():
        value = next((v for node in made.graph for v in node.inputs if v is not None and v.name == name), None)
        if value is not None:
            value.const_value = ir.tensor(array.astype(np.int64), name=name)
            value.type, value.shape = ir.TensorType(ir.DataType.INT64), ir.Shape(array.shape)
            made.graph.register_initializer(value)
    InferShapes()(made)
    return made


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("order", ["a = Add (w, t) z = Add (a, p)", "a = Add (p, t) z = Add (w, a)"])
def test_words_types_and_positions(place: str, order: str) -> None:
    made = embedding(f"{WORD} {TYPE} {PLACES[place]} {order} {NORM}")
    done = applied(LowerEmbedding(), made)
    assert ops(done) == ["EmbedLayerNorm"]
    node = next(n for n in done.graph if n.op_type == "EmbedLayerNorm")
    assert (node.inputs[6] is not None) == (place == "computed")
    assert node.attributes.get_int("position_offset", 0) == (2 if place == "from 2 on" else 0)
    # the words' table is rounded to int8: 1/254 of the greatest number of a row
    np.testing.assert_allclose(ran(done, FEED)[0], ran(made, FEED)[0], atol=0.06)


@pytest.mark.parametrize("rounded", [False, True])
def test_the_table_of_positions(rounded: bool) -> None:
    norm = "m = LayerNormalization <axis = -1> (z, gamma, beta)" if rounded else NORM
    rounding = "q = QuantizeLinear (m, y_s, x_z) y = DequantizeLinear (q, y_s, x_z)" if rounded else ""
    ids = {"ids": FEED["ids"]}
    made = embedding(f"{WORD} {OWN_PLACES} z = Add (w, p) {norm} {rounding}", "int64[B, S] ids")
    done = applied(LowerEmbedding(), made)
    node = next(n for n in done.graph if n.op_type == "EmbedLayerNorm")
    table, scale = node.inputs[5], node.inputs[11]
    assert table is not None and table.dtype == ir.DataType.INT8
    assert scale is not None and scale.const_value is not None
    assert list(scale.const_value.shape) == [table.const_value.shape[0]]  # type: ignore[union-attr]
    np.testing.assert_allclose(ran(done, ids)[0], ran(made, ids)[0], atol=0.2 if rounded else 0.06)


def test_a_table_that_is_int8_already() -> None:
    made = embedding(f"{WORD} {TYPE} z = Add (w, t) {NORM}")
    QuantizeWeights(8, minimum_weights=1)(made)
    assert "Cast" in [n.op_type for n in made.graph]
    done = applied(LowerEmbedding(tables=False), made)
    assert [n.op_type for n in done.graph] == ["EmbedLayerNorm"]
    np.testing.assert_allclose(ran(done, FEED)[0], ran(made, FEED)[0], atol=1e-5)


def test_positions_stay_float_when_tables_are_to_stay() -> None:
    made = embedding(f"{WORD} {OWN_PLACES} z = Add (w, p) {NORM}", "int64[B, S] ids")
    for node in made.graph:
        node.name = node.outputs[0].name
    QuantizeWeights(8, exclude=frozenset({"p"}), minimum_weights=1)(made)
    node = next(n for n in applied(LowerEmbedding(tables=False), made).graph if n.op_type == "EmbedLayerNorm")
    assert node.inputs[5] is not None and node.inputs[5].dtype == ir.DataType.FLOAT and len(node.inputs) < 12


def test_the_rounding_goes_in() -> None:
    norm = "n = LayerNormalization <axis = -1> (w, gamma, beta)"
    rounding = "q = QuantizeLinear (n, y_s, x_z) y = DequantizeLinear (q, y_s, x_z)"
    made = embedding(f"{WORD} {norm} {rounding}", "int64[B, S] ids")
    done = applied(LowerEmbedding(), made)
    assert [n.op_type for n in done.graph] == ["EmbedLayerNorm", "DequantizeLinear"]
    assert not done.graph[0].outputs[0].name


def test_a_float_table_stays_when_tables_are_to_stay() -> None:
    step = LowerEmbedding(tables=False)
    assert ops(applied(step, embedding(f"{WORD} {TYPE} z = Add (w, t) {NORM}"))) == []
    assert reasons(step) == ["its table of words is float32, and tables stay as they are"]


REFUSED = {
    "the sum of its embeddings is read elsewhere too": (f"{WORD} {TYPE} z = Add (w, t) {NORM} v = Relu (z)", ""),
    "its ids of words are not integers [batch, sequence]": ("w = Gather (table, flat) z = Add (w, w) " + NORM, "flat"),
    "it sums other rows than those of words, types and positions": (
        f"{WORD} {TYPE} u = Gather (types, more) a = Add (w, t) z = Add (a, u) {NORM}", "more",
    ),
}  # fmt: skip


@pytest.mark.parametrize("reason", REFUSED)
def test_embeddings_that_stay(reason: str) -> None:
    body, extra = REFUSED[reason]
    inputs = {"": INPUTS, "flat": "int64[T] flat", "more": f"{INPUTS}, int64[1, 1] more"}[extra]
    output = {"": f"{OUTPUT}, float[B, S, {K}] v", "flat": f"float[T, {K}] y", "more": OUTPUT}[extra]
    step = LowerEmbedding()
    done = applied(step, embedding(body, inputs, output))
    assert ops(done) == [] and reasons(step) == [reason]


def test_a_sum_with_anything_else_is_none_of_its_business() -> None:
    step = LowerEmbedding()
    made = embedding(f"{WORD} z = Add (w, x) {NORM}", f"{INPUTS}, float[B, S, {K}] x")
    assert not step(made).modified and not step.decisions
