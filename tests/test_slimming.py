"""Pruned models in the search of `compress`: what is tried, tuned, taken and given up; and one real run, replayed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from onnxcompress import operator_times
from onnxcompress import search as search_module
from onnxcompress import slimming as slimming_module
from onnxcompress.budget import Budget
from onnxcompress.data import open_data
from onnxcompress.delivery import Delivery
from onnxcompress.errors import CalibrationError, CompressError
from onnxcompress.evaluation import Metric, Score
from onnxcompress.model_io import Source, load_model
from onnxcompress.pipeline import compress
from onnxcompress.recipe import Recipe, to_toml
from onnxcompress.runtime import open_session
from onnxcompress.search import Search
from onnxcompress.slim import Slim
from onnxcompress.slimming import Slimming, Tuning
from onnxcompress.workbench import Candidate, Workbench
from tests.models import images, wide_cnn

pytest.importorskip("torch", reason="distillation")
Speed = Callable[[Recipe], float]


@dataclass
class Bench(Workbench):
    """Speeds by recipe."""

    speed: Speed = lambda recipe: 1.0

    def timed(self, candidate: Candidate) -> Candidate:
        with self.step("time"):
            candidate.speedup = self.speed(candidate.recipe)
            self._remember(candidate)
        return candidate


@dataclass
class Fixed:
    """An evaluator whose original scores 1."""

    original: Score = field(default_factory=lambda: Score(1.0, "score"))
    key: str = "fixed"

    def score(self, session: object) -> Score:
        raise AssertionError("scores are given")


@dataclass
class Outcome:
    """What a distillation gives, as far as it is looked at."""

    model: ir.Model
    metric: str = "score"
    start: float | None = 0.2
    score: float | None = 0.9
    interrupted: bool = False


@dataclass(frozen=True)
class GivenTuning(Tuning):
    """Prunes and trains nothing."""

    log: list[Slim] = field(default_factory=list)
    interrupted: bool = False
    slow: int = 0
    fails: bool = False
    seconds: float = 1.0

    def pruned(self, slim: Slim) -> ir.Model:
        for index in range(self.slow):
            time.sleep(0.2)
            self.progress("pruning", index, None)
        if self.fails:
            raise CalibrationError("activations are not finite")
        return wide_cnn()

    def tuned(self, model: Source, slim: Slim) -> Any:
        self.log.append(slim)
        return Outcome(load_model(model), interrupted=self.interrupted)

    def step_seconds(self, model: Source, slim: Slim) -> float:
        return self.seconds


LEVELS = (Slim("block4x4", sparsity=0.8), Slim("block4x4", sparsity=0.5))


def slimmed(
    speed: Speed, score: Speed, *, levels: Sequence[Slim] = LEVELS, **options: Any
) -> tuple[Slimming, list[Slim]]:
    """A slimming that is over, and what it tuned."""
    slimming, log = made(speed, score, **options)
    slimming.run(levels)
    return slimming, log


def made(
    speed: Speed, score: Speed, *, budget: float | None = None, **tuning_options: Any
) -> tuple[Slimming, list[Slim]]:
    model, feeds = wide_cnn(), images(6, 32)
    bench = Bench(
        source=model, original=open_session(model), evaluator=Fixed(), max_drop=0.01, data=open_data(feeds, model),
        feeds=feeds[:2], scored=lambda recipe, key, measure: Score(score(recipe), "score"),
        speed=speed,
    )  # fmt: skip
    if budget is not None:
        bench.budget = Budget(budget)
    tuning = GivenTuning(Path("none.onnx"), bench.data, **tuning_options)
    return Slimming(Search(bench, Recipe()), tuning), tuning.log


@pytest.fixture
def standard(monkeypatch: pytest.MonkeyPatch) -> None:
    """No node is slower in int8, and there are no native operators."""
    for module in (search_module, operator_times):
        monkeypatch.setattr(module, "node_times", lambda *args, **kwargs: {})
    monkeypatch.setattr(search_module, "library_path", lambda: None)


def speed(recipe: Recipe) -> float:
    """Static int8 is twice as fast, and pruned in proportion to what is left."""
    dense = {"float": 1.0, "static": 2.0, "dynamic": 0.5}[recipe.mode]
    return dense / (1 - float(recipe.slim.get("sparsity", 0)))


def score(enough: float) -> Speed:
    """Untuned models are bad, tuned ones good up to a sparsity."""

    def value(recipe: Recipe) -> float:
        if not recipe.slim:
            return 1.0
        return 1.0 if recipe.slim["steps"] and float(recipe.slim["sparsity"]) <= enough else 0.3

    return value


pytestmark = pytest.mark.usefixtures("standard")


def best(slimming: Slimming) -> Recipe:
    found = slimming.outcome.best
    assert found is not None
    return found.recipe


def test_the_fastest_level_that_holds_is_taken() -> None:
    slimming, tuned = slimmed(speed, score(0.8))
    assert [slim.sparsity for slim in tuned] == [0.8]
    assert best(slimming).mode == "static" and best(slimming).slim["sparsity"] == 0.8
    assert best(slimming).slim["steps"] == tuned[0].steps > 100
    assert any("score 0.2 -> 0.9 in float" in note for note in slimming.outcome.bench.notes)


def test_a_milder_level_is_tried_where_the_first_does_not_hold() -> None:
    slimming, tuned = slimmed(speed, score(0.5))
    assert [slim.sparsity for slim in tuned] == [0.8, 0.5]
    assert best(slimming).slim["sparsity"] == 0.5
    assert any(
        "80% pruned" in n and "nothing of it was faster within the bound" in n for n in slimming.dense.bench.notes
    )


def test_the_dense_result_stays_where_no_level_holds() -> None:
    slimming, _ = slimmed(speed, score(0.1))
    assert slimming.outcome is slimming.dense
    assert best(slimming).mode == "static" and not best(slimming).slim


def test_what_would_not_be_faster_is_not_tuned() -> None:
    slimming, tuned = slimmed(lambda recipe: speed(replace(recipe, slim={})), score(1))
    assert tuned == [] and not best(slimming).slim
    assert any("no faster than without pruning" in note for note in slimming.dense.bench.notes)


def test_what_holds_without_tuning_is_not_tuned() -> None:
    slimming, tuned = slimmed(speed, lambda recipe: 1.0)
    assert tuned == []
    assert best(slimming).slim == {"pattern": "block4x4", "sparsity": 0.8, "steps": 0, "seed": 0}


def test_without_time_to_tune_the_dense_result_is_given() -> None:
    slimming, tuned = slimmed(speed, score(1), budget=25)
    assert tuned == [] and not best(slimming).slim
    assert slimming.outcome.cut_short


def test_pruning_that_takes_too_long_is_given_up() -> None:
    started = time.monotonic()
    slimming, tuned = slimmed(speed, score(1), budget=3, slow=1000)
    assert time.monotonic() - started < 15
    assert tuned == [] and slimming.outcome is slimming.dense and slimming.dense.cut_short
    assert not any("x0.00" in note for note in slimming.dense.bench.notes)


def test_the_steps_fit_into_the_budget() -> None:
    _, tuned = slimmed(speed, score(1), budget=300, levels=LEVELS[:1])
    assert 50 < tuned[0].steps < 300


@pytest.mark.slow
def test_an_interrupted_tuning_goes_on_with_the_steps_it_had_counted(tmp_path: Path) -> None:
    _, first = slimmed(speed, score(1), levels=LEVELS[:1], resume=tmp_path)
    _, second = slimmed(speed, score(1), levels=LEVELS[:1], resume=tmp_path, seconds=7.0)
    _, fresh = slimmed(speed, score(1), levels=LEVELS[:1], seconds=7.0)
    assert first[0].steps == second[0].steps != fresh[0].steps
    (tmp_path / "block4x4-0.8" / "steps").write_text("many")
    slimming, _ = slimmed(speed, score(1), levels=LEVELS[:1], resume=tmp_path)
    assert any("steps cannot be read; give an empty folder" in note for note in slimming.dense.bench.notes)


def test_pruning_that_fails_leaves_the_dense_result() -> None:
    slimming, _ = slimmed(speed, score(1), fails=True)
    assert best(slimming).mode == "static" and not best(slimming).slim
    assert "pruning was given up: activations are not finite" in slimming.dense.bench.notes


def test_ctrl_c_while_searching_a_tuned_model_keeps_what_it_found() -> None:
    def stopped(recipe: Recipe) -> float:
        if recipe.slim and recipe.slim["steps"] and recipe.mode == "dynamic":
            raise KeyboardInterrupt
        return speed(recipe)

    slimming, _ = made(stopped, score(1))
    with pytest.raises(KeyboardInterrupt):
        slimming.run(LEVELS)
    assert best(slimming).mode == "static" and best(slimming).slim["sparsity"] == 0.8


def test_the_time_of_a_step_is_measured(wide: Path) -> None:
    data = open_data(images(40, 32), load_model(wide))
    seconds = Tuning(wide, data).step_seconds(wide, LEVELS[0])
    assert 1e-4 < seconds < 10


def test_ctrl_c_while_tuning_leaves_the_dense_result() -> None:
    with pytest.raises(KeyboardInterrupt):
        slimmed(speed, score(1), interrupted=True)


def test_compress_prunes_where_it_is_asked_to(wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Workbench, "timed", lambda bench, candidate: replace(candidate, speedup=speed(candidate.recipe))
    )
    monkeypatch.setattr(Delivery, "_pays", lambda *args: True)
    found = compress(
        wide, tmp_path / "o.onnx", data=images(24, 32), max_drop=1.0, pattern="block4x4", sparsity=0.5
    )  # fmt: skip
    assert found.recipe["slim"] == {"pattern": "block4x4", "sparsity": 0.5, "steps": 0, "seed": 0}
    assert 0.4 < zeros(tmp_path / "o.onnx") < 0.6


def test_a_pruned_and_tuned_model_is_replayed_to_the_same_bytes(wide: Path, tmp_path: Path) -> None:
    import torch

    slim = Slim("block4x4", sparsity=0.5, steps=4)
    (tmp_path / "r.toml").write_text(to_toml(Recipe(mode="float", slim=slim.as_table())), "utf-8")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name in ("a.onnx", "b.onnx"):
            compress(wide, tmp_path / name, data=images(24, 32), recipe=tmp_path / "r.toml")
    finally:
        torch.set_num_threads(threads)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert 0.4 < zeros(tmp_path / "a.onnx") < 0.6


@pytest.mark.parametrize(
    ("evaluate", "given", "kept", "asked"),
    [
        (None, "cosine", "cosine", "cosine"),
        (None, "auto", "auto", "auto"),
        (lambda run: 1.0, "auto", "eval", "snr"),  # a replay has the user's evaluation, or falls back on its own metric
    ],
)
def test_a_replay_is_judged_as_the_recipe_was(
    evaluate: Any, given: Metric, kept: str, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = open_data(images(2, 32), wide_cnn())
    judge = Tuning(Path("t.onnx"), data, evaluate, given).judge
    assert judge == kept
    metrics: list[str] = []
    monkeypatch.setattr(slimming_module, "distill", lambda *args, metric, **options: metrics.append(metric))
    replaying = Tuning(Path("t.onnx"), data, metric="snr")
    for metric in (judge, ""):
        replaying.tuned(wide_cnn(), Slim("block4x4", sparsity=0.5, steps=4, metric=metric))
    assert metrics == [asked, "snr"]


@pytest.mark.parametrize(("judge", "said"), [("eval", ["made with --eval"]), ("cosine", []), ("", [])])
def test_a_replay_without_the_evaluation_is_noted(
    judge: str, said: list[str], wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slim = Slim("block4x4", sparsity=0.5, steps=4, metric=judge)
    (tmp_path / "r.toml").write_text(to_toml(Recipe(mode="float", slim=slim.as_table())), "utf-8")
    monkeypatch.setattr(Tuning, "replayed", lambda tuning, slim: wide_cnn())
    found = compress(wide, tmp_path / "o.onnx", data=images(4, 32), recipe=tmp_path / "r.toml")
    assert [note for note in found.notes if "--eval" in note] == [
        f"the recipe was {words}: distilling may keep another state" for words in said
    ]


def zeros(path: Path) -> float:
    """Share of zeros in the largest weight."""
    largest = max(
        (value.const_value.numpy() for value in ir.load(path).graph.initializers.values() if value.const_value),
        key=lambda array: array.size,
    )
    return float((largest == 0).mean())


def test_shares_without_a_pattern_are_refused(wide: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="need a pattern"):
        compress(wide, tmp_path / "o.onnx", data=images(2, 32), sparsity=0.5)
    with pytest.raises(CompressError, match="a recipe says what is"):
        compress(wide, tmp_path / "o.onnx", data=images(2, 32), pattern="block4x4", recipe=tmp_path / "r.toml")
    with pytest.raises(ValueError, match="macs is for"):
        compress(wide, tmp_path / "o.onnx", data=images(2, 32), pattern="block4x4", macs=0.5)
