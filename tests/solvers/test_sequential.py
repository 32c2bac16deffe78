"""Layer by layer: what each layer sees, and what becomes of biases."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxcompress.data import DataSet
from onnxcompress.errors import CalibrationError
from onnxcompress.passes.prune import GRIDS, Layer, find_layers
from onnxcompress.solvers import PruneLayers, solvable, solve_layers
from onnxcompress.solvers.sequential import MOST_INPUTS, divide, scarcity, takes_bias
from tests.passes.quantize.models import build, execute, node_named, normal, observe, relative

Array = np.ndarray[Any, Any]

TEXT = """agraph (float[n,16] x) => (float[n,24] y, float[n,24] z) {
    [first] a = MatMul (x, w1)
    [shift] b = Add (a, b1)
    [act] c = Relu (b)
    [left] y = Gemm (c, w2, b2)
    [right] z = MatMul (c, w3)
}"""


def network() -> ir.Model:
    weights = {
        "w1": normal(16, 32), "b1": normal(32), "w2": normal(32, 24, seed=1), "b2": normal(24), "w3": normal(32, 24),
    }  # fmt: skip
    return build(TEXT, weights)


FEEDS = [{"x": normal(20, 16, seed=i) + np.float32(1)} for i in range(6)]
DATA = DataSet(lambda: FEEDS)


class Spy:
    """Gives the weights back as they are, or zero, and remembers what it was shown."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor
        self.seen: dict[str, Array] = {}

    def __call__(self, layer: Layer, weight: Array, second: Array) -> Array:
        self.seen[layer.name] = second[0]
        return weight * self.factor


def stacked(model: ir.Model, name: str) -> Array:
    return np.concatenate([observe(model, feed, [name])[name] for feed in FEEDS]).astype(np.float64)


def test_every_layer_sees_the_moments_of_its_input() -> None:
    model, spy = network(), Spy()
    layers, _ = find_layers(model)
    rows = solve_layers(model, layers, DATA, spy, correct_bias=False)
    assert rows == {"first": 120, "left": 120, "right": 120}
    assert not scarcity(layers, rows)
    (note,) = scarcity(layers, {**rows, "left": 31})
    assert note.startswith("1 layers were solved on fewer rows than they have inputs (left: 31 of 32)")
    assert list(spy.seen) == ["first", "left", "right"]
    c = stacked(model, "c")
    for name in ("left", "right"):
        assert np.allclose(spy.seen[name], c.T @ c / len(c), rtol=1e-4, atol=1e-4)
    assert all(np.array_equal(execute(model, f)[0], execute(network(), f)[0]) for f in FEEDS)


def test_later_layers_see_the_earlier_ones_changed() -> None:
    model, spy = network(), Spy(0.5)
    layers, _ = find_layers(model)
    solve_layers(model, layers, DATA, spy, correct_bias=False)
    halved = network()
    halved.graph.initializers["w1"].const_value = ir.tensor(normal(16, 32) / 2, name="w1")
    c, before = stacked(halved, "c"), stacked(network(), "c")
    assert np.allclose(spy.seen["left"], c.T @ c / len(c), rtol=1e-4, atol=1e-4)
    assert not np.allclose(spy.seen["left"], before.T @ before / len(before), rtol=0.1)
    together = Spy(0.5)
    solve_layers(network(), layers, DATA, together, correct_bias=False, most_passes=1)
    assert np.allclose(together.seen["left"], before.T @ before / len(before), rtol=1e-4, atol=1e-4)


def test_biases_take_up_the_mean() -> None:
    """With weights of zero, what is left of a layer is the mean of its output."""
    model, spy = network(), Spy(0.0)
    layers, _ = find_layers(model)
    solve_layers(model, [layer for layer in layers if layer.name == "first"], DATA, spy)
    b = stacked(network(), "b")
    assert np.allclose(stacked(model, "b"), b.mean(axis=0), atol=1e-4)
    x = stacked(network(), "x")
    assert np.allclose(spy.seen["first"], np.cov(x.T, bias=True), atol=1e-4)
    # A MatMul without an Add has no bias to move: its output is zero, and no node was added.
    solve_layers(model, [layer for layer in layers if layer.name == "right"], DATA, Spy(0.0))
    assert len(list(model.graph)) == 5 and not execute(model, FEEDS[0])[1].any()


def test_which_nodes_take_a_bias() -> None:
    model = network()
    assert [takes_bias(node_named(model, name)) for name in ("first", "left", "right")] == [True, True, False]
    text = "agraph (float[2,4] x, float[4] p) => (float[2,4] y) {{ [a] y = Gemm <{}> (x, w{}) }}"
    for attributes, bias, wanted in [
        ("alpha = 2.0", "", False), ("beta = 0.5", ", b", False), ("transB = 1", ", b", True), ("transB = 1", "", True),
        ("transB = 1", ", p", False), ("transB = 1", ", rows", False),
    ]:  # fmt: skip
        weights = {"w": normal(4, 4), "b": normal(4), "rows": normal(2, 4)}
        model = build(text.format(attributes, bias), weights)
        assert takes_bias(node_named(model, "a")) is wanted


@pytest.mark.parametrize("pattern", ["2:4", "block4x4"])
def test_a_pruned_model_beats_its_plain_mask(pattern: str) -> None:
    model = network()
    layers, _ = find_layers(model)
    step = PruneLayers(GRIDS[pattern], {layer.name: 0.5 for layer in layers})
    solve_layers(model, layers, DATA, step)
    plain = network()
    for layer in layers:
        pruned, value = (m.graph.initializers[layer.weight] for m in (model, plain))
        assert pruned.const_value is not None and value.const_value is not None
        masked = np.where(pruned.const_value.numpy() != 0, value.const_value.numpy(), 0)
        value.const_value = ir.tensor(masked, name=layer.weight)
    held_out = {"x": normal(200, 16, seed=99) + np.float32(1)}
    wanted = execute(network(), held_out)
    errors = [relative(execute(m, held_out)[0], wanted[0]) for m in (model, plain)]
    assert errors[0] < 0.8 * errors[1]
    assert set(step.errors) == {"first", "left", "right"}


def test_stages() -> None:
    layers = [Layer(f"l{i}", "MatMul", f"w{i}", f"x{i // 2}", 100, 10) for i in range(8)]
    assert [[layer.name for layer in stage] for stage in divide(layers)] == [
        ["l0", "l1"], ["l2", "l3"], ["l4", "l5"], ["l6", "l7"],
    ]  # fmt: skip
    assert [len(stage) for stage in divide(layers, 2)] == [4, 4]
    assert [len(stage) for stage in divide(layers, 1)] == [8]
    assert [len(stage) for stage in divide(layers, 1, limit=2 * 8 * 100 * 100)] == [4, 4]
    assert divide([]) == []


def test_layers_with_too_many_inputs_are_told_apart() -> None:
    assert solvable(Layer("l", "Conv", "w", "x", MOST_INPUTS, 4)) is None
    assert "too many" in (solvable(Layer("l", "Conv", "w", "x", MOST_INPUTS + 1, 4)) or "")


def test_data_that_will_not_do() -> None:
    model = network()
    layers, _ = find_layers(model)
    with pytest.raises(CalibrationError, match="no feeds"):
        solve_layers(model, layers, DataSet(lambda: []), Spy())
    broken = {"x": np.full((2, 16), np.nan, np.float32)}
    with pytest.raises(CalibrationError, match="'x' holds NaN at sample 0"):
        solve_layers(model, layers, DataSet(lambda: [broken]), Spy())
