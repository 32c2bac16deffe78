"""`compress`: the whole flow on one page.

original -> optimized float -> calibrated -> int8 candidates, timed and scored -> the fastest within the bound
-> if asked for: pruned, distilled from the original, and searched in the same way -> the fastest of all
-> written, opened again, timed in turn with the original -> report.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from onnxcompress.budget import Budget
from onnxcompress.data import Data, DataSet, ImageOptions, open_data, split
from onnxcompress.delivery import Delivery, check_paths, measure
from onnxcompress.environment import instruction_sets
from onnxcompress.errors import CompressError, DataError, ModelError
from onnxcompress.evaluation import Agreement, EvaluateFunction, Evaluator, Metric, UserEvaluator
from onnxcompress.interrupts import Interrupts
from onnxcompress.lineage import find_recipe
from onnxcompress.model_io import Source, load_model, saved_model
from onnxcompress.passes.quantize.detect import quantized_operators
from onnxcompress.progress import Progress, silent
from onnxcompress.pruning.options import Pattern
from onnxcompress.recipe import Recipe, build
from onnxcompress.report import Result
from onnxcompress.resume import Resume
from onnxcompress.runtime.benchmark import run_seconds
from onnxcompress.runtime.devices import Device, Target, find_device
from onnxcompress.runtime.session import open_session, run
from onnxcompress.search import Search
from onnxcompress.slim import BY_USER, Slim
from onnxcompress.slimming import Slimming, Tuning, levels
from onnxcompress.workbench import RACE_SECONDS, Candidate, Workbench

TIMED_FEEDS = 8
"""Feeds that a race goes through."""

LEAST_RACE = 30
"""Runs of the original that the shortest race takes as long as."""


def compress(
    model: Source,
    output: str | os.PathLike[str],
    *,
    data: Data | Sequence[str | Path],
    evaluate: str | EvaluateFunction | None = None,
    max_drop: float = 0.01,
    metric: Metric = "auto",
    target: Target = "cpu",
    threads: int = 1,
    budget: float | None = None,
    portable: bool = False,
    pattern: Pattern | None = None,
    sparsity: float | None = None,
    macs: float | None = None,
    recipe: str | os.PathLike[str] | None = None,
    report: str | os.PathLike[str] | None = None,
    resume: str | os.PathLike[str] | None = None,
    exclude: Sequence[str] = (),
    in_place: bool = False,
    images: ImageOptions | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Result:
    """Make a model smaller and faster within an accuracy bound, and measure what came of it.

    Args:
        model: a path or a model; unchanged.
        output: where the model goes when it has been opened and scored; `<output>.recipe.toml` goes beside it.
        data: feeds to calibrate on, see `open_data`. Without `evaluate` the last fifth is held out.
        evaluate: `FN(run) -> float`, higher is better; None: agreement with the original by `metric`.
        max_drop: score >= original - max_drop * |original|.
        target: cpu or cuda. For a CUDA device that is not here, candidates are scored on the CPU and nothing is
            timed: every layer that has an operator of ours is int8, within the bound.
        threads: that the result is timed with, on a CPU.
        budget: seconds for the whole call; steps that would not end in time are left out, but for scoring the
            original and writing the result. None: as long as it takes.
        portable: standard operators only.
        pattern: prune too (see `prune`), and distil the result from the original; it needs torch.
        sparsity, macs: as for `prune`; None: several are tried.
        recipe: replay it, or that of a model which `compress` wrote; target, portable and exclude are its own.
        report: where report.json goes.
        resume: a folder that keeps scores, so that an interrupted run goes on.
        exclude: names of nodes that stay float.
        in_place: `output` may be the model's own path.
        seed: of the order of the data in distillation.
        progress: called with what is going on.

    Returns:
        What was measured. When nothing within the bound is faster, the result is the original, and `notes` say
        why. On Ctrl-C, or when the budget ends, it is the best so far, marked `interrupted`.

    Raises:
        ValueError, ModelError, DataError, CalibrationError, EvaluationError: bad input; nothing is written.
        KeyboardInterrupt: Ctrl-C before there was anything to write, or a second time; nothing is written.
    """
    wanted = levels(pattern, sparsity, macs, seed)
    replayed = _replayed(recipe, bool(portable or exclude or wanted))
    device = _device(target if replayed is None else replayed.target, bool(wanted), portable)
    spending = Budget(math.inf if budget is None else budget)
    with Interrupts.handled() as interrupts, saved_model(model) as path:
        loaded = load_model(path)
        check_paths(path, Path(output), None if report is None else Path(report), in_place)
        feeds = open_data(data, loaded, images=images)
        bench = _open(path, loaded, feeds, evaluate, metric, device, threads, max_drop, spending, progress)
        bench.scored = Resume.open(resume).score
        measuring = time.monotonic()
        original = measure(path, shown="" if isinstance(model, ir.Model) else path, feed=bench.feeds[0])
        bench.costs["measure"] = time.monotonic() - measuring
        spending.reserve = bench.cost(open=1, measure=2) + LEAST_RACE * bench.run_seconds
        base = Recipe(
            source=original.sha256, portable=portable, target=device.target,
            reduced_range=target == "cpu" and _saturates(), exclude=dict.fromkeys(exclude, "user"),
        )  # fmt: skip
        folder = None if resume is None else Path(resume)
        tuning = Tuning(path, bench.data, evaluate, _judge(bench, metric), folder, progress)
        found = _find(Slimming(Search(bench, base), tuning), loaded, wanted, replayed, interrupts)
        return Delivery(found, path, original, interrupts, replayed is not None).deliver(Path(output), report)


def _device(target: Target, pruned: bool, portable: bool) -> Device:
    """The device to compress for; pruning needs it here, and CUDA operators of our own."""
    device = find_device(target)
    if target == "cuda" and portable:
        raise CompressError("for cuda there are operators of our own only, which --portable leaves out")
    if device.absent and pruned:
        raise CompressError(
            f"what is pruned is chosen by its speed, and {device.absent}: prune and distil the model first, "
            "then compress the result"
        )
    return device


def _replayed(recipe: str | os.PathLike[str] | None, told: bool) -> Recipe | None:
    """The recipe to replay, if one is given; what it says itself cannot be told beside it."""
    if recipe is None:
        return None
    if told:
        raise CompressError("a recipe says what is excluded, portable and pruned: leave those arguments away")
    return find_recipe(recipe)


def _open(
    path: Path,
    model: ir.Model,
    feeds: DataSet,
    evaluate: str | EvaluateFunction | None,
    metric: Metric,
    device: Device,
    threads: int,
    max_drop: float,
    budget: Budget,
    progress: Progress,
) -> Workbench:
    """Open and score the original, and see what that takes."""
    started = time.monotonic()
    session = open_session(path, threads=threads, providers=device.providers)
    opening = time.monotonic() - started
    held_out, calibration, note = feeds, feeds, ""
    if evaluate is None:
        calibration, held_out, _, note = split(feeds)
    timed = list(held_out.take(0, TIMED_FEEDS))
    if not timed:
        raise DataError(f"{feeds.name}: no feeds; give at least one, better 100 or more")
    run(session, timed[0])  # tells what is wrong with a feed, or a model that opens but does not run
    once = run_seconds(session, timed)
    progress("scoring the original", 0, None)
    started = time.monotonic()
    scored = open_session(path, providers=device.providers)
    evaluator: Evaluator = (
        Agreement(scored, model, held_out, metric) if evaluate is None else UserEvaluator(evaluate, scored)
    )
    scoring = time.monotonic() - started
    return Workbench(
        source=path, original=session, evaluator=evaluator, max_drop=max_drop, data=calibration, feeds=timed,
        threads=threads, device=device, progress=progress, budget=budget, notes=[note] if note else [],
        costs={"open": opening, "build": opening, "score": scoring, "time": opening + RACE_SECONDS + LEAST_RACE * once},
        run_seconds=once,
    )  # fmt: skip


def _judge(bench: Workbench, metric: Metric) -> Metric:
    """What tells the best state of a distillation: the very metric that the bound is of."""
    return bench.evaluator.metric if isinstance(bench.evaluator, Agreement) else metric


def _find(
    slimming: Slimming, model: ir.Model, wanted: Sequence[Slim], replayed: Recipe | None, interrupts: Interrupts
) -> Search:
    """Replay a recipe, leave a quantized model alone, or search; Ctrl-C ends it with the best so far."""
    search = slimming.dense
    try:
        if replayed is not None:
            _replay(search, replayed, slimming.tuning)
        elif _is_open(search, model):
            slimming.run(wanted)
        interrupts.finishing()
    except KeyboardInterrupt:
        if slimming.outcome.best is None:
            raise
        interrupts.finishing()
    return slimming.outcome


def _is_open(search: Search, model: ir.Model) -> bool:
    """Is there anything to search for? A quantized model is left alone."""
    quantized = quantized_operators(model)
    if quantized:
        names = ", ".join(f"{count} {name}" for name, count in quantized.most_common(3))
        search.bench.notes.append(f"the model is already quantized ({names}): it is left as it is")
        return False
    if search.base.exclude:
        _check_excluded(search, model)
    return True


def _replay(search: Search, recipe: Recipe, tuning: Tuning) -> None:
    """Build and score what a recipe says."""
    bench = search.bench
    bench.budget = Budget(started=bench.budget.started)  # nothing in it can be left out
    if recipe.source not in ("", search.base.source):
        bench.notes.append("the recipe was made from another model: what it says may not fit this one")
    judge = Slim.of(recipe.slim).metric if recipe.slim else ""
    if judge and (judge == BY_USER) != (tuning.judge == BY_USER):
        bench.notes.append(
            f"the recipe was made {'with' if judge == BY_USER else 'without'} --eval: distilling may keep another state"
        )
    recipe = replace(recipe, source=search.base.source)
    source = tuning.replayed(Slim.of(recipe.slim)) if recipe.slim else bench.source
    candidate = Candidate(recipe, *build(source, recipe))
    if recipe.mode == "original":
        candidate.score = bench.evaluator.original
    bench.score(candidate)
    if candidate.rejected:
        raise ModelError(f"the recipe's model cannot be scored: {bench.notes[-1]}")
    search.best = candidate


def _check_excluded(search: Search, model: ir.Model) -> None:
    """Refuse names that no node has, and say which nodes optimizing has taken away."""
    written = {node.name for node in model.graph.all_nodes()}
    prepared = {node.name for node in search.bench.prepared(search.base).graph}
    for name in search.base.exclude:
        if name not in written | prepared:
            raise ModelError(f"--exclude {name}: no such node; see onnxcompress inspect --nodes")
        if name not in prepared:
            search.bench.notes.append(f"--exclude {name}: optimizing has merged it into others")


def _saturates() -> bool:
    """Without VNNI, x86 sums products of u8 and s8 in 16 bits, which overflow with 8-bit weights."""
    sets = {name.lower() for name in instruction_sets()}
    x86 = bool(sets & {"avx2", "avx", "sse4_1", "avx512f"})
    return x86 and not any("vnni" in name for name in sets)
