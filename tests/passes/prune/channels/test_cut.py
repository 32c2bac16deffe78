"""The pass itself: what it refuses to do, what it leaves alone, and the means that it folds into biases."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import pytest

from onnxcompress.passes.prune.channels import PruneChannels, find_groups
from tests.passes.prune.channels.cases import NETWORKS
from tests.passes.prune.channels.networks import (
    TOLERANCE,
    Array,
    build,
    cut,
    execute,
    feed_of,
    masked,
    relative,
)


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({"absent": [0]}, "the model has no group 'absent' that can be cut"),
        ({"c2": [0]}, "the model has no group 'c2' that can be cut"),
        ({"c1": []}, "group 'c1' must keep at least one of its units, 0 to 7"),
        ({"c1": [8]}, "group 'c1' must keep at least one of its units, 0 to 7"),
        ({"c1": [-1]}, "group 'c1' must keep at least one of its units, 0 to 7"),
    ],
)
def test_what_cannot_be_kept_is_an_error(keep: dict[str, list[int]], message: str) -> None:
    model = NETWORKS["chain with BatchNormalization"].model()
    with pytest.raises(ValueError, match=message):
        PruneChannels(keep)(model)


def test_nothing_to_cut_changes_nothing() -> None:
    model = NETWORKS["residual"].model()
    before = ir.to_proto(model).SerializeToString()
    assert not PruneChannels({})(model).modified
    assert not PruneChannels({"c1": range(8)})(model).modified
    assert ir.to_proto(model).SerializeToString() == before


def test_the_order_of_units_is_the_models() -> None:
    model = NETWORKS["residual"].model()
    one, other = cut(model, {"c1": [5, 1, 3]}), cut(model, {"c1": [1, 3, 5]})
    assert ir.to_proto(one).SerializeToString() == ir.to_proto(other).SerializeToString()


def test_other_types_than_float32_keep_their_type() -> None:
    text = """(float16[N, 8] x) => (float16[N, K] y) {
        [up] a = MatMul (x, w1)
        y = MatMul (a, w2)
    }"""
    halves = {"w1": np.ones((8, 6), np.float16), "w2": np.ones((6, 8), np.float16)}
    result = cut(build(text, {}, halves), {"up": [0, 1]})
    assert {value.dtype for value in result.graph.initializers.values()} == {ir.DataType.FLOAT16}
    (actual,) = execute(result, {"x": np.ones((1, 8), np.float16)})
    np.testing.assert_array_equal(actual, np.full((1, 8), 16, np.float16))


def test_a_slice_of_int32_bounds_stays_one() -> None:
    text = """(float[N, 3, 8, 8] x) => (float[N, M, H, W] y) {
        [c1] a = Conv (x, w1)
        b = Slice (a, start, end, axis)
        y = Conv (b, w2)
    }"""
    bounds = {name: np.array([value], np.int32) for name, value in (("start", 2), ("end", 6), ("axis", 1))}
    model = build(text, {"w1": (8, 3, 1, 1), "w2": (4, 4, 1, 1)}, bounds)
    groups, _ = find_groups(model)
    keep = {group.name: [1] for group in groups}
    assert [group.size for group in groups] == [2, 4, 2]
    feed = feed_of(model)
    (actual,), (expected,) = execute(cut(model, keep), feed), execute(masked(model, groups, keep), feed)
    assert relative(actual, expected) < TOLERANCE


LINEAR = {
    "MatMul and Add": "[l2] b = MatMul (h, w2) y = Add (b, b2)",
    "MatMul alone": "[l2] y = MatMul (h, w2)",
    "MatMul read twice": "[l2] b = MatMul (h, w2) c = Relu (b) y = Add (b, c)",
    "Gemm": "[l2] y = Gemm (h, w2, b2)",
    "Gemm with factors": "[l2] y = Gemm <alpha = 0.5, beta = 2.0> (h, w2, b2)",
    "Gemm without bias": "[l2] y = Gemm <beta = 0.0> (h, w2)",
    "Gemm transposed": "[l2] y = Gemm <transB = 1> (h, wt, b2)",
}


@pytest.mark.parametrize("reader", LINEAR.values(), ids=list(LINEAR))
def test_constant_neurons_are_cut_without_loss(reader: str) -> None:
    """A neuron whose weights are 0 gives its bias: with its mean folded in, nothing is lost."""
    shapes = {"w1": (8, 6), "b1": (6,), "w2": (6, 5), "b2": (5,), "wt": (5, 6)}
    text = f"(float[N, 8] x) => (float[N, K] y) {{ [l1] a = MatMul (x, w1) s = Add (a, b1) h = Sigmoid (s) {reader} }}"
    model = build(text, {name: shape for name, shape in shapes.items() if name in text})
    _check_lossless(model, "l1", "h", [1, 4])


CONVOLUTIONS = {
    "with bias": "[c2] y = Conv (h, w2, b2)",
    "without bias": "[c2] y = Conv (h, w2)",
    "in groups": "[c2] y = Conv <group = 2> (h, wg)",
}


@pytest.mark.parametrize("reader", CONVOLUTIONS.values(), ids=list(CONVOLUTIONS))
def test_constant_channels_are_cut_without_loss(reader: str) -> None:
    shapes = {"w1": (6, 3, 3, 3), "b1": (6,), "w2": (4, 6, 3, 3), "b2": (4,), "wg": (4, 3, 3, 3)}
    text = f"(float[N, 3, 8, 8] x) => (float[N, M, H, W] y) {{ [c1] a = Conv (x, w1, b1) h = Sigmoid (a) {reader} }}"
    model = build(text, {name: shape for name, shape in shapes.items() if name in text})
    _check_lossless(model, "c1", "h", [1, 4])


def _check_lossless(model: ir.Model, group: str, value: str, gone: Sequence[int]) -> None:
    """Channels of `value` are made constant and cut; of grouped ones the channel 1 of each group (1 and 4)."""
    weight, bias = model.graph.initializers["w1"], model.graph.initializers["b1"]
    assert weight.const_value is not None and bias.const_value is not None
    array = weight.const_value.numpy().copy()
    array[(list(gone),) if array.ndim == 4 else (slice(None), list(gone))] = 0
    weight.const_value = ir.tensor(array, name="w1")
    mean = np.where(np.isin(np.arange(6), gone), 1 / (1 + np.exp(-bias.const_value.numpy())), np.nan)
    mean = np.nan_to_num(mean, nan=123.0)  # of channels that stay: must not matter
    size = next(g.size for g in find_groups(model)[0] if g.name == group)
    keep = {group: [unit for unit in range(size) if unit not in gone]}
    feed = feed_of(model)
    (expected,) = execute(model, feed)
    (compensated,) = execute(cut(model, keep, means={value: mean}), feed)
    assert relative(compensated, expected) < TOLERANCE
    assert relative(execute(cut(model, keep), feed)[0], expected) > 1e-2


@pytest.mark.parametrize(
    "reader",
    ["[l2] y = Gemm <beta = 0.0> (h, w2, b2)", "d = Neg (b2) e = Relu (d) [l2] y = Gemm (h, w2, e)"],
    ids=["a bias that counts nothing", "a bias that is computed"],
)
def test_a_reader_whose_bias_cannot_take_it_is_left_as_it_is(reader: str) -> None:
    text = f"(float[N, 8] x) => (float[N, K] y) {{ [l1] a = MatMul (x, w1) h = Sigmoid (a) {reader} }}"
    model = build(text, {"w1": (8, 6), "w2": (6, 5), "b2": (5,)})
    keep, means = {"l1": [0, 1]}, {"h": np.full(6, 0.5)}
    plain, told = cut(model, keep), cut(model, keep, means=means)
    assert ir.to_proto(plain).SerializeToString() == ir.to_proto(told).SerializeToString()


def test_means_bring_a_cut_model_nearer() -> None:
    """Not only for constants: what is cut varies around its mean."""
    network = NETWORKS["neurons"]
    model, feed = network.model(), feed_of(network.model(), sizes={"B": 8, "S": 16})
    probe = model.clone()
    hidden = next(node for node in probe.graph if node.op_type == "Gelu").outputs[0]
    hidden.type, hidden.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(["B", "S", 20])
    probe.graph.outputs.append(hidden)
    expected, activation = execute(probe, feed)
    keep = {"up": list(range(10))}
    plain = execute(cut(model, keep), feed)[0]
    folded = execute(cut(model, keep, means={"g": activation.mean(axis=(0, 1))}), feed)[0]
    assert relative(folded, expected) < 0.97 * relative(plain, expected)


@pytest.mark.parametrize("mean", [np.zeros(7), np.full(8, np.inf)])
def test_a_mean_that_does_not_fit_is_an_error(mean: Array) -> None:
    model = NETWORKS["chain with BatchNormalization"].model()
    with pytest.raises(ValueError, match="the mean of 'r' must be 8 finite numbers, one per channel"):
        PruneChannels({"c1": [0]}, means={"r": mean})(model)


def test_means_of_what_is_not_cut_change_nothing() -> None:
    model = NETWORKS["residual"].model()
    plain, told = cut(model, {"c1": [0]}), cut(model, {"c1": [0]}, means={"r": np.ones(12), "x": np.ones(3)})
    assert ir.to_proto(plain).SerializeToString() == ir.to_proto(told).SerializeToString()


WIDTH = """(int64[B, S] ids, int64[B, S] kinds) => (float[B, S, K] y) {
    [words] e = Gather (table, ids)
    [types] t = Gather (table2, kinds)
    s = Add (e, t)
    [ln] n = LayerNormalization <axis = -1> (s, gamma, beta)
    [up] u = MatMul (n, w1)
    g = Gelu (u)
    [down] d = MatMul (g, w2)
    r = Add (d, n)
    [out] y = MatMul (r, w3)
}"""
WIDTHS = {
    "table": (9, 12), "table2": (2, 12), "gamma": (12,), "beta": (12,), "w1": (12, 16), "w2": (16, 12), "w3": (12, 4),
}  # fmt: skip


def test_a_width_is_cut_only_when_asked_for() -> None:
    model = build(WIDTH, WIDTHS)
    groups, refused = find_groups(model)
    assert [group.name for group in groups] == ["up"]
    assert refused[0].name == "words"
    assert "its 12 neurons stay: a width that is looked up in a table by" in refused[0].reason
    groups, refused = find_groups(model, widths=True)
    assert [(group.name, group.size) for group in groups] == [("words", 12), ("up", 16)]
    with pytest.raises(ValueError, match="no group 'words'"):
        PruneChannels({"words": [0]})(model)


def test_a_cut_width_is_normalized_over_what_stays() -> None:
    """Against numpy: the narrower network, written out."""
    model = build(WIDTH, WIDTHS)
    stays = [0, 2, 3, 7, 10]
    result = cut(model, {"words": stays}, widths=True)
    feed = feed_of(model, sizes={"B": 2, "S": 3})
    (actual,) = execute(result, feed)
    w = {name: value.const_value.numpy() for name, value in model.graph.initializers.items() if value.const_value}
    x = w["table"][feed["ids"]][..., stays] + w["table2"][feed["kinds"]][..., stays]
    n = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    n = n * w["gamma"][stays] + w["beta"][stays]
    u = n @ w["w1"][stays]
    gelu = u * 0.5 * (1 + np.vectorize(math.erf)(u / np.sqrt(2)))
    expected = (gelu @ w["w2"][:, stays] + n) @ w["w3"][stays]
    assert relative(actual, expected) < TOLERANCE
