"""One change of what a model says: deeper than flipped bits, which mostly end at the protobuf parser."""

from __future__ import annotations

import random
from collections.abc import Callable

import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, TensorProto, helper

NUMBERS = (0, 1, -1, 2, 3, 7, 255, -128, 2**31, 2**31 - 1, -(2**31), 2**40, 2**62, 2**63 - 1, -(2**63))
OPERATORS = [
    "Conv",
    "MatMul",
    "Gemm",
    "Add",
    "Mul",
    "Relu",
    "Reshape",
    "Transpose",
    "Concat",
    "Split",
    "Slice",
    "Gather",
    "Shape",
    "Cast",
    "Clip",
    "Pad",
    "Resize",
    "Softmax",
    "ReduceMean",
    "LayerNormalization",
    "BatchNormalization",
    "QuantizeLinear",
    "DequantizeLinear",
    "Constant",
    "ConstantOfShape",
    "Expand",
    "Tile",
    "Where",
    "If",
    "Loop",
    "Identity",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Einsum",
    "Range",
    "TopK",
    "Erf",
    "Sigmoid",
    "Div",
    "Sub",
    "Pow",
    "Sqrt",
    "Dropout",
    "ConvTranspose",
    "MaxPool",
    "GlobalAveragePool",
    "LSTM",
    "Gelu",
    "HardSwish",
    "Unknown",
]
ATTRIBUTES = [
    "axis",
    "axes",
    "perm",
    "pads",
    "strides",
    "dilations",
    "group",
    "kernel_shape",
    "to",
    "alpha",
    "beta",
    "transA",
    "transB",
    "value",
    "value_int",
    "epsilon",
    "keepdims",
    "mode",
    "equation",
    "then_branch",
    "body",
    "block_size",
    "auto_pad",
    "num_outputs",
]


def mutated(data: bytes, generator: random.Random) -> bytes | None:
    """The model with one to three changes; None where it is not readable."""
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        return None
    for _ in range(generator.randint(1, 3)):
        try:
            generator.choice(CHANGES)(model, generator)
        except (IndexError, ValueError, TypeError):  # nothing there to change, or a number beyond the field's
            continue
    changed: bytes = model.SerializeToString()
    return changed


