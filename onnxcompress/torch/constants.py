"""The constants of a model, by name: initializers of every graph, and what Constant nodes give."""

from __future__ import annotations

import onnx_ir as ir
from torch import nn

Constants = dict[str, ir.Value]


def find_constants(model: ir.Model) -> Constants:
    """Initializers and outputs of Constant nodes of the graph and of its subgraphs, in graph order.

    A name that graphs beside each other both use is told apart by `#2`, `#3`: the same every time.
    """
    found: Constants = {}
    for graph in model.graphs():
        produced = (n.outputs[0] for n in graph if n.op_type == "Constant" and n.domain in ("", "ai.onnx"))
        for value in (*graph.initializers.values(), *produced):
            name, number = str(value.name), 1
            while name in found:
                number += 1
                name = f"{value.name}#{number}"
            found[name] = value
    return found


def tensor_of(value: ir.Value) -> ir.TensorProtocol | None:
    """The tensor of a constant; None for one that is not known (an attribute of a function)."""
    return ir.convenience.get_const_tensor(value)


def put_tensor(value: ir.Value, tensor: ir.TensorProtocol) -> None:
    """Give a constant another tensor of the same type and shape."""
    node = value.producer()
    if node is None:
        value.const_value = tensor
        return
    node.attributes.clear()
    node.attributes["value"] = ir.AttrTensor("value", tensor)
    if value.const_value is not None:
        value.const_value = tensor


_TAKEN = {*dir(nn.Module()), *dir(nn.ModuleDict()), "parametrizations"}


def escaped(name: str) -> str:
    """The name as torch takes it for a parameter: percent-encoded where it must be (`urllib.parse.unquote` undoes it).

    torch refuses dots, and names that its modules use themselves.
    """
    plain = name.replace("%", "%25").replace(".", "%2E")
    if plain in _TAKEN or not plain:
        return "".join(f"%{byte:02X}" for byte in plain[:1].encode()) + plain[1:]
    return plain
