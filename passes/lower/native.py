"""From a QDQ graph to the operators of this project, with their function bodies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnxcompress.ops import DOMAIN
from onnxcompress.passes.lower.convolution import LowerConvolutions
from onnxcompress.passes.lower.four_bits import UseFourBits
from onnxcompress.passes.lower.functions import AttachFunctions
from onnxcompress.passes.lower.linear import FuseIntegerLinear
from onnxcompress.passes.lower.sparse import UseSparseWeights
from onnxcompress.passes.lower.transformer import LowerTransformers
from onnxcompress.passes.quantize.roles import Decision


class LowerNative(ir.passes.InPlacePass):
    """Transformers, then convolution networks, become operators of ours; what is left, kernels of ONNX Runtime.

    Args:
        heads: greatest magnitudes per channel of queries, keys and values, by tensor name; without those of an
            attention it stays as it is.
        exclude: names of nodes that are left to standard operators.
        dense: names of operators of ours whose zero blocks are multiplied too.
        four_bits: inputs that share a scale in 4-bit weights of linear layers; 0: they stay in 8 bits.

    After a run, `decisions` holds what became of the nodes that have an operator of ours.
    """

    def __init__(
        self,
        heads: Mapping[str, Sequence[float]],
        exclude: Set[str] = frozenset(),
        dense: Set[str] = frozenset(),
        four_bits: int = 0,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.exclude = exclude
        self.dense = dense
        self.four_bits = four_bits
        self.decisions: list[Decision] = []

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        heads = {name: np.asarray(values, np.float32) for name, values in self.heads.items()}
        transformers = LowerTransformers(heads, standard=self.exclude)
        convolutions = LowerConvolutions(self.exclude)
        weights = [UseFourBits(self.four_bits)] if self.four_bits else []
        steps = (
            transformers, convolutions, UseSparseWeights(self.dense), *weights, FuseIntegerLinear(), AttachFunctions(),
        )  # fmt: skip
        modified = [step(model).modified for step in steps]
        self.decisions = [*transformers.decisions, *convolutions.decisions]
        bits = {decision.name: decision.reason for step in weights for decision in step.decisions}
        self.decisions = [
            replace(d, reason=f"{d.reason}; {bits[d.name]}") if d.name in bits else d for d in self.decisions
        ]
        return ir.passes.PassResult(model, any(modified))


def native_nodes(model: ir.Model) -> list[ir.Node]:
    """The nodes of our domain in the main graph."""
    return [node for node in model.graph if node.domain == DOMAIN]
