"""Masks: which weights stay, made from saliency, and the pass that zeroes the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from onnxcompress.passes.prune.allocation import allocate_globally
from onnxcompress.passes.prune.layers import Layer, from_matrix, layer_nodes, to_matrix, weight_of
from onnxcompress.passes.prune.patterns import Grid, choose, grid_of, unit_count, unit_sums

Array = np.ndarray[Any, Any]
Allocation = Literal["uniform", "global"]


def make_masks(
    model: ir.Model,
    layers: Sequence[Layer],
    saliency: Mapping[str, Array],
    pattern: str,
    sparsity: float | None = None,
    allocation: Allocation = "uniform",
    ratios: Mapping[str, float] | None = None,
) -> dict[str, Array]:
    """Masks that remove the weights of least saliency in a pattern.

    A unit's saliency (of a block) is the sum of its weights'.

    Args:
        model: unchanged.
        layers: of it, from `find_layers`; those of them that are to be pruned.
        saliency: about what removing each weight costs, by initializer, of the initializer's shape.
        pattern: `Pattern`.
        sparsity: share of the units that go; for N:M it follows from the pattern, and may be left out.
        allocation: the share of each layer, or ('global') of all together, where the least of all go.
        ratios: sparsities by layer name, in the place of `sparsity`; layers that it lacks are left out.

    Returns:
        by initializer name: bool, of its shape, True where a weight is kept.

    Raises:
        ValueError: arguments that do not go together, saliency that is missing or of another shape.
    """
    grid = grid_of(pattern)
    sparsity = checked_sparsity(pattern, sparsity, ratios)
    if grid.keep is not None and (allocation != "uniform" or ratios is not None):
        raise ValueError(f"{pattern} removes the same share everywhere: it takes no allocation")
    if ratios is not None:
        layers = [layer for layer in layers if layer.name in ratios]
    scores = _scores(model, layers, saliency)
    counts = _counts(layers, scores, grid, sparsity, allocation, ratios)
    masks = {}
    for layer, node in layer_nodes(model, layers):
        kept = choose(scores[layer.weight], grid, counts[layer.weight])
        masks[layer.weight] = from_matrix(kept, node, weight_of(model, layer).shape)
    return masks


def _counts(
    layers: Sequence[Layer],
    scores: Mapping[str, Array],
    grid: Grid,
    sparsity: float,
    allocation: Allocation,
    ratios: Mapping[str, float] | None,
) -> dict[str, int]:
    """How many units of each layer go, by initializer."""
    if allocation == "global" and ratios is None:
        return allocate_globally({name: unit_sums(matrix, grid) for name, matrix in scores.items()}, sparsity)
    shares = {layer.weight: sparsity if ratios is None else ratios[layer.name] for layer in layers}
    return {name: round(share * unit_count(grid, scores[name].shape)) for name, share in shares.items()}


def _scores(model: ir.Model, layers: Sequence[Layer], saliency: Mapping[str, Array]) -> dict[str, Array]:
    """The saliency of layers as [N, K], by initializer."""
    scores = {}
    for layer, node in layer_nodes(model, layers):
        given = saliency.get(layer.weight)
        if given is None or given.shape != weight_of(model, layer).shape:
            raise ValueError(f"the saliency of {layer.weight!r} is missing or of another shape")
        scores[layer.weight] = to_matrix(given, node)
    return scores


def checked_sparsity(pattern: str, sparsity: float | None, ratios: Mapping[str, float] | None = None) -> float:
    """The sparsity that a pattern and a wish come to; 0 where ratios say it.

    Raises:
        ValueError: none is given where one is needed, or one that the pattern does not have, or outside of 0 to 1.
    """
    grid = grid_of(pattern)
    for value in (sparsity, *(ratios or {}).values()):
        if value is not None and not 0 <= value < 1:
            raise ValueError(f"sparsity must be at least 0 and below 1, not {value}")
    if grid.keep is not None:
        share = 1 - grid.keep / grid.columns
        if sparsity not in (None, share):
            raise ValueError(f"the pattern {pattern} has a sparsity of {share}: leave it out")
        return share
    if sparsity is None and ratios is None:
        raise ValueError(f"the pattern {pattern} needs a sparsity: the share of the weights to remove")
    return sparsity or 0.0


class ApplyMasks(ir.passes.InPlacePass):
    """Set the weights that masks remove to zero. Main graph only; a second run changes nothing.

    Args:
        masks: by initializer name: bool, of its shape, True where a weight is kept.

    Raises:
        ValueError: a mask of an initializer that the model does not have, or of another shape.
    """

    def __init__(self, masks: Mapping[str, Array]) -> None:
        super().__init__()
        self.masks = dict(masks)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        found = {}
        for name, mask in self.masks.items():
            value = model.graph.initializers.get(name)
            tensor = None if value is None else value.const_value
            if value is None or tensor is None or tuple(tensor.shape) != mask.shape:
                raise ValueError(f"the model has no initializer {name!r} of shape {mask.shape} for its mask")
            found[name] = (value, tensor)
        modified = False
        for name, (value, tensor) in found.items():
            weight, kept = tensor.numpy(), self.masks[name].astype(bool)
            if np.any(weight[~kept]):
                value.const_value = ir.tensor(np.where(kept, weight, np.zeros((), weight.dtype)), name=name)
                modified = True
        return ir.passes.PassResult(model, modified)
