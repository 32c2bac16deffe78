"""`factorize`: layers of low rank as two thin ones each, where that is faster on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcompress.calibration.collect import Sources
from onnxcompress.data import DataSet, Feed, open_data
from onnxcompress.errors import DataError
from onnxcompress.factorization_times import Times, layer_times
from onnxcompress.model_io import Source
from onnxcompress.optimizer import optimize
from onnxcompress.passes.lowrank import (
    FactorizeLinear,
    Option,
    Spectrum,
    break_even,
    choose_ranks,
    decompose,
    evenly_spaced,
    rounded_up,
)
from onnxcompress.passes.prune.layers import Layer, find_layers, layer_nodes, to_matrix, weight_of
from onnxcompress.passes.quantize import CorrectBias
from onnxcompress.progress import Progress, silent
from onnxcompress.quantization_names import matching, name_of
from onnxcompress.runtime.benchmark import pace, race, run_seconds
from onnxcompress.runtime.session import open_session
from onnxcompress.solvers.sequential import SAMPLES, divide, observe_moments, solvable, takes_bias

Array = np.ndarray[Any, Any]

ENERGY = 0.99
"""Share of the energy of a layer's output that is kept, by default. MiniLM's embeddings keep a mean cosine of 0.90 at
81 % of its layers' work; with 0.995 it is 0.95 at 91 %, with 0.98 0.76 at 66 %, before tuning."""

RANKS = 8
"""Ranks tried for each layer when the time chooses."""

WORTHWHILE = 0.95
"""Two factors that take more than this share of the layer's time are not worth their error."""

MOMENTS_BUDGET = 512 << 20
"""Bytes of second moments held at a time; beyond it the data is walked several times."""

ROUNDS, RACE_SECONDS = 5, 1.0
"""Of the race between the result and the original."""


@dataclass(frozen=True)
class Outcome:
    """What became of a layer.

    Attributes:
        name, op: the node's.
        reason: in words.
        rank: of its factors; None: it stays as it is.
        lost: share of the energy of its output that the factors lose, on the data; 0 to 1.
        ms, factored_ms: measured alone; None where it was not.
    """

    name: str
    op: str
    reason: str
    rank: int | None = None
    lost: float = 0.0
    ms: float | None = None
    factored_ms: float | None = None


@dataclass(frozen=True)
class Factorized:
    """What `factorize` gives back.

    Attributes:
        model: a new model; the optimized original where nothing is gained.
        outcomes: one a layer, in graph order.
        speedup: over the optimized original, raced in turn, median; 1 where nothing was factorized.
        notes: what the user should know.
    """

    model: ir.Model
    outcomes: list[Outcome]
    speedup: float = 1.0
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Study:
    """A layer, what its ranks lose, and how long it takes at those that were timed.

    `mean` is that of its input where the bias takes up what the factors make of it; else None.
    """

    layer: Layer
    spectrum: Spectrum
    mean: Array | None
    times: Times

    @property
    def options(self) -> list[Option]:
        """The layer as it is, then the ranks that are worth it."""
        faster = [
            Option(rank, ms, self.spectrum.lost(rank))
            for rank, ms in self.times.factored.items()
            if ms <= WORTHWHILE * self.times.dense
        ]
        return [Option(None, self.times.dense, 0.0), *faster]


def factorize(
    model: Source,
    *,
    data: Sources,
    energy: float | None = None,
    latency: float | None = None,
    exclude: Sequence[str] = (),
    samples: int = SAMPLES,
    threads: int = 1,
    progress: Progress = silent,
) -> Factorized:
    """Replace linear layers and convolutions by two of low rank each: activation-aware singular value decomposition.

    The weight is approximated where the data's activations lie (`passes.lowrank.decompose`), and their mean is left to
    the bias where there is one. A layer is replaced only
    where its two factors were measured to be faster than the layer itself, with its real shapes; and where the whole
    model does not come out faster, it is given back as it was.

    Args:
        model: a path, or a model, which is not changed; it is optimized first (standard operators only).
        data: feeds to calibrate on, as for `calibrate`; the first one is what is timed.
        energy: each layer gets the least rank that keeps this share of its output's energy (mean square), over 0, at
            most 1. None: 0.99, if `latency` is None. Losses add up over layers: tune with `distill` then.
        latency: instead, ranks are chosen over all layers together, those that lose least for the time they save,
            until the sum of the layers' times is this share of what it was (or as near as it gets: then noted).
        exclude: nodes that stay: names, or patterns with * and ?.
        samples: feeds to calibrate on, from the first on.
        threads: of the timed sessions.
        progress: called as work goes on.

    Raises:
        ValueError: both `energy` and `latency`, or numbers out of range.
        ModelError: the model cannot be read or run, or a pattern matches no node.
        CalibrationError: activations that are not finite.
        DataError: feeds that do not fit the model, or none.
    """
    if energy is not None and latency is not None:
        raise ValueError("give energy or latency, not both")
    share = latency if latency is not None else ENERGY if energy is None else energy
    if not 0 < share <= 1:
        raise ValueError(f"{'energy' if latency is None else 'latency'} is a share, over 0 and at most 1, not {share}")
    prepared = optimize(model, portable=True)
    feeds = open_data(data, prepared)
    first = next(iter(feeds), None)
    if first is None:
        raise DataError(f"{feeds.name}: no feeds; give at least one, better 100 or more")
    layers, outcomes = _candidates(prepared, exclude)
    seen = _spectra(prepared, layers, feeds.take(0, samples), progress)
    ranks = {layer.name: _ranks(layer, seen[layer.name][0], share, latency is None) for layer in layers}
    times = layer_times(prepared, layers, ranks, first, threads=threads, progress=progress)
    studies = [_Study(layer, *seen[layer.name], times[layer.name]) for layer in layers]
    chosen, notes = _chosen(studies, None if latency is None else share)
    for study in studies:
        needed = study.spectrum.rank_for(share) if latency is None else None
        outcomes[study.layer.name] = _outcome(study, chosen[study.layer.name], needed)
    return _delivered(prepared, studies, Factorized(prepared, list(outcomes.values()), notes=notes), first, threads)


