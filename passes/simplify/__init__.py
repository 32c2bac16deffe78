"""Simplification: the same computation in fewer nodes, weights untouched."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from onnxcompress.passes.simplify.chains import CHAINS
from onnxcompress.passes.simplify.cleanup import (
    InlineBranches,
    InlineFunctions,
    RemoveDead,
    ShareSubexpressions,
    count_nodes,
)
from onnxcompress.passes.simplify.constants import LiftConstants, ShareConstants
from onnxcompress.passes.simplify.folding import FoldConstants
from onnxcompress.passes.simplify.inference import DropShapes, InferShapes
from onnxcompress.passes.simplify.noops import NO_OPS
from onnxcompress.passes.simplify.opset import ConvertOpset
from onnxcompress.passes.simplify.rules import ApplyRules, Rule
from onnxcompress.passes.simplify.shapes import FoldShapes

__all__ = [
    "PREPARE", "SIMPLIFY", "ApplyRules", "ConvertOpset", "DropShapes", "FoldConstants", "FoldShapes", "InferShapes",
    "InlineBranches", "InlineFunctions", "LiftConstants", "RemoveDead", "Rule", "ShareConstants",
    "ShareSubexpressions", "count_nodes",
]  # fmt: skip

PassFactory = Callable[[], ir.passes.InPlacePass]

PREPARE: tuple[PassFactory, ...] = (InlineFunctions, LiftConstants, RemoveDead)
"""Once, before anything else."""

SIMPLIFY: tuple[PassFactory, ...] = (
    lambda: InferShapes(working=True),
    FoldShapes,
    FoldConstants,
    InlineBranches,
    lambda: ApplyRules("no-ops", NO_OPS),
    lambda: ApplyRules("chains", CHAINS),
    ShareSubexpressions,
    ShareConstants,
    RemoveDead,
)
"""Again and again, until none changes anything."""
