"""A digest of what a model computes, so that ranges are not used with another model."""

from __future__ import annotations

import hashlib
from typing import Any

import onnx_ir as ir


def fingerprint(model: ir.Model) -> str:
    """SHA-256 over opsets, nodes, attributes, value names and weights.

    The same for a file and for the model read from it, and wherever the weights are stored; documentation,
    metadata, and recorded types and shapes of intermediate values do not enter. Weights are read one by one.
    """
    total = hashlib.sha256()
    _add(total, sorted(model.opset_imports.items()))
    _add_graph(total, model.graph)
    for key in sorted(model.functions):
        function = model.functions[key]
        _add(total, key, sorted(function.opset_imports.items()), sorted(function.attributes))
        _add_graph(total, function.graph)
    return total.hexdigest()


def _add(total: Any, *parts: object) -> None:
    for part in parts:
        total.update(repr(part).encode())
        total.update(b"\0")


def _add_graph(total: Any, graph: ir.Graph) -> None:
    _add(total, [(v.name, str(v.dtype)) for v in graph.inputs], [v.name for v in graph.outputs])
    for name in sorted(graph.initializers):
        tensor = graph.initializers[name].const_value
        _add(total, name)
        if tensor is not None:
            _add_tensor(total, tensor)
    for node in graph:
        _add(total, node.domain, node.op_type, node.overload)
        _add(total, [v.name if v else "" for v in node.inputs], [v.name for v in node.outputs])
        for name in sorted(node.attributes):
            _add(total, name)
            _add_attribute(total, node.attributes[name])


def _add_attribute(total: Any, attribute: ir.Attr) -> None:
    _add(total, str(attribute.type), attribute.ref_attr_name)
    match attribute.type:
        case _ if attribute.value is None:
            return
        case ir.AttributeType.TENSOR:
            _add_tensor(total, attribute.as_tensor())
        case ir.AttributeType.TENSORS:
            for tensor in attribute.as_tensors():
                _add_tensor(total, tensor)
        case ir.AttributeType.GRAPH:
            _add_graph(total, attribute.as_graph())
        case ir.AttributeType.GRAPHS:
            for graph in attribute.as_graphs():
                _add_graph(total, graph)
        case ir.AttributeType.INTS | ir.AttributeType.FLOATS | ir.AttributeType.STRINGS:
            _add(total, list(attribute.value))
        case ir.AttributeType.INT | ir.AttributeType.FLOAT | ir.AttributeType.STRING:
            _add(total, attribute.value)


def _add_tensor(total: Any, tensor: ir.TensorProtocol) -> None:
    _add(total, str(tensor.dtype), tuple(int(d) for d in tensor.shape if isinstance(d, int)))
    total.update(tensor.tobytes())
    if isinstance(tensor, ir.ExternalTensor):
        tensor.release()
