"""Slimmer models for `compress`: pruned with compensation, then distilled from the original, then searched like it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx_ir as ir

from onnxcompress.budget import SAFETY, OutOfTime
from onnxcompress.data import DataSet
from onnxcompress.distiller import Distilled, distill
from onnxcompress.evaluation import EvaluateFunction, Metric
from onnxcompress.model_io import Source
from onnxcompress.passes.prune import GRIDS
from onnxcompress.progress import Progress, silent
from onnxcompress.pruning.options import Pattern
from onnxcompress.pruning.pruner import prune
from onnxcompress.search import MARGIN, Search
from onnxcompress.slim import Slim

MACS = (0.5, 0.7, 0.85)
SPARSITIES = (0.8, 0.65, 0.5)
"""What is tried where no share is asked for, the fastest first."""

DISTILLATION_SECONDS = 600.0
"""Of tuning a pruned model, where there is no budget."""

DENSE_SHARE = 0.3
"""Of a budget, for the search without pruning: there is a result in any case."""

PROBES = (2, 6)
"""Steps of two short runs that tell how long a step takes."""

PROBING = sum(PROBES)
LEAST_STEPS = 20
"""With time for fewer, tuning is not begun."""

EVALUATIONS = 10
"""Of a distillation, as `Options.evaluations`."""


def levels(pattern: Pattern | None, sparsity: float | None, macs: float | None, seed: int) -> list[Slim]:
    """What to try, the fastest first; nothing without a pattern.

    Raises:
        ValueError: they do not go together.
    """
    if pattern is None:
        if sparsity is not None or macs is not None:
            raise ValueError("sparsity and macs need a pattern: what is pruned")
        return []
    if sparsity is None and macs is None:
        if pattern == "channels":
            return [Slim(pattern, macs=share, seed=seed) for share in MACS]
        if GRIDS[pattern].keep is None:
            return [Slim(pattern, sparsity=share, seed=seed) for share in SPARSITIES]
    return [Slim(pattern, sparsity, macs, seed=seed)]


@dataclass(frozen=True)
class Tuning:
    """How a pruned model is distilled: from what, on what, by which score.

    Attributes:
        teacher: the original.
        evaluate, metric: as for `compress`.
        resume: a folder that keeps the state of distillations.
    """

    teacher: Path
    data: DataSet
    evaluate: str | EvaluateFunction | None = None
    metric: Metric = "auto"
    resume: Path | None = None
    progress: Progress = silent

    def pruned(self, slim: Slim) -> ir.Model:
        """The teacher, pruned with compensation on the data; not tuned."""
        return prune(
            self.teacher, pattern=slim.pattern, sparsity=slim.sparsity, macs=slim.macs, data=self.data,
            progress=self.progress,
        ).model  # fmt: skip

    def tuned(self, model: Source, slim: Slim) -> Distilled:
        """A pruned model, distilled for the steps that `slim` says."""
        resume = None if self.resume is None else self.resume / f"{slim.pattern}-{slim.sparsity or slim.macs}"
        return distill(
            model, self.teacher, self.data, steps=slim.steps, seed=slim.seed, evaluate=self.evaluate,
            metric=self.metric, resume=resume, progress=self.progress,
        )  # fmt: skip

    def replayed(self, slim: Slim) -> ir.Model:
        """What a recipe was made from."""
        pruned = self.pruned(slim)
        return self.tuned(pruned, slim).model if slim.steps else pruned

    def step_seconds(self, model: Source, slim: Slim) -> float:
        """Seconds of a step: the difference between two short runs that are scored by nothing."""
        taken = []
        for steps in PROBES:
            started = time.monotonic()
            distill(model, self.teacher, self.data, steps=steps, seed=slim.seed, evaluate=lambda run: 0.0)
            taken.append(time.monotonic() - started)
        return max(1e-4, (taken[1] - taken[0]) / (PROBES[1] - PROBES[0]))


@dataclass
class Slimming:
    """The search without pruning, and then among slimmer models.

    Attributes:
        dense: the first.
        tuning: how pruned models are tuned.
        dense_seconds: that it took: the search of a pruned model takes about as long.
        outcome: the search whose best is the best of all.
    """

    dense: Search
    tuning: Tuning
    dense_seconds: float = 0.0
    outcome: Search = field(init=False)

    def __post_init__(self) -> None:
        self.outcome = self.dense

    def run(self, wanted: Sequence[Slim]) -> None:
        """Search without pruning, then at each level, the fastest first, until one wins or a milder one could not."""
        budget = self.dense.bench.budget
        started, kept = time.monotonic(), budget.reserve
        if wanted and budget.limited:
            budget.reserve += (1 - DENSE_SHARE) * budget.seconds
        self.dense.run()
        budget.reserve = kept
        self.dense_seconds = time.monotonic() - started
        for index, slim in enumerate(wanted):
            if not self.dense.attempt(self.is_milder_worth_it, slim, len(wanted) - index):
                return

    def is_milder_worth_it(self, slim: Slim, levels_left: int) -> bool:
        """Try a level; False where it won, or would not have been faster."""
        bench = self.dense.bench
        with bench.step("prune"):
            model = replace(self.tuning, progress=self.in_time).pruned(slim)
        untuned = self.search(model, slim)
        fastest = max((c.speedup for c in untuned.candidates() if c is not None), default=0.0)
        if self.takes(untuned):
            return False
        if not fastest and untuned.cut_short:
            raise OutOfTime
        if self.dense.best is not None and fastest < MARGIN * self.dense.best.speedup:
            bench.notes.append(
                f"{slim.describe()}: x{fastest:.2f} the original's speed, no faster than without pruning"
            )
            return False
        tuned = self.search(*self.tuned(model, slim, levels_left))
        tuned.run()
        if self.takes(tuned):
            return False
        bench.notes.append(f"{slim.describe()}: nothing of it was faster within the bound")
        return True

    def in_time(self, stage: str, done: int, total: int | None) -> None:
        """Reports progress; raises OutOfTime where the budget is spent."""
        self.dense.bench.budget.need()
        self.tuning.progress(stage, done, total)

    def tuned(self, model: ir.Model, slim: Slim, levels_left: int) -> tuple[ir.Model, Slim]:
        """A pruned model, distilled for as many steps as there is time for.

        The steps are counted beforehand, not stopped by a clock: so a recipe can be replayed.
        """
        bench = self.dense.bench
        seconds = DISTILLATION_SECONDS
        if bench.budget.limited:
            seconds = (bench.budget.left() / SAFETY - self.dense_seconds) / min(2, levels_left)
        each = self.tuning.step_seconds(model, slim)
        scoring = (EVALUATIONS + 2) * bench.cost(score=1)
        steps = int((seconds - PROBING * each - scoring) / (SAFETY * each))
        if steps < LEAST_STEPS:
            raise OutOfTime
        slim = replace(slim, steps=steps)
        found = self.tuning.tuned(model, slim)
        if found.interrupted:
            raise KeyboardInterrupt
        if found.score is not None and found.start is not None:
            bench.notes.append(f"{slim.describe()}: {found.metric} {found.start:.6g} -> {found.score:.6g} in float")
        return found.model, slim

    def search(self, model: ir.Model, slim: Slim) -> Search:
        """A search of a slim model, which is compared with the best of the dense one."""
        bench = replace(self.dense.bench, source=model, _prepared={}, _ranges={})
        base = replace(self.dense.base, slim=slim.as_table())
        return Search(bench, base, best=self.dense.best)

    def takes(self, search: Search) -> bool:
        """Is the best of a search its own? Then it is the outcome."""
        self.dense.cut_short |= search.cut_short
        search.cut_short = self.dense.cut_short
        if search.best is None or search.best is self.dense.best:
            return False
        self.outcome = search
        return True
