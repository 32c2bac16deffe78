"""Following data movement by trying it, and rows that are certainly the same."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxcompress.passes.lower.transformer.moves import evaluate, leaves, path_to, trials
from onnxcompress.passes.lower.transformer.rows import same_rows, same_shape
from tests.passes.lower_transformer.graphs import K, graph


def value(made: ir.Model, name: str) -> ir.Value:
    found = {v.name: v for v in made.graph.inputs} | {out.name: out for node in made.graph for out in node.outputs}
    return found[name]


def test_a_path_goes_through_movements_and_factors() -> None:
    made = graph(
        f"float[B, S, {K}] x", f"float[S, B, {K}] y",
        "r = Relu (x) t = Transpose <perm = [1, 0, 2]> (r) m = Mul (t, half) u = Unsqueeze (m, i0) y = Squeeze (u, i0)",
    )  # fmt: skip
    path = path_to(value(made, "y"))
    assert path.source is value(made, "r") and path.factor == 0.5
    assert [node.op_type for node in path.nodes] == ["Transpose", "Mul", "Unsqueeze", "Squeeze"]
    numbers = np.arange(2 * 3 * K).reshape(2, 3, K)
    found = evaluate(value(made, "y"), {path.source: numbers}, {"B": 2, "S": 3}, path.nodes)
    np.testing.assert_array_equal(found, numbers.transpose(1, 0, 2))


def test_a_number_divided_by_a_tensor_is_no_factor() -> None:
    made = graph(f"float[B, {K}] x", f"float[B, {K}] y", "y = Div (half, x)")
    assert not path_to(value(made, "y")).nodes


def test_shapes_are_computed_from_sizes_and_sizes_that_do_not_fit_give_nothing() -> None:
    made = graph(
        f"float[B, S, {K}] x", "float[T, 4] y",
        "s = Shape <start = 0, end = 1> (x) t = Concat <axis = 0> (s, last) y = Reshape (x, t)",
    )  # fmt: skip
    x, y = value(made, "x"), value(made, "y")
    numbers = np.arange(2 * 3 * K).reshape(2, 3, K)
    found = evaluate(y, {x: numbers}, {"B": 2, "S": 3})
    assert found is not None and found.shape == (2, 3 * K)
    assert evaluate(y, {x: numbers}, {"B": 5, "S": 3}) is None
    assert evaluate(y, {x: numbers}, {}) is None


def test_other_operators_cannot_be_told() -> None:
    made = graph(f"float[B, {K}] x", f"float[B, {K}] y", "r = Relu (x) y = Identity (r)")
    x, y = value(made, "x"), value(made, "y")
    assert evaluate(y, {x: np.ones((2, K))}, {"B": 2}) is None
    assert leaves(y) == [value(made, "r")]


def test_trials_keep_known_dimensions() -> None:
    made = graph("float[4, S, 8] x, float[S, S] z", "float[4, S, 8] y", "y = Relu (x)")
    assert [sizes for sizes, _ in trials(value(made, "x"))] == [(4, 3), (4, 7)]
    assert all(a == b for (a, b), _ in trials(value(made, "z")))


def test_rows_are_followed_through_what_keeps_them() -> None:
    made = graph(
        f"float[B, S, {K}] x, float[A, C, {K}] z", f"float[B, S, {K}] y",
        "m = MatMul (x, wide2) s = Add (m, wide) g = Gelu (s) t = Transpose <perm = [1, 0, 2]> (g) y = Add (x, g)",
    )  # fmt: skip
    x, g, z = value(made, "x"), value(made, "g"), value(made, "z")
    assert same_rows(x, g) and not same_rows(x, z) and not same_rows(x, value(made, "t"))
    for node in made.graph:
        for out in node.outputs:
            out.shape = None
    assert same_rows(value(made, "y"), g) and not same_shape(x, g)  # the last dimension is not known any more
