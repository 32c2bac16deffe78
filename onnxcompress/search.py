"""The search of `compress`: candidates are built, timed in turn with the original, scored, and the fastest kept.

Every accepted candidate has been opened and scored, so the search can stop at any moment and still give a
model that holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ParamSpec, TypeVar

import numpy as np
import onnx_ir as ir

from onnxcompress.budget import OutOfTime
from onnxcompress.calibration import calibrate_channels
from onnxcompress.errors import ModelError
from onnxcompress.operator_times import PROFILE_RUNS, slower_than_dense, slower_than_standard
from onnxcompress.passes.lower import attention_tensors, native_nodes
from onnxcompress.passes.quantize import Decision
from onnxcompress.passes.quantize.roles import is_constant
from onnxcompress.recipe import Recipe, make_plan
from onnxcompress.runtime.library import library_path
from onnxcompress.runtime.profile import time_of
from onnxcompress.runtime.timings import node_times
from onnxcompress.sensitivity import sensitivity
from onnxcompress.workbench import METHODS, Candidate, Workbench

P = ParamSpec("P")
T = TypeVar("T")

MARGIN = 1.03
"""A candidate must be this much faster than another to be preferred: races differ by as much by chance."""

SMOOTHING = 0.6
"""The alpha of SmoothQuant; on MiniLM 0.5 and 0.6 gave cosines of 0.993 and 0.997, 0.4 only 0.958."""

SMOOTHING_FEEDS = 64
SENSITIVITY_FEEDS = 8
FEW_SCORES = 6


@dataclass
class Search:
    """Looks for the fastest recipe within the bound.

    Attributes:
        bench: makes and measures candidates.
        base: the recipe that all candidates start from.
        best: the fastest candidate so far that holds the bound.
        decisions: on static quantization, before anything was measured.
        times: milliseconds by kind and node name, where nodes were timed.
        cut_short: steps were left out because the budget had no time for them.
    """

    bench: Workbench
    base: Recipe
    best: Candidate | None = None
    decisions: list[Decision] = field(default_factory=list)
    times: dict[str, dict[str, float]] = field(default_factory=dict)
    cut_short: bool = False

    def run(self) -> None:
        """Search; `best` then holds the outcome. KeyboardInterrupt may come at any point."""
        optimized, *families = self.candidates(hopeless=False)
        for family in sorted((f for f in families if f is not None), key=lambda f: -f.speedup):
            if self.best is None or self.best.recipe.mode == family.recipe.mode or self.outruns(family):
                self.attempt(self.fit, family)
        if self.best is None and optimized is not None and not optimized.rejected and optimized.score is None:
            self.attempt(self.accept, optimized)

    def candidates(self, hopeless: bool = True) -> list[Candidate | None]:
        """The optimized float model, and of each kind of int8 the fastest; None where there is none.

        Args:
            hopeless: int8 too where the float model itself, a pruned one, is known to be below the bound.
        """
        optimized = self.attempt(self.try_float)
        if not hopeless and optimized is not None and optimized.score is not None and not self.bench.holds(optimized):
            return [optimized]
        start = replace(self.base, mode="float") if optimized is None else optimized.recipe
        # ONNX Runtime's CUDA provider has no int8 kernels of its own.
        on_cuda = self.base.target == "cuda"
        kinds = (self.try_native,) if on_cuda else (self.try_native, self.try_static, self.try_dynamic)
        return [optimized, *(self.attempt(step, start) for step in kinds)]

    def attempt(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Take a step; None, and a note, where it ends in a model that cannot be, or the budget has no time."""
        try:
            return step(*args, **kwargs)
        except OutOfTime:
            self.cut_short = True
        except ModelError as error:
            self.bench.notes.append(f"a candidate was given up: {error}")
        return None

    # -- candidates -------------------------------------------------------------------------------------------

    def try_float(self) -> Candidate:
        """The optimized float model, and with residual sums kept apart: the faster one is the start of all.

        With a budget for a few scores only it is not scored yet: int8 comes first.
        """
        recipe = replace(self.base, mode="float")
        candidate = self.bench.timed(self.bench.make(recipe))
        if any(node.op_type == "LayerNormalization" for node in candidate.model.graph):
            other = self.bench.timed(self.bench.make(replace(recipe, residual_sum=True)))
            candidate = max(candidate, other, key=lambda c: c.speedup)
        few = self.bench.affordable(self.bench.cost(score=1), 0.0) < FEW_SCORES
        if not few and not self.attempt(self.accept, candidate):
            self.note_bound(candidate)
        return candidate

    def try_static(self, start: Recipe) -> Candidate | None:
        """Static int8: the placement that is fastest, without the nodes that are faster in float."""
        recipe = replace(start, mode="static", method=METHODS[0], tables=True)
        plan = make_plan(self.bench.prepared(recipe), recipe)
        self.decisions = plan.decisions
        if not plan.compute:
            self.bench.notes.append("nothing to quantize statically: " + _why_not(plan.decisions))
            return None
        candidate = self.bench.timed(self.bench.make(self.bench.with_ranges(recipe)))
        if not candidate.quantized:
            self.bench.notes.append("nothing to quantize statically: " + _why_not(candidate.decisions))
            return None
        if self.best is None or candidate.speedup > self.best.speedup:
            self.attempt(self.accept, candidate)  # so that there is something to give if the search is stopped
        if plan.followers:
            candidate = self.attempt(self.without_followers, candidate) or candidate
        return self.attempt(self.without_slow_nodes, candidate) or candidate

    def try_native(self, start: Recipe) -> Candidate | None:
        """Static int8 in operators of our own, where their library is and takes part of the graph."""
        if start.portable or start.activations != "u8" or library_path() is None:
            return None
        recipe = replace(start, mode="static", native=True, method=METHODS[0], tables=True, residual_sum=False)
        recipe = replace(self.attended(recipe), reduced_range=False)  # our kernels do not saturate
        if not make_plan(self.bench.prepared(recipe), recipe).compute:
            return None
        candidate = self.bench.make(self.bench.with_ranges(recipe))
        if not native_nodes(candidate.model):
            return None
        candidate = self.bench.timed(candidate)
        if self.best is None or candidate.speedup > self.best.speedup:
            self.attempt(self.accept, candidate)
        candidate = self.attempt(self.without_slow_operators, candidate) or candidate
        return self.attempt(self.with_fast_zeros, candidate) or candidate

    def attended(self, recipe: Recipe) -> Recipe:
        """The recipe with what native transformers need to know of the channels of their activations."""
        prepared = self.bench.prepared(recipe)
        names = attention_tensors(prepared)
        if not names:
            return recipe
        heads = self.magnitudes(prepared, names)
        smoothed = self.attempt(self.smoothed, recipe, prepared)
        return replace(smoothed if smoothed is not None else recipe, heads=heads)

    def without_slow_operators(self, candidate: Candidate) -> Candidate:
        """Leave nodes in standard operators where those are faster here, if the whole model gains by it."""
        # On CUDA ONNX Runtime's profiler has the times of launches, not of kernels: only whole models are compared.
        slow = [] if self.base.target == "cuda" else slower_than_standard(self.bench, candidate, self.times)
        if not slow:
            return candidate
        recipe = replace(candidate.recipe, standard=dict.fromkeys(slow, "slow"))
        other = self.bench.timed(self.bench.make(recipe))
        return other if other.speedup > MARGIN * candidate.speedup else candidate

    def with_fast_zeros(self, candidate: Candidate) -> Candidate:
        """Multiply zero blocks too where that is faster here than skipping them, if the whole model gains by it."""
        slow = [] if self.base.target == "cuda" else slower_than_dense(self.bench, candidate)
        if not slow:
            return candidate
        other = self.bench.timed(self.bench.make(replace(candidate.recipe, dense=dict.fromkeys(slow, "slow"))))
        other.score = candidate.score  # zeros change no sum
        return other if other.speedup > candidate.speedup else candidate

    def try_dynamic(self, start: Recipe) -> Candidate | None:
        """Dynamic int8, where there is a MatMul or Gemm for it."""
        candidate = self.bench.make(replace(start, mode="dynamic", tables=True))
        return self.bench.timed(candidate) if candidate.quantized else None

    def without_followers(self, candidate: Candidate) -> Candidate:
        """The nodes between quantized ones in float where that is clearly faster, else in int8 as they are."""
        recipe = replace(candidate.recipe, elementwise=False)
        other = self.bench.timed(self.bench.make(self.bench.with_ranges(recipe)))
        return other if other.speedup > MARGIN * candidate.speedup else candidate

    def without_slow_nodes(self, candidate: Candidate) -> Candidate:
        """Put nodes back to float whose int8 kernel is slower here, if the whole model gains by it."""
        losses = self.slowed_down(candidate)
        for ratio in (1.0, 1.5):
            slow = {name: "slow" for name, loss in losses.items() if loss > ratio}
            if not slow or len(slow) == candidate.quantized:
                continue
            exclude = {**candidate.recipe.exclude, **slow}
            recipe = replace(candidate.recipe, exclude=exclude)
            other = self.bench.timed(self.bench.make(self.bench.with_ranges(recipe)))
            if other.speedup > candidate.speedup:
                return other
        return candidate

    def slowed_down(self, candidate: Candidate) -> dict[str, float]:
        """Nodes that take longer in int8 than in float, and how many times as long, by ONNX Runtime's profiler."""
        bench = self.bench
        prepared = bench.prepared(candidate.recipe)
        with bench.step("profile"):
            int8, real = (
                node_times(model, bench.feeds, threads=bench.threads, runs=PROFILE_RUNS, providers=bench.providers)
                for model in (candidate.model, prepared)
            )
        names = {node.name or "": node for node in prepared.graph}
        losses: dict[str, float] = {}
        for decision in candidate.decisions:
            node = names.get(decision.name)
            before, after = (time_of(node, times) if node else None for times in (real, int8))
            if not decision.quantized or before is None or after is None:
                continue
            self.times.setdefault("float", {})[decision.name] = before
            self.times.setdefault("static int8", {})[decision.name] = after
            if after > before:
                losses[decision.name] = after / before
        return losses

    # -- choosing ---------------------------------------------------------------------------------------------

    def accept(self, candidate: Candidate) -> bool:
        """Keep the candidate if it holds the bound and is the fastest so far; tells whether it holds."""
        if not self.bench.holds(candidate):
            return False
        if self.best is None or self.prefers(candidate, self.best):
            self.best = candidate
        return True

    def prefers(self, new: Candidate, old: Candidate) -> bool:
        """The faster one; of two that differ by no more than chance in the same kind, the more accurate one."""
        if new.recipe.mode == old.recipe.mode and old.speedup / MARGIN < new.speedup < old.speedup * MARGIN:
            return self.bench.score(new) > self.bench.score(old)
        return new.speedup > old.speedup

    def outruns(self, family: Candidate) -> bool:
        """Is a candidate worth fitting: faster than the best of another kind? Says so where it is not."""
        assert self.best is not None
        if family.speedup >= MARGIN * self.best.speedup:
            return True
        self.bench.notes.append(
            f"{family.recipe.describe()}: x{family.speedup:.2f} the original's speed, "
            f"no faster than {self.best.recipe.describe()} (x{self.best.speedup:.2f})"
        )
        return False

    def note_bound(self, candidate: Candidate) -> None:
        """Say that a candidate is below the bound, if it was scored."""
        if candidate.score is not None:
            self.bench.notes.append(
                f"{candidate.recipe.describe()}: {candidate.score.name} {candidate.value:.6g}, "
                f"below the bound {self.bench.bound:.6g}"
            )

    # -- accuracy ---------------------------------------------------------------------------------------------

    def fit(self, family: Candidate) -> None:
        """Find a variant of a candidate that holds the bound: other ranges, repairs, then fewer int8 nodes."""
        best = family
        self.bench.score(family)
        if family.recipe.mode == "static":
            for method in METHODS[1:]:  # they run the same kernels
                if best.value >= self.bench.evaluator.original.value:
                    break  # no accuracy is lost: there is nothing to look for
                recipe = replace(family.recipe, method=method)
                best = self.better(best, self.attempt(self.variant, recipe, family.speedup))
            if not self.bench.holds(best):
                for repaired in self.repaired(family.recipe):
                    best = self.better(best, self.attempt(self.variant, repaired, None))
                    if self.bench.holds(best):
                        break
        if not self.accept(best):
            self.note_bound(best)
            self.put_back(best)

    def better(self, one: Candidate, other: Candidate | None) -> Candidate:
        """The one with the higher score."""
        return other if other is not None and other.value > one.value else one

    def variant(self, recipe: Recipe, speedup: float | None) -> Candidate:
        """A candidate with ranges, scored; it is timed unless its speed is known."""
        candidate = self.bench.make(self.bench.with_ranges(recipe))
        if speedup is None:
            self.bench.timed(candidate)
        else:
            candidate.speedup = speedup
        self.bench.score(candidate)
        return candidate

    def repaired(self, recipe: Recipe) -> Iterator[Recipe]:
        """What may make a static recipe more accurate at some cost, mildest first."""
        prepared = self.bench.prepared(recipe)
        if any(node.op_type == "Conv" for node in prepared.graph):
            yield replace(recipe, equalize=True)
        smoothed = self.attempt(self.smoothed, recipe, prepared)
        if smoothed is not None:
            yield smoothed

    def smoothed(self, recipe: Recipe, prepared: ir.Model) -> Recipe | None:
        """The recipe with what smoothing needs to know, where there is something to smooth."""
        names = _linear_inputs(prepared)
        if not names:
            return None
        return replace(recipe, smooth=SMOOTHING, channels=self.magnitudes(prepared, names))

    def magnitudes(self, prepared: ir.Model, names: Sequence[str]) -> dict[str, tuple[float, ...]]:
        """Greatest magnitudes per channel (last axis) of float tensors, from some of the data."""
        bench = self.bench
        count = min(SMOOTHING_FEEDS, bench.affordable(bench.run_seconds, bench.cost(build=2, time=2, score=2)))
        if not count:
            raise OutOfTime
        axes = dict.fromkeys(names, -1)
        found = calibrate_channels(prepared, bench.data.take(0, count), axes, progress=bench.progress)
        return {name: tuple(map(float, s.max_abs.astype(np.float32))) for name, s in found.items()}

    def put_back(self, candidate: Candidate) -> None:
        """Put layers back to float, the most harmful first, until the bound holds: doubling, then bisection."""
        bench = self.bench
        layers = candidate.quantized
        bench.budget.need(layers * bench.cost(build=1, open=1) + bench.cost(build=2, score=2, time=1))
        order = sensitivity(
            bench.prepared(candidate.recipe), candidate.recipe, bench.feeds[:SENSITIVITY_FEEDS],
            progress=bench.progress, check=bench.budget.need,
        )  # fmt: skip
        low, high, count = 0, len(order), 1
        found: Candidate | None = None
        while low < count < high:
            other = self.without(candidate, order[:count])
            if bench.holds(other):
                found, high = other, count
                self.accept(bench.timed(other))
            else:
                low = count
            if found is not None and high - low <= max(1, high // 8):
                break
            count = min(2 * count, high - 1) if found is None else (low + high) // 2
        if found is None:
            bench.notes.append(f"{candidate.recipe.describe()}: no selection of layers holds the bound")
        elif self.best is not None and self.best.recipe != found.recipe:
            self.outruns(found)

    def without(self, candidate: Candidate, names: Sequence[str]) -> Candidate:
        """The candidate with more nodes float."""
        exclude: Mapping[str, str] = {**candidate.recipe.exclude, **dict.fromkeys(names, "sensitive")}
        recipe = replace(candidate.recipe, exclude=exclude)
        return self.bench.make(self.bench.with_ranges(recipe) if recipe.mode == "static" else recipe)


def _linear_inputs(model: ir.Model) -> list[str]:
    """The normalized activations that linear layers read: the ones with outlier channels."""
    found = []
    for node in model.graph:
        value = node.inputs[0] if node.inputs else None
        if node.op_type in ("MatMul", "Gemm") and value is not None and is_constant(node.inputs[1]):
            producer = value.producer()
            if producer is not None and producer.op_type == "LayerNormalization" and value.name is not None:
                found.append(value.name)
    return list(dict.fromkeys(found))


def _why_not(decisions: Sequence[Decision]) -> str:
    reasons = dict.fromkeys(decision.reason for decision in decisions)
    return "; ".join(list(reasons)[:3]) or "no Conv, MatMul or Gemm"
