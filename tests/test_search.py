"""The search, with speeds and scores given by the test instead of measured, so that its choices are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import onnxcompress
from onnxcompress import operator_times
from onnxcompress import search as search_module
from onnxcompress import workbench as workbench_module
from onnxcompress.budget import Budget
from onnxcompress.data import open_data
from onnxcompress.errors import CalibrationError, EvaluationError, ModelError
from onnxcompress.evaluation import Score
from onnxcompress.passes.lower import native_nodes, replaced_nodes
from onnxcompress.recipe import Recipe, finish
from onnxcompress.runtime import library, open_session
from onnxcompress.search import Search
from onnxcompress.workbench import Candidate, Workbench
from tests.models import encoder, images, wide_cnn

Speed = Callable[[Recipe], float]
Array = np.ndarray[Any, Any]


@dataclass
class Fixed:
    """An evaluator whose original scores 1."""

    original: Score = Score(1.0, "score")  # noqa: RUF009
    key: str = "fixed"

    def score(self, session: object) -> Score:
        raise AssertionError("scores are given")


class Bench(Workbench):
    """Speeds by recipe."""

    speed: Speed

    def timed(self, candidate: Candidate) -> Candidate:
        with self.step("time"):
            candidate.speedup = self.speed(candidate.recipe)
            self._remember(candidate)
        return candidate


def tokens(count: int) -> list[dict[str, Array]]:
    rng = np.random.default_rng(0)
    return [{"x": rng.normal(size=(1, 16, 64)).astype(np.float32)} for _ in range(count)]


def searched(
    speed: Speed, score: Speed, *, model: ir.Model | None = None, budget: float | None = None, max_drop: float = 0.01
) -> Search:
    model = model or wide_cnn()
    feeds = tokens(6) if model.graph.name == "encoder" else images(6, 32)
    bench = Bench(
        source=model, original=open_session(model), evaluator=Fixed(), max_drop=max_drop,
        data=open_data(feeds, model), feeds=feeds[:2],
        scored=lambda recipe, key, measure: Score(score(recipe), "score"),
    )  # fmt: skip
    if budget is not None:
        bench.budget = Budget(budget)
    bench.speed = speed
    search = Search(bench, Recipe())
    search.run()
    return search


def by_mode(**values: float) -> Speed:
    return lambda recipe: values[recipe.mode]


def perfect(recipe: Recipe) -> float:
    return 1.0


@pytest.fixture(autouse=True)
def no_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    """No node is slower in int8, and there are no native operators, unless a test says so."""
    for module in (search_module, operator_times):
        monkeypatch.setattr(module, "node_times", lambda *args, **kwargs: {})
    monkeypatch.setattr(search_module, "library_path", lambda: None)


def best(search: Search) -> Candidate:
    assert search.best is not None
    return search.best


@pytest.mark.parametrize(
    ("speeds", "mode"),
    [
        ({"float": 1.1, "static": 3.0, "dynamic": 1.5}, "static"),
        ({"float": 1.1, "static": 1.2, "dynamic": 2.0}, "dynamic"),
        ({"float": 1.1, "static": 0.5, "dynamic": 0.2}, "float"),
        ({"float": 1.1, "static": 1.12, "dynamic": 1.1}, "static"),
    ],
)
def test_the_fastest_that_holds_is_kept(speeds: dict[str, float], mode: str) -> None:
    search = searched(by_mode(**speeds), perfect)
    assert best(search).recipe.mode == mode
    assert not search.cut_short


def test_what_was_slower_is_told() -> None:
    search = searched(by_mode(float=1.1, static=0.5, dynamic=0.2), perfect)
    assert any("x0.50 the original's speed, no faster than optimized float (x1.10)" in n for n in search.bench.notes)
    assert any(note.startswith("dynamic int8: x0.20") for note in search.bench.notes)


def test_other_ranges_are_tried_until_no_accuracy_is_lost() -> None:
    scores = {"": 1.0, "mse": 0.5, "minmax": 1.0, "percentile": 0.9}
    search = searched(by_mode(float=1, static=3, dynamic=1), lambda recipe: scores[recipe.method])
    assert best(search).recipe.method == "minmax"
    assert "percentile" not in {candidate.recipe.method for candidate in search.bench.tried}


def test_repairs_are_tried_only_below_the_bound() -> None:
    def score(recipe: Recipe) -> float:
        return 1.0 if recipe.equalize or recipe.mode == "float" else 0.985

    held = searched(by_mode(float=1, static=3, dynamic=1), score, max_drop=0.02)
    assert not any(candidate.recipe.equalize for candidate in held.bench.tried)
    assert best(held).recipe.mode == "static"
    assert best(searched(by_mode(float=1, static=3, dynamic=1), score)).recipe.equalize


def test_repairs_are_timed_again() -> None:
    def speed(recipe: Recipe) -> float:
        return 2.5 if recipe.equalize else 3.0 if recipe.mode == "static" else 1.0

    search = searched(speed, lambda recipe: 1.0 if recipe.equalize or recipe.mode == "float" else 0.5)
    assert best(search).speedup == 2.5


def test_smoothing_is_tried_where_layers_are_normalized() -> None:
    def score(recipe: Recipe) -> float:
        return 1.0 if recipe.smooth is not None or recipe.mode == "float" else 0.5

    search = searched(by_mode(float=1, static=3, dynamic=1), score, model=encoder())
    assert best(search).recipe.smooth == search_module.SMOOTHING
    assert list(best(search).recipe.channels) == ["n"]


def sensitive_to(*names: str) -> Speed:
    """The bound holds when all these layers are float."""
    return lambda recipe: 1.0 if recipe.mode == "float" or set(names) <= set(recipe.exclude) else 0.5


@pytest.mark.parametrize("harmful", [("c2",), ("c1", "c3"), ("c1", "c2", "c3")])
def test_harmful_layers_are_put_back_to_float(harmful: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    others = [name for name in ("c1", "c2", "c3", "fc") if name not in harmful]
    monkeypatch.setattr(search_module, "sensitivity", lambda *args, **kwargs: [*harmful, *others])
    search = searched(by_mode(float=1, static=3, dynamic=0.5), sensitive_to(*harmful))
    assert dict(best(search).recipe.exclude) == dict.fromkeys(harmful, "sensitive")
    assert best(search).value == 1.0
    assert any("below the bound 0.99" in note for note in search.bench.notes)
    reasons = {d.name: d.reason for d in best(search).decisions}
    assert reasons[harmful[0]] == "quantizing it costs too much accuracy"


def test_when_nothing_int8_holds_the_float_model_is_kept() -> None:
    search = searched(by_mode(float=1.1, static=3, dynamic=2), lambda recipe: float(recipe.mode == "float"))
    assert best(search).recipe.mode == "float"
    assert "static int8 (mse ranges): no selection of layers holds the bound" in search.bench.notes


def test_when_nothing_holds_there_is_no_result() -> None:
    search = searched(by_mode(float=1.1, static=3, dynamic=2), lambda recipe: 0.5)
    assert search.best is None
    assert "optimized float: score 0.5, below the bound 0.99" in search.bench.notes


def test_nodes_slower_in_int8_stay_float(monkeypatch: pytest.MonkeyPatch) -> None:
    def times(model: ir.Model, *args: object, **kwargs: object) -> dict[str, float]:
        int8 = any(node.op_type == "QuantizeLinear" for node in model.graph)
        return {"c1": 2.0 if int8 else 1.0, "c2": 1.0 if int8 else 3.0}

    monkeypatch.setattr(search_module, "node_times", times)
    search = searched(lambda recipe: {0: 2.0, 1: 3.0}[len(recipe.exclude)] if recipe.mode == "static" else 1.0, perfect)
    assert dict(best(search).recipe.exclude) == {"c1": "slow"}
    assert search.times == {"float": {"c1": 1.0, "c2": 3.0}, "static int8": {"c1": 2.0, "c2": 1.0}}
    slower = searched(lambda recipe: 2.0 / (1 + len(recipe.exclude)) if recipe.mode == "static" else 0.5, perfect)
    assert not best(slower).recipe.exclude, "kept only if the whole model gains"


def test_a_candidate_that_cannot_be_built_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:

    def broken(prepared: ir.Model, recipe: Recipe) -> Any:
        if recipe.mode == "static":
            raise ModelError("it does not open")
        return finish(prepared, recipe)

    monkeypatch.setattr(workbench_module, "finish", broken)
    search = searched(by_mode(float=1.0, static=3.0, dynamic=2.0), perfect)
    assert best(search).recipe.mode == "dynamic"
    assert "a candidate was given up: it does not open" in search.bench.notes


def test_a_candidate_that_makes_the_evaluation_fail_is_rejected() -> None:
    def score(recipe: Recipe) -> float:
        if recipe.mode != "float":
            raise EvaluationError("--eval f failed: ValueError: NaN")
        return 1.0

    search = searched(by_mode(float=1.0, static=3.0, dynamic=2.0), score)
    assert best(search).recipe.mode == "float"
    assert "dynamic int8: --eval f failed: ValueError: NaN" in search.bench.notes
    assert all(c.summary()["score"] in (None, 1.0) for c in search.bench.tried)


def test_data_that_cannot_be_calibrated_on_is_an_error() -> None:
    model = wide_cnn()
    bad = images(6, 32)
    bad[4]["x"][0, 0, 0, 0] = np.nan
    bench = Bench(
        source=model, original=open_session(model), evaluator=Fixed(), max_drop=0.01, data=open_data(bad, model),
        feeds=bad[:1], scored=lambda recipe, key, measure: Score(1.0, "score"),
    )  # fmt: skip
    bench.speed = by_mode(float=1, static=2, dynamic=1)
    with pytest.raises(CalibrationError, match="NaN at sample 4"):
        Search(bench, Recipe()).run()


def test_without_time_nothing_is_begun() -> None:
    search = searched(by_mode(float=1.0, static=3.0, dynamic=2.0), perfect, budget=0.0)
    assert search.best is None
    assert search.cut_short
    assert not search.bench.tried


def test_with_time_for_few_scores_int8_comes_first() -> None:
    scored: list[str] = []

    def score(recipe: Recipe) -> float:
        scored.append(recipe.mode)
        return 1.0

    model = wide_cnn()
    feeds = images(6, 32)
    bench = Bench(
        source=model, original=open_session(model), evaluator=Fixed(), max_drop=0.01, data=open_data(feeds, model),
        feeds=feeds[:1], budget=Budget(60), costs={"score": 11.0},
        scored=lambda recipe, key, measure: Score(score(recipe), "score"),
    )  # fmt: skip
    bench.speed = by_mode(float=1, static=2, dynamic=1)
    search = Search(bench, Recipe())
    search.run()
    assert best(search).recipe.mode == "static"
    assert "float" not in scored


def test_tensors_that_are_always_empty_keep_their_node_float() -> None:
    text = """<ir_version: 10, opset_import: ["": 21]>
    g (float[N, 3, 32, 32] x) => (float[M, 4] y, float[N, 4] z)
    <float[3, 4] w = {1,2,3,4,5,6,7,8,9,10,11,12}, int64[1] zero = {0}> {
        p = GlobalAveragePool (x)
        f = Flatten (p)
        e = Slice (f, zero, zero, zero)
        [empty] y = MatMul (e, w)
        [full] z = MatMul (f, w)
    }"""
    search = searched(by_mode(float=1.0, static=3.0, dynamic=0.5), perfect, model=ir.from_onnx_text(text))
    assert best(search).recipe.exclude["empty"] == "range"
    assert "full" not in best(search).recipe.exclude
    (reason,) = [d.reason for d in best(search).decisions if d.name == "empty"]
    assert reason.startswith("no range could be taken")


# -- native operators ---------------------------------------------------------------------------------------------


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library is there."""
    monkeypatch.setattr(search_module, "library_path", library.library_path)


