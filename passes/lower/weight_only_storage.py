"""How a model stores the weights of 4 or 8 bits of a linear layer, read as those of WeightOnlyLinear."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

from onnxcompress.ops.weightonlylinear import BLOCK_SIZES
from onnxcompress.passes.quantize.blocks import pack_nibbles
from onnxcompress.passes.simplify.editor import Editor, array_of, attribute, dims_of, producer, tensor_of

Array = np.ndarray[Any, Any]

LARGEST = max(BLOCK_SIZES)
MOST_INPUTS = 1 << 20
"""Of a layer, that kernels take."""

_BITS: Mapping[ir.DataType | None, tuple[int, int]] = {
    ir.DataType.INT4: (4, 8), ir.DataType.UINT4: (4, 0), ir.DataType.INT8: (8, 128), ir.DataType.UINT8: (8, 0),
}  # fmt: skip
"""Bits, and what makes codes of integers."""

_SCALES = (ir.DataType.FLOAT, ir.DataType.FLOAT16)


class Weights(NamedTuple):
    """Weights of N outputs and K inputs: (code - zero_point) * scale.

    Attributes:
        bits, block_size: attributes of WeightOnlyLinear.
        shape: [N, K].
        source: the tensor that holds the integers.
        codes: uint8 [N, K] from it, when it is called.
        scale: float32 [N, blocks].
        zero_point: uint8 [N, blocks]; None: the middle code.
        key: what equal weights have in common.
    """

    bits: int
    block_size: int
    shape: tuple[int, int]
    source: ir.TensorProtocol
    codes: Callable[[ir.TensorProtocol], Array]
    scale: Array
    zero_point: Array | None
    key: tuple[object, ...]

    def __str__(self) -> str:
        unit = f"in blocks of {self.block_size}" if self.block_size else "per channel"
        return f"{self.bits} bits {unit}"


def read_dequantized(node: ir.Node, output_axis: int) -> Weights | str:
    """The matrix that a DequantizeLinear makes, outputs along `output_axis`; or why it has no such form.

    1. Its integers are a constant matrix of int4, uint4, int8 or uint8; scales and zero points are constants.
    2. It has a scale for all, for each output, or for blocks of inputs.
    """
    stored = tensor_of(node.inputs[0])
    constants = _constants(node, 1, 2)
    if stored is None or constants is None:
        return "its scales or zero points are not constants"
    if len(stored.shape) != 2:
        return "its weight is not a matrix"
    if stored.dtype not in _BITS:
        return f"its weight is of type {stored.dtype.name.lower()}"
    bits, offset = _BITS[stored.dtype]
    scale, zero = constants
    rows, columns = dims_of(stored)
    shape = (rows, columns) if output_axis == 0 else (columns, rows)
    axis, size = attribute(node, "axis", 1) % 2, attribute(node, "block_size", 0)
    if size and axis == output_axis:
        return "its blocks do not lie along its inputs"
    if not size and scale.size > 1 and (axis != output_axis or scale.ndim != 1):
        return "its scales are not one for each output"
    block = _block_size(size, shape[1])
    if isinstance(block, str):
        return block

    def laid_out(values: Array) -> Array:
        """[N, blocks]."""
        if not size:
            return np.broadcast_to(values.reshape(-1, 1), (shape[0], 1))
        return values if output_axis == 0 else values.T

    def codes(tensor: ir.TensorProtocol) -> Array:
        array = (tensor.numpy().astype(np.int16) + offset).astype(np.uint8)
        return array if output_axis == 0 else array.T

    if zero is None:
        zero = np.zeros_like(scale)  # of the integers
    points = (laid_out(zero).astype(np.int16) + offset).astype(np.uint8)
    return _made(bits, size, block, shape, stored, codes, laid_out(scale), points, (node.inputs[0], output_axis))


def read_nbits(node: ir.Node) -> Weights | str:
    """The matrix of a com.microsoft MatMulNBits; or why it has no such form.

    1. 4 or 8 bits; weights, scales and zero points are constants, zero points of the weights' type.
    2. No order of inputs of its own (g_idx).
    """
    bits, size = int(attribute(node, "bits", 4)), int(attribute(node, "block_size", 32))
    shape = int(attribute(node, "N", 0)), int(attribute(node, "K", 0))
    stored, constants = tensor_of(node.inputs[1]), _constants(node, 2, 3)
    if bits not in (4, 8):
        return f"its weight has {bits} bits"
    if len(node.inputs) > 4 and node.inputs[4] is not None:
        return "its inputs have an order of their own (g_idx)"
    if stored is None or constants is None or attribute(node, "weight_prepacked", 0):
        return "its weight, scales or zero points are not constants in the usual layout"
    scale, zero = constants
    blocks = -(-shape[1] // size)
    if zero is not None and zero.dtype != np.uint8:
        return "its zero points are not integers"
    if stored.size * (8 // bits) != shape[0] * blocks * size or scale.size != shape[0] * blocks:
        return "its weight or scales have another size than it says"
    block = _block_size(size, shape[1])
    if isinstance(block, str):
        return block

    def codes(tensor: ir.TensorProtocol) -> Array:
        packed = tensor.numpy().reshape(shape[0], -1)
        return (_nibbles(packed) if bits == 4 else packed)[:, : shape[1]]

    points = np.full((shape[0], blocks), 1 << (bits - 1), np.uint8)
    if zero is not None:
        packed = zero.reshape(shape[0], -1)
        points = (_nibbles(packed) if bits == 4 else packed)[:, :blocks]
    return _made(bits, size, block, shape, stored, codes, scale.reshape(points.shape), points, (node.inputs[1],))


def interleaved(gate: Weights, up: Weights) -> Weights | None:
    """Rows of both in turn; None where they are not stored alike."""
    if (gate.bits, gate.block_size, gate.shape) != (up.bits, up.block_size, up.shape):
        return None

    def turns(first: Array, second: Array) -> Array:
        return np.stack([first, second], axis=1).reshape(2 * len(first), -1)

    def codes(tensor: ir.TensorProtocol) -> Array:
        return turns(gate.codes(tensor), _read(up))

    zero = None
    if gate.zero_point is not None or up.zero_point is not None:
        middle = np.full(gate.scale.shape, 1 << (gate.bits - 1), np.uint8)
        zero = turns(*(middle if w.zero_point is None else w.zero_point for w in (gate, up)))
    shape = 2 * gate.shape[0], gate.shape[1]
    scale = turns(gate.scale, up.scale)
    return Weights(gate.bits, gate.block_size, shape, gate.source, codes, scale, zero, (*gate.key, *up.key))


def written(weights: Weights, editor: Editor, stem: str) -> list[ir.Value | None]:
    """w, w_scale and w_zero_point. Weights outside memory are read when the model is saved."""
    n, k = weights.shape

    def make() -> ir.TensorProtocol:
        codes = _read(weights)
        return ir.Tensor(np.ascontiguousarray(pack_nibbles(codes) if weights.bits == 4 else codes))

    shape = ir.Shape((n, -(-k // 2) if weights.bits == 4 else k))
    stored: ir.TensorProtocol = make() if isinstance(weights.source, ir.Tensor) else ir.LazyTensor(
        make, dtype=ir.DataType.UINT8, shape=shape
    )  # fmt: skip
    zero = weights.zero_point
    return [
        editor.constant(stored, f"{stem}/weight"),
        editor.constant(weights.scale, f"{stem}/weight_scale"),
        None if zero is None else editor.constant(zero, f"{stem}/weight_zero_point"),
    ]


def _read(weights: Weights) -> Array:
    codes = weights.codes(weights.source)
    if isinstance(weights.source, ir.ExternalTensor):
        codes = codes.copy()
        with contextlib.suppress(BufferError):  # somebody else looks at it
            weights.source.release()
    return codes


def _constants(node: ir.Node, scale_index: int, zero_index: int) -> tuple[Array, Array | None] | None:
    scale = tensor_of(node.inputs[scale_index])
    given = node.inputs[zero_index] if len(node.inputs) > zero_index else None
    zero = tensor_of(given)
    if scale is None or scale.dtype not in _SCALES or (given is not None and zero is None):
        return None
    return scale.numpy().astype(np.float32), None if zero is None else zero.numpy()


def _block_size(size: int, k: int) -> int | str:
    """The block size of WeightOnlyLinear for blocks of `size` of k inputs (0: all of an output's)."""
    if k > MOST_INPUTS:
        return f"it has more than {MOST_INPUTS} inputs"
    if size == 0 or size >= k:
        return 0
    if size in BLOCK_SIZES:
        return size
    return LARGEST if size % LARGEST == 0 else f"its blocks are of {size} inputs: there are kernels for 32, 64 and 128"


def _made(
    bits: int, size: int, block: int, shape: tuple[int, int], stored: ir.TensorProtocol,
    codes: Callable[[ir.TensorProtocol], Array], scale: Array, zero: Array, key: tuple[object, ...],
) -> Weights | str:  # fmt: skip
    if not np.isfinite(scale).all():
        return "its scales are not all finite"
    if block and size != block:  # larger blocks are several that agree
        count = -(-shape[1] // block)
        scale, zero = (np.repeat(values, size // block, axis=1)[:, :count] for values in (scale, zero))
    middle = bool((zero == 1 << (bits - 1)).all())
    zero_point = None if middle else np.ascontiguousarray(zero)
    return Weights(bits, block, shape, stored, codes, np.ascontiguousarray(scale), zero_point, key)


def _nibbles(packed: Array) -> Array:
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)


def bias_vector(value: ir.Value | None, size: int) -> Array | None:
    """A constant of `size` numbers along the last axis, or of one, as float32 [size]."""
    array = array_of(value)
    if array is None or array.dtype not in (np.float32, np.float16) or array.size not in (1, size):
        return None
    if array.ndim and array.size != array.shape[-1]:
        return None
    return np.broadcast_to(array.reshape(-1), (size,)).astype(np.float32)


def dequantizer(value: ir.Value | None) -> tuple[ir.Node, bool, list[ir.Value]] | None:
    """The DequantizeLinear of constant integers that a matrix comes from, whether it is transposed, and the values on
    the way."""
    if value is None:
        return None
    values, transposed = [value], False
    swap = producer(value, "Transpose")
    if swap is not None and swap.inputs[0] is not None and attribute(swap, "perm", (1, 0)) == (1, 0):
        values.append(swap.inputs[0])
        transposed = True
    node = producer(values[-1], "DequantizeLinear")
    return None if node is None or tensor_of(node.inputs[0]) is None else (node, transposed, values)
