"""What a model file must be before anything is computed from it: a model is a program from a stranger.

`check_proto` looks at the protobuf alone, in time and memory proportional to the file: tensors hold what their
shapes say, external data stays beside the model, every value is given once and before it is needed, and functions end.
What operators mean is left to onnx and ONNX Runtime.
"""

from __future__ import annotations

from pathlib import Path

import onnx

from onnxcompress.soundness.functions import check_functions
from onnxcompress.soundness.graphs import check_graph
from onnxcompress.soundness.nodes import all_graphs, attribute_tensors
from onnxcompress.soundness.tensors import check_sparse, check_tensor


def check_proto(proto: onnx.ModelProto, folder: Path) -> bool:
    """Check a model that was read from a file in `folder`.

    Returns:
        whether the nodes of every graph come in an order in which they can run; if not, they can be brought into one.

    Raises:
        ValueError: what is wrong with it, in one line.
    """
    if not proto.graph.output:
        raise ValueError("its graph has no outputs")
    for function in proto.functions:
        if len(function.input) != len(set(function.input)):
            raise ValueError(f"function {function.name!r} has an input twice")
    check_functions(proto)
    ordered = check_graph(proto.graph)
    for function in proto.functions:
        ordered &= check_graph(function)
    for graph in all_graphs(proto):
        if isinstance(graph, onnx.GraphProto):
            for tensor in graph.initializer:
                check_tensor(tensor, folder)
            for sparse in graph.sparse_initializer:
                check_sparse(sparse, folder)
        for node in graph.node:
            for tensor in attribute_tensors(node):
                check_tensor(tensor, folder)
    return ordered