def by_kind(native: float, static: float) -> Speed:
    return lambda recipe: 1.0 if recipe.mode != "static" else native if recipe.native else static


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize(("speeds", "wins"), [((4.0, 2.0), True), ((1.5, 2.0), False)])
def test_native_operators_are_kept_where_they_are_faster(speeds: tuple[float, float], wins: bool) -> None:
    found = best(searched(by_kind(*speeds), perfect))
    assert found.recipe.native == wins
    assert bool(native_nodes(found.model)) == wins


@pytest.mark.usefixtures("native")
def test_native_operators_hold_the_bound_or_are_not_kept() -> None:
    found = best(searched(by_kind(4.0, 2.0), lambda recipe: 0.5 if recipe.native else 1.0))
    assert found.recipe.mode == "static" and not found.recipe.native


@pytest.mark.usefixtures("native")
def test_a_portable_recipe_has_none() -> None:
    search = Search(searched(by_kind(4.0, 2.0), perfect).bench, Recipe(portable=True))
    assert search.try_native(Recipe(portable=True)) is None


@pytest.mark.usefixtures("native")
def test_native_operators_that_are_slower_than_what_they_replace_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def times(model: ir.Model, *args: object, **kwargs: object) -> dict[str, float]:
        slow = {"c2"} if native_nodes(model) else set()
        names = [node.name or "" for node in model.graph]
        return {name: 9.0 if slow & set(name.split("/")) else 1.0 for name in names}

    monkeypatch.setattr(operator_times, "node_times", times)
    speed = by_kind(4.0, 2.0)
    search = searched(lambda recipe: speed(recipe) + len(recipe.standard), perfect)
    found = best(search)
    assert "c2" in found.recipe.standard
    assert all("c2" not in replaced_nodes(node) for node in native_nodes(found.model))
    assert any("c3" in replaced_nodes(node) for node in native_nodes(found.model))


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("gains", [True, False])
def test_zeros_are_multiplied_where_skipping_them_is_slower(monkeypatch: pytest.MonkeyPatch, gains: bool) -> None:
    def times(model: ir.Model, *args: object, **kwargs: object) -> dict[str, float]:
        return {
            node.name or "": 2.0 if node.op_type == "QSparseConv" and "c2" in replaced_nodes(node) else 1.0
            for node in model.graph
        }

    monkeypatch.setattr(operator_times, "node_times", times)
    speed = by_kind(4.0, 2.0)
    model = onnxcompress.prune(wide_cnn(), pattern="block4x4", sparsity=0.8).model
    change = 1.0 if gains else -1.0
    found = best(searched(lambda recipe: speed(recipe) + change * len(recipe.dense), perfect, model=model))
    kinds = {next(iter(replaced_nodes(node)), ""): node.op_type for node in native_nodes(found.model)}
    assert kinds["c3"] == "QSparseConv"
    assert kinds["c2"] == ("QConv" if gains else "QSparseConv") and len(found.recipe.dense) == gains


@pytest.mark.usefixtures("native")
def test_attention_is_measured_for_native_operators() -> None:
    found = best(searched(by_kind(4.0, 2.0), perfect, model=encoder()))
    assert found.recipe.native
    assert {node.op_type for node in native_nodes(found.model)} & {"QLinear", "QLinearLayerNorm"}
