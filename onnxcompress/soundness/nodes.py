"""Walks over protobuf: graphs within graphs, and the tensors in attributes."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

Body = onnx.GraphProto | onnx.FunctionProto


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs in a node's attributes."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def attribute_tensors(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    """The tensors in a node's attributes, the two of sparse ones included."""
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        sparse = list(attribute.sparse_tensors)
        if attribute.HasField("sparse_tensor"):
            sparse.append(attribute.sparse_tensor)
        for tensor in sparse:
            yield tensor.values
            yield tensor.indices


def all_graphs(proto: onnx.ModelProto) -> Iterator[Body]:
    """The main graph, the functions, and every graph within them."""
    waiting: list[Body] = [proto.graph, *proto.functions]
    while waiting:
        body = waiting.pop()
        yield body
        for node in body.node:
            waiting.extend(subgraphs(node))
