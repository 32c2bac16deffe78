"""Scores: agreement against hand-computed numbers, what `auto` chooses, and evaluation functions that misbehave."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxcompress import evaluation
from onnxcompress.data import open_data
from onnxcompress.errors import EvaluationError
from onnxcompress.evaluation import (
    Agreement,
    Metric,
    UnsteadyDataError,
    UserEvaluator,
    agreement,
    lower_bound,
    relative_error,
)
from onnxcompress.runtime import open_session

Array = np.ndarray[Any, Any]
HEADER = '<ir_version: 10, opset_import: ["": 21]> g '
DOUBLE = HEADER + "(float[N, 4] x) => (float[N, 4] y) { y = Add(x, x) }"


def array(*values: float) -> Array:
    return np.array(values, np.float32)


def feeds(count: int = 5, width: int = 4) -> list[dict[str, Array]]:
    rng = np.random.default_rng(0)
    return [{"x": rng.normal(size=(2, width)).astype(np.float32)} for _ in range(count)]


def compared(text: str, metric: Metric = "auto", data: Any = None) -> Agreement:
    model = ir.from_onnx_text(text)
    return Agreement(open_session(model), model, open_data(data or feeds(), model), metric)


# -- one pair of arrays ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "found", "metric", "value"),
    [
        (array(3, 4), array(4, 3), "cosine", 24 / 25),
        (array(3, 4), array(-3, -4), "cosine", -1.0),
        (array(3, 4), array(3, 3), "snr", 1 - 1 / 25),
        (array(3, 4), array(0, 0), "snr", 0.0),
        (array([1, 2], [2, 1], [0, 5], [7, 6]), array([0, 1], [0, 1], [2, 3], [1, 0]), "top1", 0.75),  # type: ignore[arg-type]
        (array(0, 0), array(0, 0), "cosine", 1.0),
        (array(0, 0), array(0, 1), "cosine", 0.0),
        (array(0, 0), array(0, 1), "snr", 0.0),
        (array(), array(), "cosine", 1.0),
        (array(1, 2), array(1, 2, 3), "cosine", 0.0),
        (array(1, 2), array(1, math.nan), "cosine", 0.0),
        (array(1, -math.inf), array(2, -math.inf), "cosine", 1.0),
        (array(1, math.nan), array(1, 2), "snr", 0.0),
        (array(-math.inf, math.nan), array(-math.inf, math.nan), "cosine", 1.0),
    ],
)
def test_agreement_of_two_arrays(wanted: Array, found: Array, metric: str, value: float) -> None:
    assert agreement(wanted, found, metric) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("metric", ["cosine", "snr"])
def test_large_numbers_do_not_overflow(metric: str) -> None:
    big = np.array([1e300, -1e300])
    assert agreement(big, big, metric) == pytest.approx(1.0)


def test_relative_error_is_the_worst_output() -> None:
    assert relative_error([array(3, 4), array(1)], [array(3, 3), array(1)]) == pytest.approx(0.2)
    assert relative_error([array(0, 0)], [array(0, 2)]) == 2.0
    assert relative_error([array(1, 2)], [array(1)]) == math.inf
    assert relative_error([array(1)], [array(math.nan)]) == math.inf
    assert relative_error([np.array([1])], [np.array([2])]) == 0.0, "integers are not compared"


@pytest.mark.parametrize(("original", "bound"), [(10.0, 9.9), (-10.0, -10.1), (0.0, 0.0)])
def test_the_bound_lies_below_scores_of_either_sign(original: float, bound: float) -> None:
    assert lower_bound(original, 0.01) == pytest.approx(bound)


# -- a model against the original -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("graph", "name"),
    [
        ("(float[N, 4] x) => (float[N, 4] y) { y = Softmax(x) }", "top1 of y"),
        ("(float[N, 4] x) => (float[N, 4] y) { s = LogSoftmax(x) y = Identity(s) }", "top1 of y"),
        ("(float[N, 4] x) => (float[N, 4] y, int64[N, 1] c) { y = Add(x, x) c = ArgMax<axis = 1>(y) }", "top1 of y"),
        ("(float[N, 4] x) => (float[N, 4] y) { y = Add(x, x) }", "cosine of y"),
        ("(float[N, 4] x) => (float[N, 4] y) { y = Softmax<axis = 0>(x) }", "cosine of y"),
        ("(float[N, 4] x) => (float[N, 4] y, int64[1, 4] c) { y = Add(x, x) c = ArgMax(y) }", "cosine of y"),
    ],
)
def test_auto_takes_top1_where_the_largest_element_is_what_counts(graph: str, name: str) -> None:
    assert compared(HEADER + graph).original.name == name


@pytest.mark.parametrize("metric", ["auto", "top1"])
def test_an_output_of_one_column_is_compared_by_cosine(metric: Metric) -> None:
    text = HEADER + "(float[N, C] x) => (float[N, C] y) { y = Softmax(x) }"
    assert compared(text, metric, feeds(width=1)).original.value == 1.0
    model = ir.from_onnx_text(text)
    evaluator = Agreement(open_session(model), model, open_data(feeds(width=1), model), metric)
    assert evaluator.score(open_session(model)).name == "cosine of y"


def test_the_worst_output_counts_and_is_named() -> None:
    text = HEADER + "(float[N, 4] x) => (float[N, 4] good, float[N, 4] bad) { good = Add(x, x) bad = Mul(x, x) }"
    other = HEADER + "(float[N, 4] x) => (float[N, 4] good, float[N, 4] bad) { good = Add(x, x) bad = Add(x, x) }"
    evaluator = compared(text, "cosine")
    expected = np.mean([agreement(f["x"] * f["x"], f["x"] + f["x"], "cosine") for f in feeds()])
    score = evaluator.score(open_session(ir.from_onnx_text(other)))
    assert score.name == "cosine of bad"
    assert score.value == pytest.approx(expected, abs=1e-6)


def test_outputs_beyond_the_memory_limit_are_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = compared(DOUBLE).score(open_session(ir.from_onnx_text(DOUBLE.replace("Add", "Mul"))))
    monkeypatch.setattr(evaluation, "REFERENCE_BYTES", 40)
    again = compared(DOUBLE).score(open_session(ir.from_onnx_text(DOUBLE.replace("Add", "Mul"))))
    assert kept == again
    assert kept.value < 0.99


def test_the_original_agrees_with_itself_to_the_last_digit() -> None:
    assert compared(DOUBLE).score(open_session(ir.from_onnx_text(DOUBLE))).value == 1.0


def test_integers_alone_cannot_be_compared() -> None:
    with pytest.raises(EvaluationError, match="no float outputs to compare; give --eval"):
        compared(HEADER + "(float[N, 4] x) => (int64[N, 1] c) { c = ArgMax<axis = 1>(x) }")


def test_no_feeds_are_an_error() -> None:
    with pytest.raises(EvaluationError, match="no feeds to measure on"):
        compared(DOUBLE, data=lambda: iter(()))


def test_data_that_changes_is_an_error() -> None:
    rng = np.random.default_rng()

    def unseeded() -> Iterator[dict[str, Array]]:
        for _ in range(3):
            yield {"x": rng.normal(size=(1, 4)).astype(np.float32)}

    evaluator = compared(DOUBLE, data=unseeded)
    with pytest.raises(UnsteadyDataError, match="seed its random numbers"):
        evaluator.score(open_session(ir.from_onnx_text(DOUBLE)))


def test_data_that_shrinks_is_an_error() -> None:
    held = feeds()
    evaluator = compared(DOUBLE, data=lambda: list(held))
    held.pop()
    with pytest.raises(UnsteadyDataError):
        evaluator.score(open_session(ir.from_onnx_text(DOUBLE)))


def test_keys_tell_data_and_metrics_apart() -> None:
    keys = {compared(DOUBLE).key, compared(DOUBLE, "snr").key, compared(DOUBLE, data=feeds(3)).key}
    assert len(keys) == 3
    assert compared(DOUBLE).key in keys


# -- the user's function --------------------------------------------------------------------------------------


def user(function: Callable[..., Any]) -> UserEvaluator:
    return UserEvaluator(function, open_session(ir.from_onnx_text(DOUBLE)))


def test_a_function_gets_run_and_gives_the_score() -> None:
    def mean(run: Callable[[dict[str, Array]], list[Array]]) -> np.float32:
        return run({"x": np.ones((1, 4), np.float32)})[0].mean()  # type: ignore[no-any-return]

    assert user(mean).original == evaluation.Score(2.0, "mean")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "gave None, not a number"),
        ("high", "gave 'high', not a number"),
        (math.nan, "gave nan, not a finite score"),
        (math.inf, "gave inf, not a finite score"),
    ],
)
def test_what_is_no_score_is_refused(value: Any, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        user(lambda run: value)


@pytest.mark.parametrize("error", [ValueError("two\nlines"), SystemExit("two\nlines")])
def test_a_function_that_raises_is_named_in_one_line(error: BaseException) -> None:
    def broken(run: object) -> float:
        raise error

    with pytest.raises(EvaluationError, match=r"--eval broken failed: \w+: two lines$"):
        user(broken)


def test_ctrl_c_passes_through_a_function() -> None:
    def interrupted(run: object) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        user(interrupted)


@pytest.mark.parametrize("spec", ["{0}/none.py:f", "{0}/e.py:missing", "{0}/e.py"])
def test_a_function_that_is_not_there(tmp_path: Path, spec: str) -> None:
    (tmp_path / "e.py").write_text("def score(run): return 1.0\n")
    session = open_session(ir.from_onnx_text(DOUBLE))
    assert UserEvaluator(f"{tmp_path}/e.py:score", session).original.value == 1.0
    with pytest.raises(EvaluationError, match="--eval: "):
        UserEvaluator(spec.format(tmp_path), session)
