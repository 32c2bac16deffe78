"""Pruning: which weights go (masks, channels, layers), from saliency that was measured before."""

from onnxcompress.passes.prune.allocation import Point, allocate_by_error, relative_scores
from onnxcompress.passes.prune.layers import Layer, Refusal, find_layers, from_matrix, layer_nodes, to_matrix, weight_of
from onnxcompress.passes.prune.masks import Allocation, ApplyMasks, checked_sparsity, make_masks
from onnxcompress.passes.prune.patterns import GRIDS, Grid, Pattern, grid_of, pattern_refusal
from onnxcompress.passes.prune.schedule import sparsity_at

__all__ = [
    "GRIDS",
    "Allocation",
    "ApplyMasks",
    "Grid",
    "Layer",
    "Pattern",
    "Point",
    "Refusal",
    "allocate_by_error",
    "checked_sparsity",
    "find_layers",
    "from_matrix",
    "grid_of",
    "layer_nodes",
    "make_masks",
    "pattern_refusal",
    "relative_scores",
    "sparsity_at",
    "to_matrix",
    "weight_of",
]
