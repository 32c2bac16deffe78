"""Lowering of convolution networks: from the QDQ graph to our operators on uint8 NHWC."""

from __future__ import annotations

from collections.abc import Set

import onnx_ir as ir

from onnxcompress.passes.lower.convolution.emitting import Emitter
from onnxcompress.passes.lower.convolution.finding import FINDERS, find_step
from onnxcompress.passes.lower.convolution.flow import CONVOLUTIONS, Flow, regions
from onnxcompress.passes.lower.convolution.focus import FoldFocus
from onnxcompress.passes.lower.convolution.fusion import fuse
from onnxcompress.passes.lower.convolution.reading import Functions
from onnxcompress.passes.lower.convolution.steps import Refused, Step
from onnxcompress.passes.lower.convolution.tables import tabulate
from onnxcompress.passes.lower.functions import replaced_nodes
from onnxcompress.passes.quantize.roles import Decision
from onnxcompress.passes.simplify.editor import STANDARD_DOMAINS

__all__ = ["FoldFocus", "LowerConvolutions"]


class LowerConvolutions(ir.passes.InPlacePass):
    """Convolutions between Q and DQ, and what lies between them, become operators of ours on uint8 NHWC.

    1. A node of a type that has an operator of ours, whose operands are uint8 feature maps: see `find_step`.
    2. Whatever works element by element on one uint8 tensor is a table of 256 bytes, in the operator that writes the
       tensor where all its readers want the same function of it, else a QTable: see `tabulate`.
    3. Several of these become one operator: see `fuse`.
    4. A connected part without a convolution stays, for the conversions around it would cost more than it.
    5. At the borders: a float image of few channels is quantized inside its convolution, other floats by QuantizeNHWC;
       a convolution writes float where only that is read, other bytes are turned to float by DequantizeNCHW, or
       transposed for int8 kernels of ONNX Runtime.

    Only the main graph is touched. Nodes of ours say in their metadata what they replace.

    Args:
        exclude: names of nodes that stay.

    After a run, `decisions` holds what became of every node of case 1's types that reads uint8, and of what went with
    it: `quantized` says whether it was lowered, `reason` to what, or why not.
    """

    def __init__(self, exclude: Set[str] = frozenset()) -> None:
        super().__init__()
        self.exclude = exclude
        self.decisions: list[Decision] = []

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        self.decisions = []
        types = {node.name: node.op_type for node in model.graph}
        functions = tabulate(model.graph)
        flow = Flow(self._find(model.graph, functions), functions)
        self._drop_regions(flow)
        fuse(flow)
        emitter = Emitter(model, flow)
        for step in flow.steps:
            emitter.emit(step)
        for step in flow.steps:
            names = replaced_nodes(emitter.written[step])
            self.decisions += [Decision(name, types.get(name, ""), True, step.op) for name in names]
        return ir.passes.PassResult(model, bool(flow.steps))

    def _find(self, graph: ir.Graph, functions: Functions) -> list[Step]:
        steps = []
        for node in graph:
            if node.op_type not in FINDERS or node.domain not in STANDARD_DOMAINS or node.outputs[0] in functions:
                continue
            try:
                if node.name in self.exclude:
                    raise Refused("excluded")
                steps.append(find_step(node, functions))
            except Refused as refused:
                reads = any(value in functions for value in node.inputs if value is not None)
                if reads or node.op_type in ("Conv", "ConvTranspose"):
                    self.decisions.append(Decision(node.name or "", node.op_type, False, str(refused)))
        return steps

    def _drop_regions(self, flow: Flow) -> None:
        for region in list(regions(flow)):
            if not any(step.op in CONVOLUTIONS for step in region):
                flow.drop(region)
                reason = "no convolution is near: the conversions would cost more"
                nodes = [node for step in region for node in step.nodes]
                self.decisions += [Decision(node.name or "", node.op_type, False, reason) for node in nodes]
