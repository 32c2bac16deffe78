"""Fusion: several nodes become one that computes the same."""

from __future__ import annotations

from onnxcompress.passes.fuse.activations import ACTIVATIONS
from onnxcompress.passes.fuse.affine import INTO_WEIGHTS
from onnxcompress.passes.fuse.arithmetic import CONSTANTS
from onnxcompress.passes.fuse.linear import LINEAR_RULES
from onnxcompress.passes.fuse.normalization import LAYER_NORM, SKIP_LAYER_NORM
from onnxcompress.passes.fuse.shift import SHIFT
from onnxcompress.passes.simplify import ApplyRules, PassFactory

__all__ = ["FUSE", "FUSE_PORTABLE"]

FUSE_PORTABLE: tuple[PassFactory, ...] = (
    # Activations and norms first: they are made of the factors that the affine rules would take away.
    lambda: ApplyRules("activations", ACTIVATIONS),
    lambda: ApplyRules("layer norm", LAYER_NORM),
    lambda: ApplyRules("affine", (*INTO_WEIGHTS, *SHIFT, *CONSTANTS)),
    lambda: ApplyRules("linear", LINEAR_RULES),
)
"""Fusions into standard ops."""

FUSE: tuple[PassFactory, ...] = (*FUSE_PORTABLE, lambda: ApplyRules("skip layer norm", SKIP_LAYER_NORM))
"""Those, and fusions into ops of ONNX Runtime."""
