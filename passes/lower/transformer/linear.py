"""Linear layers: QDQ products with constant matrices as QLinear."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

from onnxcompress.passes.lower.transformer.lowering import (
    Lowering,
    Quantized,
    bytes_like,
    dequantized,
    emit,
    only_quantizer,
    real,
    replaced_names,
    scalar,
)
from onnxcompress.passes.lower.transformer.moves import MOVES, Path, assignments, evaluate, path_to, trials
from onnxcompress.passes.lower.transformer.rows import same_shape
from onnxcompress.passes.simplify.editor import (
    Editor,
    array_of,
    attribute,
    is_op,
    only_reader,
    producer,
    rank_of,
    tensor_of,
)

Array = np.ndarray[Any, Any]


class Linear(NamedTuple):
    """A quantized linear layer.

    Attributes:
        x: its input.
        weight: int8 [N, K], real = weight * scale.
        scale: float32 [N].
        bias: float32 [N], or None.
        result: its float32 output, the bias added.
        nodes: MatMul or Gemm, and the sum with the bias.
    """

    x: Quantized
    weight: Array
    scale: Array
    bias: Array | None
    result: ir.Value
    nodes: tuple[ir.Node, ...]

    @property
    def size(self) -> int:
        return int(self.weight.shape[0])


class Epilogue(NamedTuple):
    """What follows a linear layer and is done in one go with it.

    Attributes:
        activation: of QLinear; "" for none.
        residual: what is added after it.
        y: the quantized result; None: the result is read in float.
        result: the float result.
        nodes: all of them but the QuantizeLinear.
    """

    activation: str
    residual: ir.Value | None
    y: Quantized | None
    result: ir.Value
    nodes: tuple[ir.Node, ...]


def find_linear(node: ir.Node) -> Linear | str | None:
    """The quantized linear layer that a MatMul or Gemm is; a reason why not; None: it is in float.

    Cases:
      1. The input is dequantized from uint8 with one constant scale and zero point; the weight is a constant int8
         matrix with zero point 0, a scale for the whole or for each output.
      2. Gemm: alpha = beta = 1, no transA, its bias a constant, in float or dequantized.
      3. MatMul: then, if nobody else reads the product, an Add or Sum of a constant vector.
    """
    weight = producer(node.inputs[1], "DequantizeLinear")
    if weight is None or producer(node.inputs[0], "DequantizeLinear") is None or tensor_of(weight.inputs[0]) is None:
        return None
    x = dequantized(node.inputs[0])
    if x is None:
        return "its input is not uint8 with one scale"
    if node.op_type == "Gemm" and _transposed(node, "A"):
        return "Gemm with transA"
    if node.op_type == "Gemm" and any(attribute(node, name, 1.0) != 1.0 for name in ("alpha", "beta")):
        return "Gemm with alpha or beta other than 1"
    matrix = _matrix(weight, 0 if node.op_type == "Gemm" and _transposed(node, "B") else 1)
    if isinstance(matrix, str):
        return matrix
    values, scale = matrix
    result, bias = node.outputs[0], None
    nodes: tuple[ir.Node, ...] = (node,)
    if node.op_type == "Gemm" and len(node.inputs) > 2 and node.inputs[2] is not None:
        bias = _vector(node.inputs[2], len(values))
        if bias is None:
            return "its bias is not a constant vector"
    elif node.op_type == "MatMul" and (added := _bias_sum(node, len(values))) is not None:
        bias, last = added
        result, nodes = last.outputs[0], (node, last)
    return _straight(Linear(x, values, scale, bias, result, nodes))


def _straight(linear: Linear) -> Linear:
    """The layer without movements of its rows around it that undo each other.

    1. Its input is a tensor [A, B, K], moved without changing its last dimension (as [A * B, K], [B, A, K], ...).
    2. The result is moved back to [A, B, N], as tried for several A and B; nobody else reads it on the way.
    """
    back = path_to(linear.x.value, frozenset())
    moved = [linear.result]
    while (node := only_reader(moved[-1])) is not None and is_op(node, *MOVES) and node.inputs[0] is moved[-1]:
        moved.append(node.outputs[0])
    if not back.nodes or len(moved) == 1 or rank_of(back.source) != 3:
        return linear
    nodes = tuple(node for value in moved[1:] if (node := value.producer()) is not None)
    for count in range(len(nodes), 0, -1):
        if rank_of(moved[count]) == 3 and _undone(back, linear, moved[count], nodes[:count]):
            before = [node for node in back.nodes if only_reader(node.outputs[0]) is not None]
            return linear._replace(
                x=linear.x._replace(value=back.source),
                result=moved[count],
                nodes=(*before, *linear.nodes, *nodes[:count]),
            )
    return linear


def _undone(back: Path, linear: Linear, result: ir.Value, nodes: tuple[ir.Node, ...]) -> bool:
    tried = False
    for sizes, names in trials(back.source):
        rows = np.arange(sizes[0] * sizes[1]).reshape(*sizes, 1)
        given = np.tile(rows, (1, 1, linear.weight.shape[1]))
        wanted = np.tile(rows, (1, 1, linear.size))
        for guess in assignments([linear.x.value, result], sizes, names):
            inside = evaluate(linear.x.value, {back.source: given}, guess, back.nodes)
            if inside is None or inside.shape[-1] != given.shape[-1] or np.any(inside != inside[..., :1]):
                continue
            through = np.tile(inside[..., :1], (1,) * (inside.ndim - 1) + (linear.size,))
            here = evaluate(result, {linear.result: through}, guess, nodes)
            if here is not None and np.array_equal(here, wanted):
                break
        else:
            return False
        tried = True
    return tried


def linear_before(value: ir.Value) -> Linear | None:
    """The linear layer whose result a value is."""
    source = path_to(value, frozenset()).source
    last = source.producer()
    candidates = [source] if not is_op(last, "Add", "Sum") or last is None else list(last.inputs)
    for candidate in candidates:
        node = producer(candidate, "MatMul", "Gemm")
        found = find_linear(node) if node is not None else None
        if isinstance(found, Linear) and found.result is value:
            return found
    return None


def _transposed(node: ir.Node, which: str) -> bool:
    return bool(attribute(node, f"trans{which}", 0))


def _matrix(node: ir.Node, axis: int) -> tuple[Array, Array] | str:
    """The constant matrix that a DequantizeLinear holds as int8 [N, K] and float32 [N]; `axis` counts the outputs."""
    values, scale = tensor_of(node.inputs[0]), array_of(node.inputs[1])
    zero = array_of(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else None
    if values is None or scale is None or values.dtype != ir.DataType.INT8 or len(values.shape) != 2:
        return "its weight is not a constant int8 matrix"
    if zero is not None and zero.any():
        return "its weight has zero points"
    if attribute(node, "block_size", 0) or (scale.size > 1 and attribute(node, "axis", 1) not in (axis, axis - 2)):
        return "its weight's scales are not one for each output"
    array = values.numpy()
    array = array if axis == 0 else array.T
    return np.ascontiguousarray(array), np.broadcast_to(scale.reshape(-1), (len(array),)).astype(np.float32)


def _vector(value: ir.Value | None, size: int) -> Array | None:
    """A constant of `size` numbers along the last axis, in float or dequantized from integers."""
    node = producer(value, "DequantizeLinear")
    if node is not None:
        parts = [array_of(part) for part in node.inputs[:2]]
        if parts[0] is None or parts[1] is None or (len(node.inputs) > 2 and np.any(array_of(node.inputs[2]))):
            return None
        array = parts[0].astype(np.float64) * parts[1]
    else:
        found = array_of(value)
        if found is None or found.dtype != np.float32:
            return None
        array = found
    if array.size not in (1, size) or (array.ndim and array.size != array.shape[-1]):
        return None
    return np.broadcast_to(array.reshape(-1), (size,)).astype(np.float32)


def _bias_sum(node: ir.Node, size: int) -> tuple[Array, ir.Node] | None:
    product = node.outputs[0]
    last = only_reader(product)
    if not is_op(last, "Add", "Sum") or last is None or len(last.inputs) != 2:
        return None
    other = last.inputs[1] if last.inputs[0] is product else last.inputs[0]
    bias = _vector(other, size)
    return None if bias is None else (bias, last)


def find_epilogue(linear: Linear) -> Epilogue:
    """What of activation, residual and quantization follows, each the only reader of what is before it."""
    activation, result, nodes = activation_after(linear.result)
    residual = None
    if (added := residual_sum(result)) is not None:
        residual, last = added
        result, nodes = last.outputs[0], (*nodes, last)
    return Epilogue(activation, residual, only_quantizer(result), result, nodes)


def activation_after(value: ir.Value) -> tuple[str, ir.Value, tuple[ir.Node, ...]]:
    """The activation that reads a value, its result and its nodes."""
    none: tuple[str, ir.Value, tuple[ir.Node, ...]] = ("", value, ())
    if value.is_graph_output():
        return none
    readers = value.consumers()
    if len(readers) == 1:
        name = activation_name(readers[0])
        return (name, readers[0].outputs[0], (readers[0],)) if name else none
    sigmoid = next((node for node in readers if is_op(node, "Sigmoid")), None)
    product = only_reader(sigmoid.outputs[0]) if sigmoid is not None else None
    if sigmoid is None or product is None or not is_op(product, "Mul") or set(readers) != {sigmoid, product}:
        return none
    if set(product.inputs) != {value, sigmoid.outputs[0]}:
        return none
    return "silu", product.outputs[0], (sigmoid, product)


def activation_name(node: ir.Node) -> str:
    """What QLinear calls an activation that is one node, or ""."""
    if node.domain == "com.microsoft" and node.op_type == "QuickGelu":
        return "silu" if attribute(node, "alpha", 1.702) == 1.0 else ""
    if is_op(node, "Gelu"):
        return "gelu_tanh" if attribute(node, "approximate", "none") == "tanh" else "gelu"
    if is_op(node, "Relu"):
        return "relu"
    return "hardswish" if is_op(node, "HardSwish") else ""


def residual_sum(value: ir.Value) -> tuple[ir.Value, ir.Node] | None:
    """What the only reader of a value adds to it: a float tensor of its shape that is no constant; and that reader."""
    node = only_reader(value)
    if not is_op(node, "Add", "Sum") or node is None or len(node.inputs) != 2:
        return None
    other = node.inputs[1] if node.inputs[0] is value else node.inputs[0]
    if other is None or other is value or tensor_of(other) is not None or other.dtype != ir.DataType.FLOAT:
        return None
    return (other, node) if same_shape(value, other) else None


class Layer(NamedTuple):
    """A linear layer and what follows it."""

    linear: Linear
    epilogue: Epilogue

    @property
    def nodes(self) -> tuple[ir.Node, ...]:
        return (*self.linear.nodes, *self.epilogue.nodes)


class LowerLinears(Lowering):
    """Quantized MatMul and Gemm with what follows them become QLinear.

    1. The layer is one of `find_linear`.
    2. Then an activation (Relu, Gelu, SiLU as two nodes or as QuickGelu, HardSwish), then the sum with a float tensor
       of the same shape, then the QuantizeLinear; each in if it is the only reader of what is before it.
    3. The result is uint8 where a QuantizeLinear is its only reader, else float32.
    """

    anchors = ("MatMul", "Gemm")

    def find(self, node: ir.Node) -> Layer | str | None:
        linear = find_linear(node)
        return Layer(linear, find_epilogue(linear)) if isinstance(linear, Linear) else linear

    def rewrite(self, node: ir.Node, found: Layer, editor: Editor) -> str:
        linear, epilogue = found
        last = found.nodes[-1]
        quantized = epilogue.y
        y = quantized.value if quantized is not None else epilogue.result
        parameters = [None, None] if quantized is None else [scalar(editor, v) for v in quantized[1:]]
        # Where a QuantizeLinear is taken in, the new node may stand where it stood: all readers are behind it.
        before = last if quantized is None else y.producer()
        assert before is not None
        made = emit(
            editor,
            "QLinear",
            [*layer_inputs(linear, editor), epilogue.residual, *parameters],
            {"activation": epilogue.activation} if epilogue.activation else {},
            [bytes_like(y)] if quantized is not None else [None, real(y)],
            before=before,
            replaces=found.nodes,
        )
        editor.supersede(y, made.outputs[-1])
        words = [epilogue.activation, "residual" if epilogue.residual is not None else ""]
        return " + ".join(["QLinear", *[word for word in words if word]])


def layer_inputs(linear: Linear, editor: Editor) -> list[ir.Value | None]:
    """x, x_scale, x_zero_point, w, w_scale, bias."""
    stem = replaced_names(linear.nodes)[0]
    bias = None if linear.bias is None else editor.constant(linear.bias, f"{stem}/bias")
    return [
        linear.x.value,
        *[scalar(editor, value) for value in linear.x[1:]],
        editor.constant(linear.weight, f"{stem}/weight"),
        editor.constant(linear.scale, f"{stem}/weight_scale"),
        bias,
    ]
