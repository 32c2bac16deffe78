"""Weights with many zero blocks, as block-sparse operators."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcompress.ops import DOMAIN
from onnxcompress.ops.blocks import to_blocks
from onnxcompress.passes.lower.rewriting import (
    constant,
    given_attributes,
    given_inputs,
    replace,
    taken_outputs,
    written,
)
from onnxcompress.passes.quantize.roles import Decision

Array = np.ndarray[Any, Any]

MOST_4X4, MOST_1X4 = 0.7, 0.25
"""Share of present blocks up to which skipping the others pays; measured at 128x384x1536, where 1 x 4 blocks take twice
the time a weight."""

WEIGHT = "w"

_BECOMES = {"QLinear": "QSparseLinear", "QLinearLayerNorm": "QSparseLinearLayerNorm", "QConv": "QSparseConv"}


class UseSparseWeights(ir.passes.InPlacePass):
    """A lowered layer whose weights have many zero blocks of n x 4 (outputs x inputs) stores and runs the others only.

    1. QLinear becomes QSparseLinear.
    2. QLinearLayerNorm becomes QSparseLinearLayerNorm.
    3. QConv on uint8 NHWC with one group and no residual becomes QSparseConv.

    In all cases at most 70 % of the 4 x 4 blocks are present, or at most a quarter of the 1 x 4 blocks and less than
    half the share of the others. Zero weights change no sum: results are the same.

    Args:
        dense: names of nodes that stay as they are: zeros cost less than skipping them.

    After a run, `decisions` names the nodes.
    """

    def __init__(self, dense: Set[str] = frozenset()) -> None:
        super().__init__()
        self.dense = dense
        self.decisions: list[Decision] = []

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        self.decisions = []
        for node in list(model.graph):
            if node.domain != DOMAIN or node.op_type not in _BECOMES or node.name in self.dense:
                continue
            weight = given_inputs(node).get(WEIGHT)
            if weight is None or weight.const_value is None or not _is_plain(node):
                continue
            w = weight.const_value.numpy()
            rows = _block_rows(w.reshape(w.shape[0], -1))
            if rows is None:
                continue
            given = {**given_inputs(node), **_blocks(model.graph, node, w, rows)}
            attributes = {**given_attributes(node), **_weight_attributes(w)}
            replace(model.graph, node, written(_BECOMES[node.op_type], given, attributes, taken_outputs(node)))
            self.decisions.append(Decision(node.name or "", node.op_type, True, f"sparse, blocks of {rows} x 4"))
        return ir.passes.PassResult(model, bool(self.decisions))


def _is_plain(node: ir.Node) -> bool:
    """Has the node nothing that the sparse operators lack?"""
    if node.op_type != "QConv":
        return True
    given = given_inputs(node)
    plain = not {"residual", "inner_scale", "final_scale"} & set(given)
    layouts = {node.attributes.get_string(name, "NHWC") for name in ("x_layout", "y_layout")}
    return plain and layouts == {"NHWC"} and node.attributes.get_int("group", 1) == 1


def _block_rows(w: Array) -> int | None:
    """The height of the blocks to store w [N, K] by, or None where it is too dense."""
    single, four = (_present(w, rows) for rows in (1, 4))
    if single <= MOST_1X4 and single < four / 2:
        return 1
    return 4 if four <= MOST_4X4 else None


def _present(w: Array, rows: int) -> float:
    """The share of blocks of rows x 4 that are not all zeros."""
    padded = np.pad(w != 0, [(0, -w.shape[0] % rows), (0, -w.shape[1] % 4)])
    present = padded.reshape(padded.shape[0] // rows, rows, -1, 4).any(axis=(1, 3))
    return float(present.mean()) if present.size else 1.0


def _blocks(graph: ir.Graph, node: ir.Node, w: Array, rows: int) -> dict[str, ir.Value]:
    """The weight's blocks as initializers."""
    stored = to_blocks(w.reshape(w.shape[0], -1), rows)._asdict()
    return {name: constant(graph, f"{node.name}/{name}", array) for name, array in stored.items()}


def _weight_attributes(w: Array) -> dict[str, Any]:
    """Attributes that say what the blocks alone do not."""
    return {"kernel_shape": w.shape[1:3], "in_channels": w.shape[3]} if w.ndim == 4 else {"in_features": w.shape[1]}
