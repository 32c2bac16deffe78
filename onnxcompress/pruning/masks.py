"""`prune` by masks: single weights, N of M, blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcompress.data import DataSet
from onnxcompress.passes.prune import (
    ApplyMasks,
    Layer,
    Refusal,
    allocate_by_error,
    checked_sparsity,
    find_layers,
    grid_of,
    layer_nodes,
    make_masks,
    pattern_refusal,
    relative_scores,
    to_matrix,
    weight_of,
)
from onnxcompress.passes.prune.patterns import unit_sums
from onnxcompress.progress import Progress
from onnxcompress.pruning.options import Options
from onnxcompress.pruning.saliency import LOCAL, measure_saliency
from onnxcompress.quantization_names import matching
from onnxcompress.solvers import PruneLayers, magnitude_saliency, solvable, solve_layers
from onnxcompress.solvers.curves import error_curves
from onnxcompress.solvers.sequential import scarcity

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class LayerReport:
    """What became of a layer.

    Attributes:
        weights: elements of its weight.
        sparsity: share of zeros among them.
        error: E||(W' - W) x||^2 / E||W x||^2 of its output after compensation, x what it reads in the pruned model;
            None where it was not measured.
        reason: why it was left as it is; empty where it was pruned.
    """

    name: str
    op: str
    weights: int
    sparsity: float
    error: float | None = None
    reason: str = ""


@dataclass
class _Plan:
    """Layers to prune, the share of the units of each that goes, and masks where they are made beforehand."""

    layers: list[Layer]
    ratios: dict[str, float]
    masks: dict[str, Array] | None = None


def prune_masks(
    model: ir.Model, options: Options, data: DataSet | None, notes: list[str], progress: Progress
) -> tuple[list[LayerReport], list[Refusal]]:
    """Prune a float model in place; reports on its layers, and on the nodes with weights that stay as they are."""
    layers, refusals = _picked(model, options)
    if not layers:
        notes.append(f"nothing was pruned: {_why_not(refusals)}")
        return [], refusals
    plan = _planned(model, layers, options, data, progress)
    errors = {}
    if options.compensate:
        assert data is not None
        errors = _solve(model, plan, options, data, notes, progress)
    else:
        assert plan.masks is not None
        ApplyMasks(plan.masks)(model)
    return [_report(model, layer, errors.get(layer.name)) for layer in layers], refusals


def _picked(model: ir.Model, options: Options) -> tuple[list[Layer], list[Refusal]]:
    """The layers that take the pattern, and those with weights that do not."""
    found, refusals = find_layers(model)
    excluded = set(matching(options.exclude, model.graph, "exclude"))
    layers = []
    for layer in found:
        reason = "excluded" if layer.name in excluded else pattern_refusal(layer, options.pattern)
        if reason is None:
            layers.append(layer)
        else:
            refusals.append(Refusal(layer.name, layer.op, reason))
    return layers, refusals


def _planned(model: ir.Model, layers: list[Layer], options: Options, data: DataSet | None, progress: Progress) -> _Plan:
    """How much of each layer goes; which weights do, unless the solver finds that out."""
    grid = grid_of(options.pattern)
    sparsity = checked_sparsity(options.pattern, options.sparsity)
    kind = options.saliency or ("obs" if data is not None else "magnitude")
    chosen_by_solver = bool(options.compensate) and kind == "obs"
    uniform = options.allocation == "uniform"
    if chosen_by_solver and uniform:
        return _Plan(layers, {layer.name: sparsity for layer in layers})
    saliency = measure_saliency(model, layers, kind, data, options, progress)
    if grid.keep is not None:
        masks = make_masks(model, layers, saliency, options.pattern)
    elif options.allocation == "sensitivity":
        assert data is not None
        curves = error_curves(
            model, layers, saliency, options.pattern, data, threads=options.threads, progress=progress
        )
        sizes = {layer.name: layer.outputs * layer.inputs for layer in layers}
        ratios = allocate_by_error(curves, sizes, sparsity)
        masks = make_masks(model, layers, saliency, options.pattern, ratios=ratios)
    else:
        if not uniform and kind in LOCAL:
            saliency = {name: relative_scores(scores) for name, scores in saliency.items()}
        masks = make_masks(model, layers, saliency, options.pattern, sparsity, "uniform" if uniform else "global")
    ratios = {layer.name: _removed_share(model, layer, masks[layer.weight], options.pattern) for layer in layers}
    return _Plan(layers, ratios, None if chosen_by_solver else masks)


def _removed_share(model: ir.Model, layer: Layer, mask: Array, pattern: str) -> float:
    """Share of a mask's units that go."""
    ((_, node),) = layer_nodes(model, [layer])
    kept = unit_sums(to_matrix(mask, node).astype(np.int64), grid_of(pattern)) > 0
    return 1 - float(kept.mean())


def _solve(
    model: ir.Model, plan: _Plan, options: Options, data: DataSet, notes: list[str], progress: Progress
) -> dict[str, float]:
    """Prune with compensation; the error of each layer's output, by its name."""
    large = [layer for layer in plan.layers if solvable(layer) is not None]
    if large:
        notes.append(f"{len(large)} layers are not compensated: {large[0].name}, for one: {solvable(large[0])}")
        ratios = {layer.name: plan.ratios[layer.name] for layer in large}
        given = None if grid_of(options.pattern).keep is not None else ratios
        masks = make_masks(model, large, magnitude_saliency(model, large), options.pattern, ratios=given)
        ApplyMasks(masks)(model)
    layers = [layer for layer in plan.layers if solvable(layer) is None]
    step = PruneLayers(
        grid_of(options.pattern), plan.ratios, options.solver, _matrices(model, layers, plan.masks or {})
    )
    rows = solve_layers(
        model, layers, data.take(0, options.samples), step, threads=options.threads, seed=options.seed,
        progress=progress,
    )  # fmt: skip
    notes += scarcity(layers, rows)
    return step.errors


def _matrices(model: ir.Model, layers: Sequence[Layer], masks: Mapping[str, Array]) -> dict[str, Array]:
    """Masks as [N, K], by layer name."""
    return {
        layer.name: to_matrix(masks[layer.weight], node)
        for layer, node in layer_nodes(model, layers)
        if layer.weight in masks
    }


def _report(model: ir.Model, layer: Layer, error: float | None) -> LayerReport:
    weight = weight_of(model, layer)
    return LayerReport(layer.name, layer.op, weight.size, float(np.mean(weight == 0)), error)


def _why_not(refusals: Sequence[Refusal]) -> str:
    if not refusals:
        return "the model has no Conv, Gemm or MatMul with constant weights"
    return f"{refusals[0].name} stays, for one: {refusals[0].reason}"
