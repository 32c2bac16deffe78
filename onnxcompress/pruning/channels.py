"""`prune` by channels: whole channels, neurons and heads, and what reads them refitted to what is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcompress.data import DataSet
from onnxcompress.errors import ModelError
from onnxcompress.passes.prune import Grid, Layer, Refusal, find_layers, layer_nodes, to_matrix, weight_of
from onnxcompress.passes.prune.channels import Group, PruneChannels, choose_units, find_groups
from onnxcompress.progress import Progress
from onnxcompress.pruning.options import Options
from onnxcompress.pruning.units import score_units
from onnxcompress.quantization_names import matching
from onnxcompress.solvers import PruneLayers, solvable, solve_layers
from onnxcompress.solvers.sequential import scarcity

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Cut:
    """What became of the groups of a model.

    Attributes:
        groups: of coupled channels that could be cut.
        keep: the units of each that stayed; a group that is not in it stayed whole.
        refused: channels that could not be cut.
    """

    groups: list[Group]
    keep: dict[str, tuple[int, ...]]
    refused: list[Refusal]


def prune_channels(
    model: ir.Model, options: Options, data: DataSet | None, notes: list[str], progress: Progress
) -> Cut:
    """Prune a float model in place.

    Raises:
        ModelError: the share of multiply-accumulates cannot be reached.
    """
    progress("finding groups", 0, None)
    found, refused = find_groups(model)
    excluded = set(matching(options.exclude, model.graph, "exclude"))
    groups = [group for group in found if not any(member.node in excluded for member in group.members)]
    layers, _ = find_layers(model)
    scores, comparable = score_units(model, groups, layers, options, data, notes, progress)
    shapes = options.shapes or first_shapes(data)
    assert options.macs is not None
    try:
        keep = choose_units(model, groups, scores, options.macs, normalize=not comparable, shapes=shapes)
    except ValueError as error:
        raise ModelError(f"macs {options.macs:g}: {error}") from error
    if not keep:
        notes.append(f"nothing was cut: {_why_not(refused)}")
    if options.compensate:
        assert data is not None
        cut = [group for group in groups if group.name in keep]
        notes += _refit(model, cut, keep, layers, options, data, progress)
    PruneChannels(keep)(model)
    left_out = [Refusal(group.name, group.members[0].op, "excluded") for group in found if group not in groups]
    return Cut(groups, keep, [*refused, *left_out])


def _why_not(refused: Sequence[Refusal]) -> str:
    if refused:
        return f"{refused[0].name} stays, for one: {refused[0].reason}"
    return "no channels of the main graph can be cut, and those of subgraphs are not looked at"


def _refit(
    model: ir.Model,
    groups: Sequence[Group],
    keep: Mapping[str, Sequence[int]],
    layers: Sequence[Layer],
    options: Options,
    data: DataSet,
    progress: Progress,
) -> list[str]:
    """Let the layers that read cut channels make do with the others: their weights on the cut ones become zero.

    Returns:
        notes.
    """
    by_weight = {layer.weight: layer for layer in layers}
    masks: dict[str, Array] = {}
    for group in groups:
        stays = np.zeros(group.size + 1, bool)
        stays[list(keep[group.name])] = True
        stays[-1] = True  # positions that belong to no unit have index -1
        for member in group.members:
            layer = by_weight.get(member.initializer)
            if member.role != "reads" or layer is None or solvable(layer) is not None:
                continue
            shape = weight_of(model, layer).shape
            along = [1] * len(shape)
            along[member.axis] = -1
            kept = stays[np.array(member.units)].reshape(along)
            masks[layer.weight] = masks.get(layer.weight, np.ones(shape, bool)) & kept
    readers = [layer for layer in layers if layer.weight in masks]
    given = {layer.name: to_matrix(masks[layer.weight], node) for layer, node in layer_nodes(model, readers)}
    step = PruneLayers(Grid(), {}, masks=given)
    feeds = data.take(0, options.samples)
    rows = solve_layers(model, readers, feeds, step, threads=options.threads, seed=options.seed, progress=progress)
    return scarcity(readers, rows)


def first_shapes(data: DataSet | None) -> dict[str, tuple[int, ...]]:
    """Shapes of the first feed: what multiply-accumulates are counted for."""
    for feed in [] if data is None else data.take(0, 1):
        return {name: array.shape for name, array in feed.items()}
    return {}
