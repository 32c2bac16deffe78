"""Structured pruning: groups of coupled channels, neurons and heads; blocks behind a residual."""

from onnxcompress.passes.prune.channels.blocks import Block, DropBlocks, find_blocks, find_transformer_layers
from onnxcompress.passes.prune.channels.choosing import choose_units, rounding
from onnxcompress.passes.prune.channels.cut import PruneChannels
from onnxcompress.passes.prune.channels.groups import Group, Member, explain, find_groups, unit_saliency

__all__ = [
    "Block", "DropBlocks", "Group", "Member", "PruneChannels", "choose_units", "explain", "find_blocks", "find_groups",
    "find_transformer_layers", "rounding", "unit_saliency",
]  # fmt: skip