def _graph(model: onnx.ModelProto, generator: random.Random) -> onnx.GraphProto:
    found = [model.graph]
    for node in model.graph.node:
        found += [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return generator.choice(found)


def _names(graph: onnx.GraphProto) -> list[str]:
    names = [value.name for value in graph.input] + [tensor.name for tensor in graph.initializer]
    return names + [name for node in graph.node for name in node.output] + ["", "nowhere"]


def change_input(model: onnx.ModelProto, generator: random.Random) -> None:
    graph = _graph(model, generator)
    node = generator.choice(graph.node)
    node.input[generator.randrange(len(node.input))] = generator.choice(_names(graph))


def change_arity(model: onnx.ModelProto, generator: random.Random) -> None:
    graph = _graph(model, generator)
    node = generator.choice(graph.node)
    field = node.input if generator.random() < 0.7 else node.output
    if generator.random() < 0.5:
        field.append(generator.choice([*_names(graph), f"new{generator.randrange(99)}"]))
    else:
        del field[generator.randrange(len(field))]


def change_operator(model: onnx.ModelProto, generator: random.Random) -> None:
    node = generator.choice(_graph(model, generator).node)
    node.op_type = generator.choice(OPERATORS)
    if generator.random() < 0.1:
        node.domain = generator.choice(["", "ai.onnx", "com.microsoft", "onnxcompress", "other"])


def change_attribute(model: onnx.ModelProto, generator: random.Random) -> None:
    node = generator.choice(_graph(model, generator).node)
    if node.attribute and generator.random() < 0.3:
        del node.attribute[generator.randrange(len(node.attribute))]
        return
    name = generator.choice([a.name for a in node.attribute] or ATTRIBUTES) if generator.random() < 0.6 else None
    name = name or generator.choice(ATTRIBUTES)
    numbers = [generator.choice(NUMBERS) for _ in range(generator.randint(1, 5))]
    tensor = helper.make_tensor("t", TensorProto.INT64, [1], numbers[:1])
    values: list[object] = [numbers[0], numbers, 0.5, float("nan"), "text", [0.5, float("inf")], tensor]
    made = helper.make_attribute(name, generator.choice(values))
    for attribute in node.attribute:
        if attribute.name == name:
            attribute.CopyFrom(made)
            return
    node.attribute.append(made)


def change_attribute_type(model: onnx.ModelProto, generator: random.Random) -> None:
    attribute = generator.choice(generator.choice(_graph(model, generator).node).attribute)
    attribute.type = generator.choice(list(AttributeProto.AttributeType.values()))


def change_tensor(model: onnx.ModelProto, generator: random.Random) -> None:
    tensor = generator.choice(_graph(model, generator).initializer)
    match generator.randrange(4):
        case 0:
            tensor.dims[generator.randrange(len(tensor.dims))] = generator.choice(NUMBERS)
        case 1:
            generator.shuffle(dims := list(tensor.dims))
            del tensor.dims[:]
            tensor.dims.extend(dims)
        case 2:
            tensor.data_type = generator.randrange(27)
        case _:
            raw = bytearray(tensor.raw_data)
            for _ in range(4):
                raw[generator.randrange(len(raw))] = generator.choice((0, 1, 127, 128, 255))
            tensor.raw_data = bytes(raw)


def replace_weight(model: onnx.ModelProto, generator: random.Random) -> None:
    """A weight in the place of a computed value, or the other way round."""
    graph = _graph(model, generator)
    node = generator.choice(graph.node)
    count = generator.randint(0, 4)
    name = f"k{generator.randrange(9999)}"
    numbers = [generator.choice(NUMBERS) for _ in range(count)]
    graph.initializer.append(
        helper.make_tensor(name, TensorProto.INT64, [count] if generator.random() < 0.8 else [], numbers)
    )
    node.input[generator.randrange(len(node.input))] = name


def change_shape(model: onnx.ModelProto, generator: random.Random) -> None:
    graph = _graph(model, generator)
    value = generator.choice([*graph.input, *graph.output, *graph.value_info])
    dims = value.type.tensor_type.shape.dim
    match generator.randrange(4):
        case 0:
            dims[generator.randrange(len(dims))].dim_value = generator.choice(NUMBERS)
        case 1:
            dims[generator.randrange(len(dims))].dim_param = generator.choice(["N", "", "-1", "a\nb"])
        case 2:
            del dims[generator.randrange(len(dims))]
        case _:
            value.type.tensor_type.elem_type = generator.randrange(27)


def change_nodes(model: onnx.ModelProto, generator: random.Random) -> None:
    graph = _graph(model, generator)
    index = generator.randrange(len(graph.node))
    if generator.random() < 0.4:
        del graph.node[index]
        return
    node = graph.node.add()
    node.CopyFrom(graph.node[index])
    for place in range(len(node.output)):
        node.output[place] += "'"
    if generator.random() < 0.5:
        graph.output.add(name=node.output[0])


def change_header(model: onnx.ModelProto, generator: random.Random) -> None:
    if generator.random() < 0.3:
        model.ir_version = generator.choice((0, 1, 3, 7, 10, 11, 99, -1))
    elif model.opset_import:
        generator.choice(model.opset_import).version = generator.choice((-1, 0, 1, 6, 9, 11, 12, 13, 18, 21, 25, 99))


def place_outside(model: onnx.ModelProto, generator: random.Random) -> None:
    tensor = generator.choice(_graph(model, generator).initializer)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(
        key="location", value=generator.choice(("weights.bin", "../x", "/etc/passwd", "none", "m.onnx"))
    )
    tensor.external_data.add(key="offset", value=str(generator.choice(NUMBERS)))


CHANGES: tuple[Callable[[onnx.ModelProto, random.Random], None], ...] = (
    change_input,
    change_arity,
    change_operator,
    change_attribute,
    change_attribute,
    change_attribute_type,
    change_tensor,
    replace_weight,
    change_shape,
    change_nodes,
    change_header,
    place_outside,
)
