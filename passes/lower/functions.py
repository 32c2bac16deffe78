"""The function bodies that let a lowered model run anywhere."""

from __future__ import annotations

import onnx_ir as ir

from onnxcompress.ops import DOMAIN, OPS, VERSION

REPLACES = "onnxcompress.replaces"
"""Metadata of a node of ours: the names of the nodes that it does the work of, one a line."""


def replaced_nodes(node: ir.Node) -> list[str]:
    """Names of the nodes that a native node does the work of."""
    return [name for name in node.metadata_props.get(REPLACES, "").split("\n") if name]


class AttachFunctions(ir.passes.InPlacePass):
    """Give the model the function body of every onnxcompress node in its main graph, one per variant.

    1. The node's type is in OPS; the element types of its inputs are known (InferShapes after lowering sets those of
       our outputs).

    Functions that no node uses any more are removed. The model's IR version becomes at least 10, which is the first
    that tells overloads apart.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        opset = model.graph.opset_imports.get("", 0)
        used: set[tuple[str, str, str]] = set()
        modified = False
        for node in model.graph:
            if node.domain != DOMAIN or node.op_type not in OPS:
                continue
            op = OPS[node.op_type]
            function = op.function(op.variant(node, opset))
            modified |= node.overload != function.overload or function.identifier() not in model.functions
            node.overload = function.overload
            model.functions.setdefault(function.identifier(), function)
            used.add(function.identifier())
        stale = [key for key in model.functions if key[0] == DOMAIN and key not in used]
        for key in stale:
            del model.functions[key]
        if used:
            model.graph.opset_imports[DOMAIN] = VERSION
            model.ir_version = max(model.ir_version or 0, 10)
        return ir.passes.PassResult(model, modified or bool(stale))
