"""Where candidates are built, calibrated, timed in turn with the original, and scored, and what that costs."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import onnx_ir as ir
import onnxruntime as ort

from onnxcompress.budget import SAFETY, Budget
from onnxcompress.calibration import Ranges, calibrate
from onnxcompress.data import DataSet, Feed
from onnxcompress.errors import CalibrationError, CompressError, ModelError
from onnxcompress.evaluation import Evaluator, Score, UnsteadyDataError, lower_bound
from onnxcompress.memory import give_back
from onnxcompress.model_io import Source
from onnxcompress.passes.quantize import Decision
from onnxcompress.progress import Progress, silent
from onnxcompress.quantization_static import RangeSource, with_ranges
from onnxcompress.recipe import Recipe, finish, make_plan, prepare
from onnxcompress.runtime.benchmark import pace, race, run_seconds
from onnxcompress.runtime.devices import CPU, Device
from onnxcompress.runtime.session import open_session

METHODS = ("mse", "minmax", "percentile")
"""Of choosing ranges, in the order they are tried; all come from one calibration."""

ROUNDS, RACE_SECONDS = 5, 1.0
"""Of a race between a candidate and the original."""

HOPELESS = 3.0
"""A candidate that takes this many times as long as the original is not raced."""

FIRST_PART = 8
"""Feeds that tell how long calibration takes, where there is a budget."""

MOST_CALIBRATED = 512
"""Feeds that are calibrated on where there is a budget: more change little, and take the time of other steps."""


@dataclass
class Candidate:
    """A recipe, its model, and what was measured of it; `speedup` is over the original, in one race."""

    recipe: Recipe
    built: ir.Model | None
    decisions: list[Decision]
    speedup: float = 0.0
    score: Score | None = None
    rejected: bool = False

    @property
    def model(self) -> ir.Model:
        """The model."""
        assert self.built is not None, "it was released"
        return self.built

    def release(self) -> None:
        """Keep what was measured, not the model."""
        self.built = None

    @property
    def value(self) -> float:
        """The score; minus infinity where it was not taken, or could not be."""
        return -math.inf if self.score is None else self.score.value

    @property
    def quantized(self) -> int:
        """The number of nodes in int8."""
        return sum(decision.quantized for decision in self.decisions)

    def summary(self) -> dict[str, Any]:
        """For the report."""
        score = None if self.score is None else self.score.value
        return {"recipe": self.recipe.describe(), "speedup": round(self.speedup, 3), "score": score}


def expected_speedup(candidate: Candidate) -> float:
    """What decides among candidates for a device that is not here: the one with most of its nodes in int8.

    No claim of speed: between 1 (nothing in int8) and 2, and only compared with others of its kind.
    """
    share = candidate.quantized / max(1, len(candidate.decisions))
    return 1.0 + share if candidate.recipe.mode != "original" else 1.0


@dataclass
class Workbench:
    """Makes and measures candidates.

    Attributes:
        source: the original model.
        original: its session, with the threads that are timed.
        evaluator, max_drop: the bound.
        data: to calibrate on.
        feeds: to time on.
        threads: of the timed sessions.
        device: that sessions run on; where it is absent, on the CPU, and nothing is timed.
        budget: every step asks it whether there is time for it, and raises OutOfTime otherwise.
        scored: looks a score up by recipe, or measures it.
        tried: all candidates that were timed or scored, in order.
        notes: what the user should know.
        costs: seconds that steps took when they were last done: build, open, time, score and others.
        run_seconds: seconds of one run of the original.
    """

    source: Source
    original: ort.InferenceSession
    evaluator: Evaluator
    max_drop: float
    data: DataSet
    feeds: Sequence[Feed]
    threads: int = 1
    device: Device = field(default_factory=Device)
    progress: Progress = silent
    budget: Budget = field(default_factory=Budget)
    scored: Callable[[Recipe, str, Callable[[], Score]], Score] = lambda recipe, evaluation, measure: measure()
    tried: list[Candidate] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    costs: dict[str, float] = field(default_factory=dict)
    run_seconds: float = 0.0
    _prepared: dict[tuple[bool, bool, float | None], ir.Model] = field(default_factory=dict)
    _ranges: dict[tuple[bool, bool, float | None, str], Ranges] = field(default_factory=dict)

    @property
    def providers(self) -> tuple[str, ...]:
        """Of all sessions."""
        return self.device.providers

    @property
    def bound(self) -> float:
        """The least score that is accepted."""
        return lower_bound(self.evaluator.original.value, self.max_drop)

    @contextlib.contextmanager
    def step(self, kind: str) -> Iterator[None]:
        """Do something that takes time, if the budget has it, and remember how long it took."""
        self.budget.need(self.costs.get(kind, 0.0))
        started = time.monotonic()
        yield
        self.costs[kind] = time.monotonic() - started

    def cost(self, **steps: int) -> float:
        """Seconds that so many steps of each kind should take."""
        return sum(count * self.costs.get(kind, 0.0) for kind, count in steps.items())

    # -- candidates -------------------------------------------------------------------------------------------

    def make(self, recipe: Recipe) -> Candidate:
        """Build a candidate."""
        prepared = self.prepared(recipe)
        with self.step("build"):
            return Candidate(recipe, *finish(prepared, recipe))

    def prepared(self, recipe: Recipe) -> ir.Model:
        """The float model that a recipe quantizes; made once for each kind."""
        key = (recipe.native, recipe.equalize, recipe.smooth)
        if key not in self._prepared:
            with self.step("prepare"):
                self._prepared[key] = prepare(self.source, recipe)
        return self._prepared[key]

    def release(self, best: Candidate | None) -> None:
        """Let go of models and ranges that a search needed, but for its best."""
        for candidate in self.tried:
            if candidate is not best:
                candidate.release()
        self._prepared.clear()
        self._ranges.clear()
        give_back()

    # -- ranges -----------------------------------------------------------------------------------------------

    def with_ranges(self, recipe: Recipe) -> Recipe:
        """The recipe with the ranges that its plan needs, without the nodes whose tensors have none."""
        found = self.calibrated(recipe)
        with self.step("ranges"):
            source = RangeSource(
                self.prepared(recipe), recipe, found, None, recipe.method, self.threads, self.progress
            )  # fmt: skip
            try:
                return with_ranges(recipe, source)[0]
            except CalibrationError as error:  # the data was read without one, so it is this recipe's own
                raise ModelError(str(error)) from error

    def calibrated(self, recipe: Recipe) -> Ranges:
        """Ranges of all tensors that any plan on this prepared model needs; the data is walked once for all methods."""
        key = (recipe.native, recipe.equalize, recipe.smooth)
        if (*key, METHODS[0]) not in self._ranges:
            prepared = self.prepared(recipe)
            plans = (make_plan(prepared, replace(recipe, elementwise=elementwise)) for elementwise in (True, False))
            self._ranges[*key, METHODS[0]] = self._calibrate(
                prepared, list(dict.fromkeys(name for plan in plans for name in plan.observed))
            )
        asked = (*key, recipe.method)
        if asked not in self._ranges:
            self._ranges[asked] = self._ranges[*key, METHODS[0]].by(recipe.method)
        return self._ranges[asked]

    def _calibrate(self, model: ir.Model, names: list[str]) -> Ranges:
        """Calibrate on all the data; with a budget, on as much as leaves time to time and score a candidate."""

        def take(data: DataSet) -> Ranges:
            return calibrate(
                model, data, method=METHODS[0], tensors=names, leave_out_masks=True, progress=self.progress
            )  # fmt: skip

        if not self.budget.limited:
            return take(self.data)
        self.budget.need(self.cost(build=1, time=1, score=1) + FIRST_PART * self.run_seconds)
        started = time.monotonic()
        found = take(self.data.take(0, FIRST_PART))
        each = (time.monotonic() - started) / found.samples
        affordable = self.affordable(each, self.cost(build=2, time=2, score=2))
        count = min(affordable, MOST_CALIBRATED - FIRST_PART)
        rest = self.data.take(FIRST_PART, FIRST_PART + count)
        if found.samples == FIRST_PART and any(True for _ in rest.take(0, 1)):
            found = found.merge(take(rest))
        if found.samples == FIRST_PART + affordable:
            self.notes.append(f"calibrated on the first {found.samples} feeds: the budget allows no more")
        return found

    def affordable(self, seconds: float, kept: float) -> int:
        """How many times something can be done that takes `seconds`, and still leave `kept` seconds."""
        left = self.budget.left() / SAFETY - kept
        return 1 << 30 if math.isinf(left) else max(0, int(left / max(seconds, 1e-6)))

    # -- measuring --------------------------------------------------------------------------------------------

    def timed(self, candidate: Candidate) -> Candidate:
        """Race a candidate against the original; for a device that is not here, see `expected_speedup`.

        Raises:
            ModelError: ONNX Runtime refuses it.
        """
        if self.device.absent:
            candidate.speedup = expected_speedup(candidate)
            self._remember(candidate)
            return candidate
        with self.step("time"):
            self.progress(f"timing {candidate.recipe.describe()}", 0, None)
            session = open_session(candidate.model, threads=self.threads, providers=self.providers)
            seconds = run_seconds(session, self.feeds)
            if seconds > HOPELESS * self.run_seconds:
                candidate.speedup = self.run_seconds / seconds
            else:
                runs = pace(self.run_seconds + seconds, RACE_SECONDS, ROUNDS)
                sessions = [self.original, session]
                found = race(sessions, self.feeds, threads=self.threads, rounds=ROUNDS, runs=runs)
                candidate.speedup = found[1].speedup_median
        self._remember(candidate)
        return candidate

    def _remember(self, candidate: Candidate) -> None:
        if not any(candidate is other for other in self.tried):
            self.tried.append(candidate)

    def score(self, candidate: Candidate) -> float:
        """The score of a candidate, measured once; minus infinity where it makes the evaluation fail."""
        if candidate.score is None and not candidate.rejected:
            self.budget.need()
            self.progress(f"scoring {candidate.recipe.describe()}", 0, None)
            try:
                candidate.score = self.scored(
                    candidate.recipe, self._where_scored, lambda: self._measured(candidate.model)
                )
            except UnsteadyDataError:
                raise
            except CompressError as error:  # the original was scored without one, so it is this candidate's own
                candidate.rejected = True
                self.notes.append(f"{candidate.recipe.describe()}: {error}")
            self._remember(candidate)
        return candidate.value

    @property
    def _where_scored(self) -> str:
        """Names the evaluation and the device, for scores that are kept."""
        provider = self.providers[0]
        return self.evaluator.key if provider == CPU[0] else f"{self.evaluator.key} on {provider}"

    def _measured(self, model: ir.Model) -> Score:
        with self.step("score"):
            return self.evaluator.score(open_session(model, providers=self.providers))

    def holds(self, candidate: Candidate) -> bool:
        """Is the candidate's score within the bound?"""
        return self.score(candidate) >= self.bound
