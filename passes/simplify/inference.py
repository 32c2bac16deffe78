"""Types and shapes of every value, inferred anew: what a file says about them may be stale or wrong."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import onnx
import onnx_ir as ir

from onnxcompress.passes.simplify.dimensions import unify_dimensions
from onnxcompress.passes.simplify.editor import (
    STANDARD_DOMAINS,
    all_graphs,
    all_nodes,
    may_hold_graphs,
    shape_of,
)

logger = logging.getLogger(__name__)

SMALL_TENSOR_BYTES = 1024
"""Larger constants are not shapes: inference sees their type and shape only."""

UNNAMED = "unnamed_"
"""Prefix of the names that unnamed dimensions of inputs get while passes work."""

STAND_INS = {
    ("", "GroupNormalization"): ("Relu", 1),
    ("com.microsoft", "DynamicQuantizeLSTM"): ("LSTM", 8),
    ("com.microsoft", "SkipLayerNormalization"): ("Relu", 1),
    ("com.microsoft", "Gelu"): ("Relu", 1),
    ("com.microsoft", "FastGelu"): ("Relu", 1),
    ("com.microsoft", "QuickGelu"): ("Relu", 1),
    ("com.microsoft", "BiasGelu"): ("Relu", 1),
}
"""Op -> the standard op whose outputs (of Relu: the first) have the same types and shapes, and its inputs.

