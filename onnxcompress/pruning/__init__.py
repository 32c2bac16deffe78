"""`prune`: what is removed, by which saliency, and what the rest is refitted to."""

from onnxcompress.pruning.options import Options, Pattern
from onnxcompress.pruning.pruner import Pruned, prune, prune_file

__all__ = ["Options", "Pattern", "Pruned", "prune", "prune_file"]
