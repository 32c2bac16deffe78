"""Per-token scales: each row of a tensor is rounded by its own range, found while the model runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import onnx_ir as ir

from onnxcompress.ops import DOMAIN
from onnxcompress.passes.lower.transformer.lowering import Lowering, label, replaced_names
from onnxcompress.passes.simplify.editor import Editor, attribute, only_reader

LONG_TAILED = frozenset(("gelu", "gelu_tanh", "silu"))
"""Activations whose greatest values lie far from the others: clipping them costs accuracy, not clipping them too."""

READERS = frozenset(("QLinear", "QLinearLayerNorm"))


class DynamicRows(Lowering):
    """The tensor between two linear layers is rounded row by row.

    1. A QLinear writes uint8 with one constant scale, without a table, to one QLinear or QLinearLayerNorm that reads
       it as its x.
    2. Its activation is Gelu or SiLU ("mlp"), or one of the nodes that it replaced is named.

    MiniLM's cosine to float32 is 0.9986 so, and 0.996 with one scale for all of the tensor.

    Args:
        per_token: "mlp", or the names of nodes (of linear layers or activations) whose results are rounded so.
    """

    anchors = ("QLinear",)
    domains = (DOMAIN,)

    def __init__(self, per_token: Iterable[str] | Literal["mlp"] = "mlp") -> None:
        super().__init__()
        self.named = None if per_token == "mlp" else frozenset(per_token)

    def find(self, node: ir.Node) -> ir.Node | str | None:
        if self.named is None:
            if attribute(node, "activation", "") not in LONG_TAILED:
                return None
        elif not self.named & {label(node), *replaced_names([node])}:
            return None
        if attribute(node, "dynamic", 0) or len(node.outputs) != 1:
            return "its result is float, or rounded by rows already"
        if len(node.inputs) > 9 and node.inputs[9] is not None:
            return "its result goes through a table"
        reader = only_reader(node.outputs[0])
        if reader is None or reader.domain != DOMAIN or reader.op_type not in READERS:
            return "its result is not read by one linear layer alone"
        return reader

    def rewrite(self, node: ir.Node, found: ir.Node, editor: Editor) -> str:
        old = node.outputs[0]
        inputs = list(node.inputs[:7])
        while inputs[-1] is None:
            inputs.pop()
        attributes = {name: attribute(node, name) for name in node.attributes} | {"dynamic": 1}
        stem = replaced_names([node])[0]
        made = editor.insert("QLinear", inputs, attributes, before=node, like=old, outputs=4, domain=DOMAIN, stem=stem)
        y, unused, scale, zero_point = made.outputs
        unused.name = ""
        rows = None if old.shape is None else ir.Shape([*old.shape[:-1], 1])
        scale.type, zero_point.type = ir.TensorType(ir.DataType.FLOAT), ir.TensorType(ir.DataType.UINT8)
        scale.shape, zero_point.shape = rows, None if rows is None else rows.copy()
        for index, value in enumerate((scale, zero_point), start=1):
            editor.set_input(found, index, value)
        editor.supersede(old, y)
        activation = attributes.get("activation", "")
        return " + ".join(["QLinear", *([activation] if activation else [])]) + ", rounded by rows"