onnx infers nothing for GroupNormalization."""


class InferShapes(ir.passes.InPlacePass):
    """Infer types and shapes with onnx's own inference, weights left out of the protobuf it needs.

    Cases:
      1. Outputs of standard ops: what was recorded is dropped first, so a stale shape cannot survive.
      2. Outputs of other ops and of functions: what was recorded is kept, for nothing else knows it; but ops
         that have a standard stand-in of the same shapes are inferred as that.
      3. Graph outputs: a declared shape that contradicts the inferred one is replaced; names that were declared
         for dimensions stay where nothing better is known.
      4. Inputs and initializers: never changed. While passes work (`working=True`) unnamed dimensions of inputs
         get names, so that equal unknowns can be told from unequal ones, and graph outputs say what inference
         says of them and nothing else.
      5. Inference fails: the recorded types stay, shapes of standard ops' outputs go.
    """

    def __init__(self, *, working: bool = False) -> None:
        super().__init__()
        self.working = working

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        declared = {value: value.shape for graph in all_graphs(model) for value in graph.outputs}
        for node in all_nodes(model):
            if _inferable(node):
                for output in node.outputs:
                    output.shape = None
        _name_input_dimensions(model)
        try:
            inferred = _infer(model)
        except Exception as error:  # the C++ layer raises many kinds
            logger.debug("shape inference failed: %s", error)
        else:
            _merge(model.graph, inferred.graph)
            unify_dimensions(model)
        if not self.working:
            for value, shape in declared.items():
                value.shape = _agreed(shape, value.shape)
            _hide_made_up(model)
        return ir.passes.PassResult(model, False)


class DropShapes(ir.passes.InPlacePass):
    """Forget the recorded shapes and types of inner values: a file without value_info stays without it.

    Cases:
      1. Outputs of standard ops that are no graph outputs and not named in `keep`: forgotten.
      2. All else (inputs, initializers, graph outputs, outputs of other ops): kept.
      3. `keep` is None: everything is kept.
    """

    def __init__(self, keep: frozenset[str] | None = frozenset()) -> None:
        super().__init__()
        self.keep = keep

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        if self.keep is not None:
            for value in _inner_values(model):
                node = value.producer()
                if node is not None and node.domain in STANDARD_DOMAINS and value.name not in self.keep:
                    value.shape = None
                    value.type = None
        return ir.passes.PassResult(model, False)


def recorded_shapes(model: ir.Model) -> frozenset[str] | None:
    """The names of the inner values whose shape the model records; None: all of them."""
    values = list(_inner_values(model))
    recorded = frozenset(v.name for v in values if (v.shape is not None or v.type is not None) and v.name)
    return None if recorded and len(recorded) == len(values) else recorded


def _inner_values(model: ir.Model) -> Iterator[ir.Value]:
    for node in all_nodes(model):
        for output in node.outputs:
            if output.name and not output.is_graph_output():
                yield output


def _inferable(node: ir.Node) -> bool:
    return node.domain in STANDARD_DOMAINS or (node.domain, node.op_type) in STAND_INS


def _name_input_dimensions(model: ir.Model) -> None:
    for i, value in enumerate(model.graph.inputs):
        if value.shape is None or value.is_initializer():
            continue
        dims = [
            f"{UNNAMED}{i}_{k}" if not isinstance(d, int) and d.value is None else d for k, d in enumerate(value.shape)
        ]
        value.shape = ir.Shape(dims)


def _hide_made_up(model: ir.Model) -> None:
    """Names that were made up are not shown on inputs and outputs."""
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.shape is not None and any(_made_up(d) for d in value.shape):
            value.shape = ir.Shape([None if _made_up(d) else d for d in value.shape])


def _made_up(dim: int | ir.SymbolicDim) -> bool:
    return not isinstance(dim, int) and dim.value is not None and dim.value.startswith((UNNAMED, "unk__", "("))


def _agreed(declared: ir.Shape | None, inferred: ir.Shape | None) -> ir.Shape | None:
    """The inferred shape, with declared names in place of made-up ones."""
    if inferred is None or declared is None:
        return inferred if declared is None else declared
    if len(declared) != len(inferred):
        return inferred
    pairs = zip(declared, inferred, strict=True)
    return ir.Shape([t if _made_up(f) and not isinstance(t, int) else f for t, f in pairs])


def _infer(model: ir.Model) -> onnx.ModelProto:
    """The model's skeleton, its large constants turned into inputs, through onnx's inference."""
    graph = model.graph
    proto = onnx.ModelProto(ir_version=max(model.ir_version, 8))
    for domain, version in graph.opset_imports.items():
        proto.opset_import.add(domain=domain, version=version)
    proto.graph.name = "g"
    for function in model.functions.values():
        proto.functions.append(ir.serde.serialize_function(function))
    for value in graph.inputs:
        if not value.is_initializer():
            proto.graph.input.append(ir.serde.serialize_value(value))
    for value in graph.initializers.values():
        _add_constant(proto.graph, value)
    for node in graph:
        proto.graph.node.append(ir.serde.serialize_node(node))
        stand_in = STAND_INS.get((node.domain, node.op_type))
        if stand_in is not None:
            _disguise(proto.graph.node[-1], *stand_in)
        elif node.domain not in STANDARD_DOMAINS:
            for output in node.outputs:
                if output.name and output.type is not None and not output.is_graph_output():
                    proto.graph.value_info.append(ir.serde.serialize_value(output))
    for value in graph.outputs:
        if value.type is not None:
            trusted = value.producer() is not None and not _inferable(value.producer())  # type: ignore[arg-type]
            shape = value.shape if trusted else None
            bare = ir.Value(name=value.name, type=value.type, shape=shape)
            proto.graph.output.append(ir.serde.serialize_value(bare))
        else:
            proto.graph.output.add(name=value.name or "")
    return onnx.shape_inference.infer_shapes(proto, check_type=False, strict_mode=False, data_prop=True)


def _add_constant(proto: onnx.GraphProto, value: ir.Value) -> None:
    tensor = value.const_value
    if tensor is not None and tensor.nbytes <= SMALL_TENSOR_BYTES and not value.is_graph_input():
        serialized = ir.serde.serialize_tensor(tensor)
        serialized.name = value.name or ""
        proto.initializer.append(serialized)
        return
    if tensor is not None:
        value.shape = shape_of(tensor) if value.shape is None else value.shape
        value.type = ir.TensorType(tensor.dtype) if value.type is None else value.type
    proto.input.append(ir.serde.serialize_value(value))


def _disguise(proto: onnx.NodeProto, op_type: str, inputs: int) -> None:
    proto.op_type, proto.domain = op_type, ""
    del proto.input[inputs:]
    if op_type == "Relu":
        del proto.output[1:]
        del proto.attribute[:]


def _merge(graph: ir.Graph, proto: onnx.GraphProto) -> None:
    infos = {info.name: info.type for info in (*proto.value_info, *proto.output)}
    for node, node_proto in zip(graph, proto.node, strict=True):
        if _inferable(node):
            for output in node.outputs:
                info = infos.get(output.name or "")
                if info is None or not info.WhichOneof("value"):
                    continue
                output.type = ir.serde.deserialize_type_proto_for_type(info)
                shape = ir.serde.deserialize_type_proto_for_shape(info)
                if shape is not None:
                    output.shape = shape
        if not may_hold_graphs(node):
            continue
        protos = {a.name: a for a in node_proto.attribute}
        for attribute in node.attributes.values():
            if attribute.is_ref():
                continue
            if attribute.type == ir.AttributeType.GRAPH:
                _merge(attribute.as_graph(), protos[attribute.name].g)
            elif attribute.type == ir.AttributeType.GRAPHS:
                inner = zip(attribute.as_graphs(), protos[attribute.name].graphs, strict=True)
                for subgraph, subgraph_proto in inner:
                    _merge(subgraph, subgraph_proto)
