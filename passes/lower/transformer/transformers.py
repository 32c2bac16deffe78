"""All lowerings of transformers in their order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from onnxcompress.passes.lower.transformer.attention import LowerAttention
from onnxcompress.passes.lower.transformer.embedding import LowerEmbedding
from onnxcompress.passes.lower.transformer.linear import LowerLinears
from onnxcompress.passes.lower.transformer.lowering import Lowering
from onnxcompress.passes.lower.transformer.normalization import LowerNormalizations
from onnxcompress.passes.lower.transformer.per_token import DynamicRows
from onnxcompress.passes.lower.transformer.pooling import LowerPooling
from onnxcompress.passes.lower.transformer.quantizers import TakeQuantizers
from onnxcompress.passes.quantize.roles import Decision
from onnxcompress.passes.simplify.cleanup import RemoveDead

Array = np.ndarray[Any, Any]


class LowerTransformers(ir.passes.InPlacePass):
    """Lower a QDQ graph: attention first (it looks for linear layers in standard operators), normalizations with the
    linear layers before them, the other linear layers; then scales per token, and what is rounded at the edges.

    Args:
        channels: as of `LowerAttention`.
        per_token: as of `DynamicRows`; empty: none.
        tables: as of `LowerEmbedding`.
        standard: names of nodes that are not lowered.

    Attributes:
        decisions: what became of each node that one of the passes looked at; set by the call.
    """

    def __init__(
        self,
        channels: Mapping[str, Array],
        *,
        per_token: Iterable[str] | Literal["mlp"] = "mlp",
        tables: bool = True,
        standard: Iterable[str] = (),
    ) -> None:
        super().__init__()
        kept = frozenset(standard)
        self.passes: tuple[Lowering, ...] = (
            LowerAttention(channels, kept),
            LowerEmbedding(tables=tables, standard=kept),
            LowerNormalizations(kept),
            LowerLinears(kept),
            DynamicRows(per_token),
            TakeQuantizers(),
            LowerPooling(kept),
        )
        self.decisions: list[Decision] = []

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        decisions: dict[str, Decision] = {}
        for step in self.passes:
            modified |= step(model).modified
            for decision in step.decisions:
                first = decisions.get(decision.name)
                if first is None or not first.quantized:
                    decisions[decision.name] = decision
                elif decision.quantized:  # a later pass changed what the node had become
                    decisions[decision.name] = replace(first, reason=decision.reason)
        self.decisions = list(decisions.values())
        if modified:
            RemoveDead()(model)
        return ir.passes.PassResult(model, modified)
