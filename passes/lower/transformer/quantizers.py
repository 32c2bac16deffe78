"""The rounding of a linear layer's float input, inside the layer."""

from __future__ import annotations

import onnx_ir as ir

from onnxcompress.ops import DOMAIN
from onnxcompress.passes.lower.transformer.lowering import Lowering, Quantized, quantizer
from onnxcompress.passes.simplify.editor import Editor


class TakeQuantizers(Lowering):
    """A QuantizeLinear goes into the QLinear or QLinearLayerNorm that alone reads what it makes.

    1. The layer reads it as its x, by the scale and zero point that it is made with.
    2. It reads float32. Passes that give it a uint8 tensor to read instead come before.
    """

    anchors = ("QLinear", "QLinearLayerNorm")
    domains = (DOMAIN,)

    def find(self, node: ir.Node) -> ir.Value | None:
        x, scale, zero_point = node.inputs[:3]
        before = x.producer() if x is not None else None
        written = quantizer(before)
        if x is None or before is None or written is None or scale is None or zero_point is None:
            return None
        source = before.inputs[0]
        if not written.same_parameters(Quantized(x, scale, zero_point)) or len(x.uses()) != 1 or x.is_graph_output():
            return None
        return source if source is not None and source.dtype == ir.DataType.FLOAT else None

    def rewrite(self, node: ir.Node, found: ir.Value, editor: Editor) -> str:
        editor.set_input(node, 0, found)
        return f"{node.op_type} that rounds its input"
