"""Reading a QDQ graph: what a node's inputs and its output are in integers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcompress.passes.lower.convolution.steps import Operand, Refused, Result, as_table
from onnxcompress.passes.lower.convolution.tables import IDENTITY, Function, quantize, read_parameters
from onnxcompress.passes.quantize.arithmetic import Parameters
from onnxcompress.passes.simplify.editor import (
    attribute,
    is_op,
    only_reader,
    producer,
    scalar_of,
    static_shape,
    tensor_of,
)

Array = np.ndarray[Any, Any]
Functions = Mapping[ir.Value, Function]


def read_operand(value: ir.Value | None, functions: Functions) -> Operand:
    """An input as a uint8 tensor.

    1. It comes from a DequantizeLinear, uint8 and per tensor, of rank 4 with a known number of channels.

    Raises:
        Refused: it does not.
    """
    dequantize = producer(value, "DequantizeLinear")
    given = None if dequantize is None else read_parameters(dequantize)
    if dequantize is None or given is None or value not in functions:
        raise Refused("an input of it is not quantized to uint8 per tensor")
    function = functions[_known(dequantize.inputs[0])]
    if channels(value) is None and channels(function.root) is None:  # one of the two may not have been inferred
        raise Refused("an input of it is not known to be a feature map of so many channels")
    return Operand(function.root, as_table(function.values), given, nodes=function.nodes)


def channels(value: ir.Value | None) -> int | None:
    """Channels of an NCHW tensor."""
    size = value.shape[1] if value is not None and value.shape is not None and len(value.shape) == 4 else None
    return size if isinstance(size, int) and size > 0 else None


def read_result(node: ir.Node, functions: Functions) -> Result:
    """The output of a node as a uint8 tensor, or as it is where nobody rounds it.

    1. Its one reader is a QuantizeLinear, uint8 and per tensor.
    2. Between the two stands a Relu, or a Clip to constant bounds, that is read by the QuantizeLinear only.
    3. Otherwise the result is the float output itself.
    """
    out = node.outputs[0]
    reader, bounds = only_reader(out), (-np.inf, np.inf)
    passed: tuple[ir.Node, ...] = ()
    if is_op(reader, "Relu", "Clip"):
        assert reader is not None
        found = _bounds(reader)
        after = only_reader(reader.outputs[0])
        if found is not None and is_op(after, "QuantizeLinear"):
            passed, bounds, reader = (reader,), found, after
    if not is_op(reader, "QuantizeLinear") or (given := read_parameters(_node(reader))) is None:
        return Result(out, None)
    quantized = _node(reader).outputs[0]
    if functions[quantized].root is not quantized:
        return Result(out, None)
    ends = quantize(np.array(bounds, np.float32), given)
    return Result(quantized, given, as_table(np.clip(IDENTITY, ends[0], ends[1])), passed)


def _bounds(node: ir.Node) -> tuple[float, float] | None:
    if node.op_type == "Relu":
        return 0.0, np.inf
    low, high = (node.inputs[i] if len(node.inputs) > i else None for i in (1, 2))
    least = -np.inf if low is None else scalar_of(low)
    greatest = np.inf if high is None else scalar_of(high)
    return None if least is None or greatest is None else (least, greatest)


def read_weight(value: ir.Value | None, axis: int) -> tuple[Array, Array]:
    """A weight: int8, and its scales float32 `[outputs]` or `[]`.

    1. It comes from a DequantizeLinear of an int8 constant with zero points 0, per tensor or per channel of `axis`.

    Raises:
        Refused: it does not.
    """
    node = producer(value, "DequantizeLinear")
    if node is None or (weight := tensor_of(node.inputs[0])) is None or weight.dtype != ir.DataType.INT8:
        raise Refused("its weight is not an int8 constant")
    scale, zero = tensor_of(node.inputs[1]), tensor_of(node.inputs[2]) if len(node.inputs) > 2 else None
    if scale is None or (zero is not None and np.any(zero.numpy())) or attribute(node, "block_size", 0):
        raise Refused("its weight is not quantized symmetrically with constant scales")
    scales = scale.numpy().astype(np.float32)
    if scales.size == 1:
        return weight.numpy(), scales.reshape(())
    if attribute(node, "axis", 1) % len(weight.shape) != axis:
        raise Refused("its weight is not quantized per output channel")
    return weight.numpy(), scales.reshape(-1)


def read_bias(value: ir.Value | None) -> Array | None:
    """A bias in real units, float32 `[outputs]`: a constant, or one behind a DequantizeLinear.

    Raises:
        Refused: it is neither.
    """
    if value is None:
        return None
    if (tensor := tensor_of(value)) is not None:
        return tensor.numpy().astype(np.float32).reshape(-1)
    node = producer(value, "DequantizeLinear")
    parts = [None, None] if node is None else [tensor_of(node.inputs[0]), tensor_of(node.inputs[1])]
    if parts[0] is None or parts[1] is None:
        raise Refused("its bias is not constant")
    real = parts[0].numpy().astype(np.float64) * parts[1].numpy().astype(np.float64)
    return real.astype(np.float32).reshape(-1)


def read_window(node: ir.Node, kernel: tuple[int, ...]) -> dict[str, Any]:
    """strides, pads and dilations of a window over two dimensions.

    Raises:
        Refused: it slides over another number of dimensions, or its padding depends on the image.
    """
    if len(kernel) != 2:
        raise Refused("it slides over another number of dimensions than two")
    if attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID", b"NOTSET", b"VALID"):
        raise Refused("its padding is automatic")
    pads = attribute(node, "pads", (0, 0, 0, 0))
    if min(pads) < 0:
        raise Refused("its padding is negative")
    return {
        "strides": attribute(node, "strides", (1, 1)),
        "pads": pads,
        "dilations": attribute(node, "dilations", (1, 1)),
    }


def requantized(source: Parameters, target: Parameters) -> Array:
    """Bytes of `target` for the bytes of `source`."""
    return IDENTITY if source == target else quantize(source.dequantize(IDENTITY), target)


def spatial_ones(value: ir.Value | None) -> bool:
    """Is it known to be `[N, C, 1, 1]`?"""
    return value is not None and value.shape is not None and list(value.shape)[2:] == [1, 1]


def nearest_factors(node: ir.Node) -> tuple[int, int] | None:
    """The integers by which a Resize repeats rows and columns; None where it does something else.

    1. Mode nearest, without antialias or axes; scales are constant, 1 for batch and channels (or sizes, where both
       shapes are known).
    2. The coordinates are such that y[i] = x[i // k]: asymmetric or tf_half_pixel_for_nn with floor; half_pixel with
       rounding.
    """
    if attribute(node, "mode", "nearest") != "nearest" or attribute(node, "antialias", 0):
        return None
    coordinates = attribute(node, "coordinate_transformation_mode", "half_pixel")
    rounding = attribute(node, "nearest_mode", "round_prefer_floor")
    repeats = (coordinates in ("asymmetric", "tf_half_pixel_for_nn") and rounding == "floor") or (
        coordinates in ("half_pixel", "half_pixel_symmetric") and rounding.startswith("round_")
    )
    scales = _scales(node)
    if not repeats or scales is None or len(scales) != 4 or scales[:2] != [1.0, 1.0]:
        return None
    if any(scale != int(scale) or scale < 1 for scale in scales) or attribute(node, "axes"):
        return None
    return int(scales[2]), int(scales[3])


def _scales(node: ir.Node) -> list[float] | None:
    tensor = tensor_of(node.inputs[2]) if len(node.inputs) > 2 else None
    if tensor is not None and tensor.size:
        return [float(scale) for scale in tensor.numpy().reshape(-1)]
    before, after = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    if before is None or after is None or 0 in before:
        return None
    return [b / a for a, b in zip(before, after, strict=True)]


def _known(value: ir.Value | None) -> ir.Value:
    assert value is not None
    return value


def _node(node: ir.Node | None) -> ir.Node:
    assert node is not None
    return node
