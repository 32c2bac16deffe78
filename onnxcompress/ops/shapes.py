"""Shapes of the operators' results: ONNX's shape inference does not know them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import cast

from onnxcompress.ops.op import Attributes, Op

Dim = int | str | None
Shape = tuple[Dim, ...]
Shapes = Mapping[str, Shape]
Rule = Callable[[Attributes, Shapes], Shape]


def output_shapes(op: Op, attributes: Attributes, inputs: Mapping[str, Shape | None]) -> dict[str, Shape | None]:
    """The shapes of all outputs by name of the port; None where the inputs do not tell.

    Args:
        attributes: defaults may be left out.
        inputs: shape by name of the port (variadic ones: name_0, name_1); a dimension may be a symbol or None.

    Raises:
        ValueError: an input is missing, or its rank is not the operator's.
    """
    known = {name: shape for name, shape in inputs.items() if shape is not None}
    try:
        whole: Shape | None = _RULES[op.name]({**op.attributes, **attributes}, known)
    except KeyError as error:
        if error.args[0] not in inputs:
            raise ValueError(f"{op.name} has no input {error}") from error
        whole = None
    except IndexError as error:
        raise ValueError(f"an input of {op.name} has another rank") from error
    row = None if whole is None else (*whole[:-1], 1)
    return {port.name: row if "row_" in port.name else whole for port in op.outputs}


def weight_matrix(op: Op, attributes: Attributes, inputs: Mapping[str, Shape | None]) -> tuple[int, int] | None:
    """[N, K] of the weight of a linear layer or convolution: outputs, and the products that each sums up.

    None where the operator has no such weight, or its shape is not known. Arguments: as of output_shapes.
    """
    known = {name: shape for name, shape in inputs.items() if shape is not None}
    a = {**op.attributes, **attributes}
    try:
        if "values" in known:
            k = cast("int", a["in_features"] if "in_features" in a else a["in_channels"])
            return _sparse_outputs(known), k * math.prod(_pair(a, "kernel_shape") if "kernel_shape" in a else ())
        outputs, *products = cast("tuple[int, ...]", known["w"])
        if op.name == "WeightOnlyLinear" and a["bits"] == 4:
            last = known["x"][-1] if "x" in known else None
            return outputs, last if isinstance(last, int) else 2 * products[0]
        return outputs, math.prod(products) * (2 if op.name == "QLinear4" else 1)
    except (KeyError, IndexError, ValueError):
        return None


def _like(name: str) -> Rule:
    return lambda attributes, shapes: shapes[name]


def _linear(attributes: Attributes, shapes: Shapes) -> Shape:
    return (*shapes["x"][:-1], shapes["w"][0])


def _weight_only(attributes: Attributes, shapes: Shapes) -> Shape:
    x, w = shapes["x"], shapes["w"]
    return (*x[:-1], cast("int", w[0]) // 2 if attributes["gated"] else w[0])


def _sparse_linear(attributes: Attributes, shapes: Shapes) -> Shape:
    return (*shapes["x"][:-1], _sparse_outputs(shapes))


def _sparse_outputs(shapes: Shapes) -> int:
    scales = shapes["w_scale"]
    starts, rows = shapes["row_start"][0], shapes["values"][1]
    return cast("int", scales[0]) if scales else (cast("int", starts) - 1) * cast("int", rows)


def _attention(attributes: Attributes, shapes: Shapes) -> Shape:
    batch, tokens, width = shapes["qkv"]
    return batch, tokens, width // 3 if isinstance(width, int) else None


def _embedding(attributes: Attributes, shapes: Shapes) -> Shape:
    return (*shapes["ids"], shapes["table"][1])


def _mean(attributes: Attributes, shapes: Shapes) -> Shape:
    batch, _, width = shapes["x"]
    return batch, width


def _convolution(attributes: Attributes, shapes: Shapes) -> Shape:
    outputs, *kernel, _ = shapes["w"]
    return _convolved(attributes, shapes["x"], outputs, (cast("int", kernel[0]), cast("int", kernel[1])))


def _sparse_convolution(attributes: Attributes, shapes: Shapes) -> Shape:
    return _convolved(attributes, shapes["x"], _sparse_outputs(shapes), _pair(attributes, "kernel_shape"))


def _convolved(attributes: Attributes, x: Shape, outputs: Dim, kernel: tuple[int, int]) -> Shape:
    n, *size, _ = _to_last(x) if attributes.get("x_layout") == "NCHW" else x
    dilations, strides = _pair(attributes, "dilations"), _pair(attributes, "strides")
    spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    rows, columns = map(_windows, size, spans, strides, _padding(attributes))
    return _laid_out(attributes, (n, rows, columns, outputs))


def _transposed(attributes: Attributes, shapes: Shapes) -> Shape:
    n, *size, _ = shapes["x"]
    outputs, *kernel, _ = shapes["w"]
    strides, extra = _pair(attributes, "strides"), _pair(attributes, "output_padding")

    def grown(length: Dim, i: int) -> Dim:
        more = cast("int", kernel[i]) - _padding(attributes)[i] + extra[i]
        return (length - 1) * strides[i] + more if isinstance(length, int) else None

    return _laid_out(attributes, (n, grown(size[0], 0), grown(size[1], 1), outputs))


def _pool(attributes: Attributes, shapes: Shapes) -> Shape:
    n, *size, channels = shapes["x"]
    if attributes["mode"] == "global_average":
        return n, 1, 1, channels
    kernel, strides, padding = _pair(attributes, "kernel_shape"), _pair(attributes, "strides"), _padding(attributes)
    counts = list(map(_windows, size, kernel, strides, padding))
    if attributes["ceil_mode"]:
        before = cast("tuple[int, ...]", attributes["pads"])
        for i, length in enumerate(size):
            if isinstance(length, int):
                more = -(-(length + padding[i] - kernel[i]) // strides[i])
                counts[i] = more + (more * strides[i] - before[i] < length)  # none begins in the padding behind
    return n, counts[0], counts[1], channels


def _windows(length: Dim, span: int, stride: int, padding: int) -> Dim:
    """How often a window fits, from the first place to the last."""
    if stride == 1 and padding == span - 1:
        return length
    return (length + padding - span) // stride + 1 if isinstance(length, int) else None


def _padding(attributes: Attributes) -> tuple[int, int]:
    """Of rows and of columns, on both sides together."""
    top, left, bottom, right = cast("tuple[int, int, int, int]", attributes["pads"])
    return top + bottom, left + right


def _concat(attributes: Attributes, shapes: Shapes) -> Shape:
    images = [shapes[f"x_{i}"] for i in range(cast("int", shapes["tables"][0]))]
    factor = (cast("tuple[int, ...]", attributes["upsample"]) or (1,))[0]
    n, height, width, _ = images[0]
    channels = [image[-1] for image in images]
    known = [c for c in channels if isinstance(c, int)]
    total = sum(known) if len(known) == len(channels) else None
    return n, _times(height, factor), _times(width, factor), total


def _resize(attributes: Attributes, shapes: Shapes) -> Shape:
    n, height, width, channels = shapes["x"]
    rows, columns = _pair(attributes, "scales")
    return n, _times(height, rows), _times(width, columns), channels


def _times(length: Dim, factor: int) -> Dim:
    if factor == 1:
        return length
    return length * factor if isinstance(length, int) else None


def _to_last(shape: Shape) -> Shape:
    n, channels, height, width = shape
    return n, height, width, channels


def _to_first(shape: Shape) -> Shape:
    n, height, width, channels = shape
    return n, channels, height, width


def _laid_out(attributes: Attributes, shape: Shape) -> Shape:
    return _to_first(shape) if attributes.get("y_layout") == "NCHW" else shape


def _pair(attributes: Attributes, name: str) -> tuple[int, int]:
    first, second = cast("tuple[int, int]", attributes[name])
    return first, second


_RULES: Mapping[str, Rule] = {
    "QLinear": _linear,
    "QLinear4": _linear,
    "WeightOnlyLinear": _weight_only,
    "QSparseLinear": _sparse_linear,
    "QLinearLayerNorm": _linear,
    "QSparseLinearLayerNorm": _sparse_linear,
    "QLayerNorm": _like("x"),
    "QAttention": _attention,
    "EmbedLayerNorm": _embedding,
    "MeanPool": _mean,
    "QConv": _convolution,
    "QSparseConv": _sparse_convolution,
    "QConvTranspose": _transposed,
    "QElementwise": _like("a"),
    "QTable": _like("x"),
    "QPool": _pool,
    "QConcat": _concat,
    "QResize": _resize,
    "QSqueezeExcite": _like("x"),
    "QuantizeNHWC": lambda attributes, shapes: _to_last(shapes["x"]),
    "DequantizeNCHW": lambda attributes, shapes: _to_first(shapes["x"]),
}