def _candidates(model: ir.Model, exclude: Sequence[str]) -> tuple[list[Layer], dict[str, Outcome]]:
    """The layers that may be factorized, and an outcome for every layer in graph order, theirs still to be told."""
    layers, refusals = find_layers(model)
    excluded = set(matching(exclude, model.graph.all_nodes(), "exclude"))
    by_name = {layer.name: Outcome(layer.name, layer.op, _refusal(layer, excluded)) for layer in layers}
    by_name |= {refusal.name: Outcome(refusal.name, refusal.op, refusal.reason) for refusal in refusals}
    ordered = {name: by_name[name] for node in model.graph.all_nodes() if (name := name_of(node)) in by_name}
    return [layer for layer in layers if not by_name[layer.name].reason], ordered


def _refusal(layer: Layer, excluded: set[str]) -> str:
    if layer.name in excluded:
        return "excluded"
    return "a convolution of groups" if layer.groups != 1 else solvable(layer) or ""


def _spectra(
    model: ir.Model, layers: Sequence[Layer], feeds: DataSet, progress: Progress
) -> dict[str, tuple[Spectrum, Array | None]]:
    """Each layer's weight as its inputs see it, and the mean of its input if the bias can take that up."""
    found: dict[str, tuple[Spectrum, Array | None]] = {}
    for part in divide(layers, limit=MOMENTS_BUDGET):
        nodes = dict(layer_nodes(model, part))
        observed = observe_moments(model, nodes, feeds, progress=progress)
        for layer, node in nodes.items():
            moments, weight = observed[layer.name], to_matrix(weight_of(model, layer), node)
            if takes_bias(node):
                found[layer.name] = decompose(weight, moments.centred[0]), moments.mean[0]
            else:
                found[layer.name] = decompose(weight, moments.second[0], moments.mean[0]), None
    return found


def _ranks(layer: Layer, spectrum: Spectrum, share: float, by_energy: bool) -> list[int]:
    if not by_energy:
        return evenly_spaced(layer, RANKS)
    rank = rounded_up(spectrum.rank_for(share))
    return [rank] if rank < break_even(layer) else []


def _chosen(studies: Sequence[_Study], latency: float | None) -> tuple[dict[str, Option], list[str]]:
    options = {study.layer.name: study.options for study in studies}
    if latency is None:
        return {name: found[-1] for name, found in options.items()}, []
    chosen = choose_ranks(options, latency)
    before = sum(found[0].ms for found in options.values())
    reached = sum(option.ms for option in chosen.values()) / before if before else 1.0
    notes = [f"the layers take {reached:.0%} of their time: no rank is faster"] if reached > latency else []
    return chosen, notes


def _outcome(study: _Study, option: Option, needed: int | None) -> Outcome:
    layer, times = study.layer, study.times
    full = len(study.spectrum.values)
    if option.rank is not None:
        faster = f"x{times.dense / option.ms:.2f}"
        reason = f"rank {option.rank} of {full} loses {option.lost:.2%} of its output's energy, {faster}"
        return Outcome(layer.name, layer.op, reason, option.rank, option.lost, times.dense, option.ms)
    if not times.factored:
        wanted = "ranks go in steps of 16" if needed is None else f"it needs rank {needed} (rounded up to 16)"
        reason = f"{wanted}; two factors multiply less below rank {break_even(layer)} only"
    elif len(study.options) == 1:
        fastest = min(times.factored.items(), key=lambda entry: entry[1])
        reason = f"not faster: {fastest[1]:.3f} ms at rank {fastest[0]}, {times.dense:.3f} ms as it is"
    else:
        reason = "other layers lose less for the time they save"
    return Outcome(layer.name, layer.op, reason, ms=times.dense)


def _delivered(
    prepared: ir.Model, studies: Sequence[_Study], result: Factorized, feed: Feed, threads: int
) -> Factorized:
    """The result with its model factorized, if that is faster as a whole."""
    ranks = {outcome.name: outcome.rank for outcome in result.outcomes if outcome.rank is not None}
    if not ranks:
        return replace(result, notes=[*result.notes, "no layer was factorized"])
    factors, errors = {}, {}
    for study in studies:
        name = study.layer.name
        if name in ranks:
            first, second = factors[name] = study.spectrum.factors(ranks[name])
            if study.mean is not None:
                errors[name] = second.astype(np.float64) @ (first @ study.mean) - study.spectrum.weight @ study.mean
    made = prepared.clone()
    CorrectBias(errors)(made)
    FactorizeLinear(factors)(made)
    speedup = whole_speedup(prepared, made, feed, threads=threads)
    if speedup > 1:
        return replace(result, model=made, speedup=speedup)
    note = f"with {len(ranks)} layers factorized the model was x{speedup:.2f} as fast: it was left as it is"
    undone = [Outcome(o.name, o.op, note) if o.rank is not None else o for o in result.outcomes]
    return replace(result, outcomes=undone, notes=[*result.notes, note])


def whole_speedup(before: ir.Model, after: ir.Model, feed: Feed, *, threads: int) -> float:
    """How many times as fast the second model is, raced in turn."""
    sessions = [open_session(model, threads=threads) for model in (before, after)]
    runs = pace(sum(run_seconds(session, [feed]) for session in sessions), RACE_SECONDS, ROUNDS)
    return race(sessions, [feed], threads=threads, rounds=ROUNDS, runs=runs)[1].speedup_median
