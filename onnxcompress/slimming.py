"""Slimmer models for `compress`: pruned with compensation, then distilled from the original, then searched like it."""

from __future__ import annotations

import contextlib
import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import onnx_ir as ir

from onnxcompress.budget import SAFETY, OutOfTime
from onnxcompress.data import DataSet
from onnxcompress.distiller import Distilled, distill
from onnxcompress.errors import CompressError
from onnxcompress.evaluation import EvaluateFunction, Metric
from onnxcompress.exporting.framework import import_torch
from onnxcompress.files import read_text, write_text
from onnxcompress.model_io import Source
from onnxcompress.passes.prune import GRIDS
from onnxcompress.progress import Progress, silent
from onnxcompress.pruning.options import Pattern
from onnxcompress.pruning.pruner import prune
from onnxcompress.search import MARGIN, Search
from onnxcompress.slim import BY_USER, Slim

MACS = (0.5, 0.7, 0.85)
SPARSITIES = (0.8, 0.65, 0.5)
"""What is tried where no share is asked for, the fastest first."""

DISTILLATION_SECONDS = 600.0
"""Of tuning a pruned model, where there is no budget."""

DENSE_SHARE = 0.3
"""Of a budget, for the search without pruning: there is a result in any case."""

PROBING = 8
"""Steps of a short run that tells how long a step takes."""

LEAST_STEPS = 20
"""With time for fewer, tuning is not begun."""

STEPS_FILE = "steps"
"""In the folder to resume from: how many steps the distillation beside it takes."""

EVALUATIONS = 10
"""Of a distillation, as `Options.evaluations`."""


def levels(pattern: Pattern | None, sparsity: float | None, macs: float | None, seed: int) -> list[Slim]:
    """What to try, the fastest first; nothing without a pattern.

    Raises:
        ValueError: they do not go together.
        ExportError: torch, which all of it needs, is not installed: told before any work, not after hours of it.
    """
    if pattern is None:
        if sparsity is not None or macs is not None:
            raise ValueError("sparsity and macs need a pattern: what is pruned")
        return []
    import_torch()
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
        """A pruned model, distilled for the steps and by the metric that `slim` says."""
        metric = self.metric if slim.metric in ("", BY_USER) else cast(Metric, slim.metric)
        return distill(
            model, self.teacher, self.data, steps=slim.steps, seed=slim.seed, evaluate=self.evaluate,
            metric=metric, resume=self._folder(slim), progress=self.progress,
        )  # fmt: skip

    def replayed(self, slim: Slim) -> ir.Model:
        """What a recipe was made from."""
        pruned = self.pruned(slim)
        return self.tuned(pruned, slim).model if slim.steps else pruned

    @property
    def judge(self) -> str:
        """What tells the best state of a distillation, for `Slim.metric`."""
        return self.metric if self.evaluate is None else BY_USER

    def step_seconds(self, model: Source, slim: Slim) -> float:
        """Seconds of a step, in a short run that is scored by nothing."""
        times: list[float] = []

        def note(stage: str, done: int, total: int | None) -> None:
            if stage.startswith("distilling"):
                times.append(time.monotonic())

        distill(
            model, self.teacher, self.data, steps=PROBING, seed=slim.seed, evaluate=lambda run: 0.0, evaluations=1,
            progress=note,
        )  # fmt: skip
        return statistics.median(after - before for before, after in itertools.pairwise(times))

    def remembered(self, slim: Slim) -> int | None:
        """The steps that an interrupted run had counted for this level.

        Raises:
            CompressError: the folder's file is damaged.
        """
        folder = self._folder(slim)
        if folder is None or not (folder / STEPS_FILE).is_file():
            return None
        try:
            return int(read_text(folder / STEPS_FILE, most=100))
        except (CompressError, ValueError) as error:
            raise CompressError(f"--resume {folder}: {STEPS_FILE} cannot be read; give an empty folder") from error

    def remember(self, slim: Slim) -> None:
        """Keep the steps: another run would count others, and could not go on from this one's state."""
        folder = self._folder(slim)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / STEPS_FILE, f"{slim.steps}\n")

    def _folder(self, slim: Slim) -> Path | None:
        share = slim.sparsity if slim.macs is None else slim.macs
        name = "-".join([slim.pattern.replace(":", "of"), *([] if share is None else [f"{share:g}"])])
        return None if self.resume is None else self.resume / name


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
        try:
            self.dense.run()
        finally:
            budget.reserve = kept
        self.dense_seconds = time.monotonic() - started
        if wanted:
            self.dense.bench.release(self.dense.best)
        try:
            for index, slim in enumerate(wanted):
                if not self.dense.attempt(self.is_milder_worth_it, slim, len(wanted) - index):
                    return
        except CompressError as error:  # the search without pruning went through, and its result stands
            self.dense.bench.notes.append(f"pruning was given up: {error}")

    def is_milder_worth_it(self, slim: Slim, levels_left: int) -> bool:
        """Try a level; False where it won, or would not have been faster."""
        bench = self.dense.bench
        with bench.step("prune"):
            model = replace(self.tuning, progress=self.in_time).pruned(slim)
        with self.searching(model, slim) as untuned:
            fastest = max((c.speedup for c in untuned.candidates() if c is not None), default=0.0)
        if self.outcome is untuned:
            return False
        if not fastest and untuned.cut_short:
            raise OutOfTime
        if self.dense.best is not None and fastest < MARGIN * self.dense.best.speedup:
            bench.notes.append(
                f"{slim.describe()}: x{fastest:.2f} the original's speed, no faster than without pruning"
            )
            return False
        with self.searching(*self.tuned(model, slim, levels_left)) as tuned:
            tuned.run()
        if self.outcome is tuned:
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
        steps = self.tuning.remembered(slim) or self.affordable_steps(model, slim, levels_left)
        slim = replace(slim, steps=steps, metric=self.tuning.judge)
        self.tuning.remember(slim)
        found = self.tuning.tuned(model, slim)
        if found.interrupted:
            raise KeyboardInterrupt
        if found.score is not None and found.start is not None:
            bench.notes.append(f"{slim.describe()}: {found.metric} {found.start:.6g} -> {found.score:.6g} in float")
        return found.model, slim

    def affordable_steps(self, model: ir.Model, slim: Slim, levels_left: int) -> int:
        """How many steps there is time for; without a budget, in `DISTILLATION_SECONDS`."""
        bench = self.dense.bench
        seconds = DISTILLATION_SECONDS
        if bench.budget.limited:
            seconds = (bench.budget.left() / SAFETY - self.dense_seconds) / min(2, levels_left)
        each = self.tuning.step_seconds(model, slim)
        scoring = (EVALUATIONS + 2) * bench.cost(score=1)
        steps = int((seconds - PROBING * each - scoring) / (SAFETY * each))
        if steps < LEAST_STEPS:
            raise OutOfTime
        return steps

    @contextlib.contextmanager
    def searching(self, model: ir.Model, slim: Slim) -> Iterator[Search]:
        """A search of a slim model; it becomes the outcome if it beats the dense one, also where it is stopped."""
        bench = replace(self.dense.bench, source=model, _prepared={}, _ranges={})
        search = Search(bench, replace(self.dense.base, slim=slim.as_table()), best=self.dense.best)
        try:
            yield search
        finally:
            search.cut_short = self.dense.cut_short = self.dense.cut_short or search.cut_short
            if search.best is not self.dense.best:
                self.outcome = search
            bench.release(search.best)
