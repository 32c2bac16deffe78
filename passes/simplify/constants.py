"""Constants: lifted out of nodes and subgraphs, and kept once."""

from __future__ import annotations

import hashlib

import numpy as np
import onnx_ir as ir

from onnxcompress.passes.simplify.editor import Editor, all_graphs, all_nodes, is_op

OLDEST_IR = 4
"""The first IR version whose initializers need not be graph inputs."""

WEIGHT_SIZE = 64
"""Elements from which on an initializer is taken for a weight."""


class LiftConstants(ir.passes.InPlacePass):
    """Turn Constant nodes, and initializers of subgraphs, into initializers of the main graph.

    Cases:
      1. A Constant node of any attribute form but a sparse tensor or strings: an initializer.
      2. A Constant that is itself a graph output: kept, for an output must come from a node.
      3. An initializer of a subgraph: moved to the main graph, renamed where the name is taken.
      4. Initializers that are graph inputs too: when every initializer is one (as IR 3 demanded) and some are
         weights, it is no invitation to override them, and they stop being inputs; else they stay defaults
         that a caller may override, and no pass takes them for constants.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = self._close_inputs(model.graph)
        model.ir_version = max(model.ir_version, OLDEST_IR)
        editor = Editor(model)
        for graph in all_graphs(model):
            if graph is not model.graph:
                for value in list(graph.initializers.values()):
                    if not value.is_graph_input() and not value.is_graph_output():
                        self._move(value, graph, editor)
                        modified = True
        for node in list(all_nodes(model)):
            if not is_op(node, "Constant") or node.outputs[0].is_graph_output():
                continue
            tensor = _constant_tensor(node)
            if tensor is None:
                continue
            modified |= editor.put_constant(node.outputs[0], tensor)
            editor.collect(node)
        return ir.passes.PassResult(model, modified)

    def _close_inputs(self, graph: ir.Graph) -> bool:
        values = [value for value in graph.initializers.values() if value.is_graph_input()]
        if not values or len(values) < len(graph.initializers) or len(values) == len(graph.inputs):
            return False
        if all(value.const_value is None or value.const_value.size < WEIGHT_SIZE for value in values):
            return False
        keep = [value for value in graph.inputs if not value.is_initializer()]
        graph.inputs.clear()
        graph.inputs.extend(keep)
        return True

    def _move(self, value: ir.Value, graph: ir.Graph, editor: Editor) -> None:
        assert value.const_value is not None and value.name is not None
        moved = editor.constant(value.const_value, value.name)
        for node, index in value.uses():
            node.replace_input_with(index, moved)
        graph.initializers.pop(value.name)


class ShareConstants(ir.passes.InPlacePass):
    """Keep one of equal initializers.

    Cases:
      1. Same type, shape and bytes, in one graph: one stays. Bytes are hashed as a stream, and only where type
         and shape agree, so a large model's tensors are mapped one at a time.
      2. Graph inputs and outputs: left alone.
      3. Lazy tensors: left alone, for hashing would compute them.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        alike: dict[tuple[object, ...], list[ir.Value]] = {}
        for value in model.graph.initializers.values():
            tensor = value.const_value
            if tensor is None or value.is_graph_input() or value.is_graph_output() or isinstance(tensor, ir.LazyTensor):
                continue
            alike.setdefault((tensor.dtype, tuple(tensor.shape)), []).append(value)
        for values in alike.values():
            if len(values) < 2:
                continue
            kept: dict[object, ir.Value] = {}
            for value in values:
                assert value.const_value is not None and value.name is not None
                first = kept.setdefault(_fingerprint(value.const_value), value)
                if first is not value:
                    value.replace_all_uses_with(first)
                    model.graph.initializers.pop(value.name)
                    modified = True
        return ir.passes.PassResult(model, modified)


def _fingerprint(tensor: ir.TensorProtocol) -> object:
    if tensor.dtype == ir.DataType.STRING:
        return tuple(tensor.string_data())  # type: ignore[attr-defined]
    if tensor.nbytes <= 64:
        return tensor.tobytes()
    digest = hashlib.blake2b(digest_size=32)
    array = tensor.numpy()
    if array.flags.c_contiguous and array.dtype.kind in "fiub":
        digest.update(array.reshape(-1).view(np.uint8).data)
    else:
        digest.update(tensor.tobytes())
    del array
    if isinstance(tensor, ir.ExternalTensor):
        tensor.release()
    return digest.digest()


def _constant_tensor(node: ir.Node) -> ir.TensorProtocol | None:
    if len(node.attributes) != 1:
        return None
    item = next(iter(node.attributes.values()))
    if item.is_ref():
        return None
    if item.name == "value":
        return item.as_tensor()
    if item.name in ("value_int", "value_ints"):
        return ir.Tensor(np.array(item.value, np.int64))
    if item.name in ("value_float", "value_floats"):
        return ir.Tensor(np.array(item.value, np.float32))
    return None
