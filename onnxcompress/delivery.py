"""The end of `compress`: the best candidate is written, opened again, timed in turn with the original, and reported."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import onnxruntime as ort

from onnxcompress.data import Feed
from onnxcompress.environment import environment_record
from onnxcompress.errors import ModelError
from onnxcompress.evaluation import Score
from onnxcompress.files import staging, write_text
from onnxcompress.inspection import inspect
from onnxcompress.interrupts import Interrupts
from onnxcompress.lineage import mark
from onnxcompress.model_io import (
    check_output,
    digest,
    external_tensors,
    file_bytes,
    load_model,
    publish_model,
    save_model,
)
from onnxcompress.passes.lower import native_nodes, replaced_nodes
from onnxcompress.passes.quantize import Decision
from onnxcompress.recipe import Recipe, to_toml
from onnxcompress.report import Measured, NodeReport, Result, write_report
from onnxcompress.runtime.benchmark import Latency, pace, race, run_seconds
from onnxcompress.runtime.session import open_session
from onnxcompress.search import Search
from onnxcompress.workbench import Candidate

NOISE = 0.97
"""A result is called slower than the original when its speed is below this share of it."""

ROUNDS, SECONDS = 10, 2.5
"""Of the last race."""

HURRIED_ROUNDS, HURRIED_SECONDS = 3, 0.5
"""Of the last race, where the user or the budget wants an end."""


@dataclass
class Delivery:
    """Writes what a search found.

    Attributes:
        source: the original model's file.
        original: what was measured of it so far.
        replayed: the recipe was given: it is not to lose against the original.
    """

    search: Search
    source: Path
    original: Measured
    interrupts: Interrupts
    replayed: bool = False

    def deliver(self, output: Path, report: str | os.PathLike[str] | None) -> Result:
        """Write model, recipe and report, each whole or not at all.

        Raises:
            ModelError: something cannot be written, or the written model cannot be opened.
        """
        best = self.search.best
        try:
            with staging(output) as folder:
                written = folder / output.name
                latencies: list[Latency] = []
                if best is not None and best.recipe.mode != "original":
                    _save(best, written, shown=output)
                    latencies = self._race(self._opened(written))
                    if latencies and not self.replayed and not self._pays(best, written, latencies):
                        best = None
                if best is None or best.recipe.mode == "original":
                    best = None
                    _copy_model(self.source, written)
                    latencies = (latencies or self._race())[:1] * 2
                result = self._result(best, output, written, latencies)
                recipe = to_toml(best.recipe if best is not None else self._unchanged())
                with self.interrupts.held():
                    publish_model(written, output)
                    write_text(f"{output}.recipe.toml", recipe)
                    if report is not None:
                        write_report(result, report)
        except OSError as error:
            raise ModelError(f"{output}: cannot be written ({error.strerror or error})") from error
        return result

    def _race(self, *candidates: ort.InferenceSession) -> list[Latency]:
        """The last race, of the original and a candidate or alone; short where the user or the budget wants an end.

        Empty where the device is not here.
        """
        bench, stopped = self.search.bench, self.interrupts.count
        if bench.device.absent:
            return []
        bench.progress("the last race", 0, None)
        sessions = [bench.original, *candidates]
        left = 0.0 if stopped else bench.budget.left()
        wanted = min(SECONDS, max(HURRIED_SECONDS, left))
        rounds = ROUNDS if left >= SECONDS else HURRIED_ROUNDS
        runs = pace(sum(run_seconds(session, bench.feeds) for session in sessions), wanted, rounds)
        return race(
            sessions, bench.feeds, threads=bench.threads, rounds=rounds, runs=runs,
            enough=lambda: self.interrupts.count > stopped,
        )  # fmt: skip

    def _pays(self, best: Candidate, written: Path, latencies: list[Latency]) -> bool:
        """Is the written model better than the original? Notes say what it is worse in."""
        speed = latencies[1].speedup_median
        growth = file_bytes(written) / self.original.bytes
        name = best.recipe.describe()
        notes = self.search.bench.notes
        if speed < NOISE:
            notes.append(f"{name} runs at x{speed:.2f} the original's speed: the original is kept")
            return False
        if growth > 1 and speed * NOISE < 1:
            notes.append(f"{name} is no faster (x{speed:.2f}) and not smaller: the original is kept")
            return False
        if growth > 1:
            notes.append(f"the result is larger than the original ({growth - 1:.1%})")
        if speed * NOISE < 1:
            notes.append(f"the result is smaller but no faster (x{speed:.2f}) than the original")
        return True

    @property
    def _cut_short(self) -> bool:
        return self.interrupts.count > 0 or self.search.cut_short

    def _opened(self, path: Path) -> ort.InferenceSession:
        return open_session(path, threads=self.search.bench.threads, providers=self.search.bench.providers)

    def _unchanged(self) -> Recipe:
        base = self.search.base
        return Recipe(source=base.source, target=base.target, mode="original")

    # -- reporting --------------------------------------------------------------------------------------------

    def _result(self, best: Candidate | None, output: Path, written: Path, latencies: list[Latency]) -> Result:
        bench = self.search.bench
        score = best.score if best is not None and best.score is not None else bench.evaluator.original
        before, after = latencies if latencies else (None, None)
        original = _with(self.original, before, replace(bench.evaluator.original, name=score.name))
        result = _with(measure(written, shown=output, feed=bench.feeds[0]), after, score)
        recipe = best.recipe if best is not None else self._unchanged()
        self._note_end()
        native = {} if best is None else {
            name: node.name or "" for node in native_nodes(best.model) for name in replaced_nodes(node)
        }  # fmt: skip
        return Result(
            original=original,
            result=result,
            speedup={"median": after.speedup_median, "least": after.speedup_least} if after else None,
            within_bound=score.value >= bench.bound,
            max_drop=bench.max_drop,
            nodes=[replace(self._node(d), native=native.get(d.name, "")) for d in self._decisions(best)],
            recipe=json.loads(json.dumps(dataclasses.asdict(recipe))),
            environment=environment_record(),
            candidates=[candidate.summary() for candidate in bench.tried],
            notes=list(bench.notes),
            interrupted=self._cut_short,
            seconds=bench.budget.spent(),
        )

    def _note_end(self) -> None:
        bench, budget = self.search.bench, self.search.bench.budget
        if bench.device.absent:
            bench.notes.append(
                f"made for {bench.device.target} without timing anything ({bench.device.absent}): scored on the CPU, "
                "as many layers in int8 as have operators of ours and keep the bound"
            )
        if self.interrupts.count:
            bench.notes.append("interrupted: this is the best of what was tried until then")
        elif self.search.cut_short:
            bench.notes.append(f"the budget of {budget.seconds:g} s left no time for all that could be tried")
        if budget.spent() > budget.seconds:
            bench.notes.append(
                f"the budget of {budget.seconds:g} s is too short: what is done in any case took {budget.spent():.0f} s"
            )

    def _decisions(self, best: Candidate | None) -> list[Decision]:
        """What became of the nodes that could be quantized; where all stay float, what spoke against each."""
        if best is not None and best.decisions:
            return best.decisions
        tried = max((c.decisions for c in self.search.bench.tried), key=len, default=[]) or self.search.decisions
        lost = "no candidate with it in int8 was faster and within the bound: see the notes"
        if self._cut_short:
            lost = "the search ended before a candidate with it in int8 was accepted"
        return [replace(d, quantized=False, reason=lost) if d.quantized else d for d in tried]

    def _node(self, decision: Decision) -> NodeReport:
        times = [
            {"kind": kind, "ms": round(found[decision.name], 4)}
            for kind, found in self.search.times.items()
            if decision.name in found
        ]
        return NodeReport(decision.name, decision.op, "int8" if decision.quantized else "float", decision.reason, times)


def measure(path: Path, *, shown: str | Path, feed: Feed) -> Measured:
    """Size, weights, work and digest of a model; nothing is run.

    Args:
        shown: the path to report.
        feed: multiply-accumulates are those of a run on it.
    """
    found = inspect(path, shapes={name: list(array.shape) for name, array in feed.items()})
    macs = None if found.unknown_macs else found.macs
    return Measured(str(shown), file_bytes(path), found.parameters, macs, digest(path), None, None)


def check_paths(source: Path, output: Path, report: Path | None, in_place: bool) -> None:
    """Refuse paths that cannot be written, or that would write over the original, before any work is done.

    Raises:
        ModelError: a folder is missing or cannot be written; a path is a folder; a file would be overwritten that
            is read.
    """
    check_output(source, output, in_place=in_place)
    beside = [output, Path(f"{output}.recipe.toml")]
    for path in [*beside[1:], *([report] if report is not None else [])]:
        check_output(source, path)
    if report is not None and report.resolve() in {path.resolve() for path in beside}:
        raise ModelError(f"{report}: the report would overwrite the model; give another path")


def _with(measured: Measured, latency: Latency | None, score: Score) -> Measured:
    found = None if latency is None else latency.as_dict()
    times = found and {key: value for key, value in found.items() if not key.startswith("speedup")}
    return replace(measured, latency=times, metric={"name": score.name, "value": score.value})


def _save(best: Candidate, path: Path, shown: Path) -> None:
    mark(best.model, best.recipe)
    try:
        save_model(best.model, path)
    except ModelError as error:  # its message names the temporary file
        raise ModelError(str(error).replace(str(path), str(shown))) from error


def _copy_model(source: Path, target: Path) -> None:
    """Copy a model; one with external data is written anew, so that its data bears the new name."""
    model = load_model(source)
    if any(True for _ in external_tensors(model)):
        save_model(model, target, external_data=True)
    else:
        shutil.copyfile(source, target)
