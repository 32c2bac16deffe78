"""Float weights as the integer tensors that stand for them, made when they are looked at.

A weight outside memory is read again whenever a part of it is asked for, and let go of: a model's new weights
take no memory until it is saved, and then one at a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import ml_dtypes
import numpy as np
import onnx_ir as ir

from onnxcompress.passes.quantize import arithmetic, blocks

Array = np.ndarray[Any, Any]
Form = Literal["dequantize", "nbits", "rows"]

SLICE_ELEMENTS = 1 << 24
"""What is worked on at a time: a table of gigabytes must not have float copies of itself."""


@dataclass(frozen=True)
class Storage:
    """How a weight is stored.

    Attributes:
        form: for DequantizeLinear, for MatMulNBits, or as rows that are gathered and scaled after.
        bits: 8 or 4.
        axis: the output channels in the float weight.
        block_size: inputs that share a scale; None: all of a channel's. The weight then is a matrix.
        symmetric: without zero points.
    """

    form: Form
    bits: int
    axis: int
    block_size: int | None = None
    symmetric: bool = True

    def __str__(self) -> str:
        share = "row" if self.form == "rows" else "channel"
        unit = f"per {share}" if self.block_size is None else f"in blocks of {self.block_size}"
        return f"{self.bits} bits {unit}" + (" (MatMulNBits)" if self.form == "nbits" else "")


class Blocks(NamedTuple):
    """Integers of a matrix [N, K] in blocks of inputs, when something else than rounding to the nearest chose them.

    Attributes:
        integers: uint8 [N, blocks * block_size].
        scales: float32 [N, blocks].
        zeros: uint8 [N, blocks].
    """

    integers: Array
    scales: Array
    zeros: Array


def store(weight: ir.TensorProtocol, storage: Storage, blocks: Blocks | None = None) -> dict[str, ir.TensorProtocol]:
    """The tensors that stand for a float32 `weight`: 'quantized', 'scale' and, unless symmetric, 'zero_point'.

    `blocks` are stored in its place, where the storage is block-wise.

    Shapes: DequantizeLinear's (the weight's; `[channels]`, or the weight's with K / block_size for K);
    MatMulNBits' (uint8 `[N, blocks, block_size * bits / 8]`; `[N * blocks]`; uint8 `[N * ceil(blocks * bits / 8)]`).
    Rows are stored as channels are.
    """
    if storage.block_size is None:
        return _per_channel(weight, storage)
    return _block_wise(weight, storage, storage.block_size, blocks)


def _per_channel(weight: ir.TensorProtocol, storage: Storage) -> dict[str, ir.TensorProtocol]:
    axis, shape = storage.axis, _sizes(weight)

    def scales(array: Array) -> Array:
        return _sliced(array, axis, (shape[axis],), np.float32, 0, lambda part: arithmetic.weight_scales(part, axis))

    def quantized(array: Array) -> Array:
        def quantize(part: Array) -> Array:
            return arithmetic.quantize_weight(part, arithmetic.weight_scales(part, axis), axis)

        return _sliced(array, axis, shape, np.int8, axis, quantize)

    return {
        "quantized": _tensor(weight, ir.DataType.INT8, shape, quantized),
        "scale": _tensor(weight, ir.DataType.FLOAT, (shape[axis],), scales),
    }


def _block_wise(
    weight: ir.TensorProtocol, storage: Storage, size: int, given: Blocks | None
) -> dict[str, ir.TensorProtocol]:
    bits, symmetric = storage.bits, storage.symmetric
    outputs, inputs = (_sizes(weight)[i] for i in (storage.axis, 1 - storage.axis))
    count = -(-inputs // size)

    def view(array: Array) -> Array:
        return array if storage.axis == 0 else array.T

    def parameters(part: Array) -> tuple[Array, Array]:
        return blocks.block_parameters(part, size, bits, symmetric=symmetric)

    def quantize(part: Array) -> Array:
        return blocks.quantize_blocks(part, *parameters(part), size, bits)

    def integers(array: Array) -> Array:
        if given is not None:
            return given.integers
        return _sliced(view(array), 0, (outputs, count * size), np.uint8, 0, quantize)

    def scales(array: Array) -> Array:
        if given is not None:
            return given.scales
        return _sliced(view(array), 0, (outputs, count), np.float32, 0, lambda part: parameters(part)[0])

    def zeros(array: Array) -> Array:
        if given is not None:
            return given.zeros
        return _sliced(view(array), 0, (outputs, count), np.uint8, 0, lambda part: parameters(part)[1])

    if storage.form == "nbits":
        return _for_nbits(weight, storage, (outputs, count, size), integers, scales, zeros)
    narrow = {
        4: np.dtype(ml_dtypes.int4 if symmetric else ml_dtypes.uint4),
        8: np.dtype(np.int8 if symmetric else np.uint8),
    }
    dtype = narrow[bits]
    offset = 1 << (bits - 1) if symmetric else 0

    def typed(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
        return lambda array: view((function(array).astype(np.int16) - offset).astype(dtype))

    element = ir.DataType.from_numpy(dtype)
    small = (outputs, count) if storage.axis == 0 else (count, outputs)
    parts = {
        "quantized": _tensor(weight, element, _sizes(weight), typed(integers)),
        "scale": _tensor(weight, ir.DataType.FLOAT, small, lambda array: view(scales(array))),
    }
    return parts if symmetric else parts | {"zero_point": _tensor(weight, element, small, typed(zeros))}


def _for_nbits(
    weight: ir.TensorProtocol,
    storage: Storage,
    sizes: tuple[int, int, int],
    integers: Callable[[Array], Array],
    scales: Callable[[Array], Array],
    zeros: Callable[[Array], Array],
) -> dict[str, ir.TensorProtocol]:
    outputs, count, size = sizes
    four = storage.bits == 4

    def pack(values: Array) -> Array:
        return blocks.pack_nibbles(values) if four else values

    packed = (outputs, count, size // 2 if four else size)
    parts = {
        "quantized": _tensor(weight, ir.DataType.UINT8, packed, lambda array: pack(integers(array)).reshape(packed)),
        "scale": _tensor(weight, ir.DataType.FLOAT, (outputs * count,), lambda array: scales(array).reshape(-1)),
    }
    if storage.symmetric:  # the operator's own default is the middle
        return parts
    length = outputs * (-(-count // 2) if four else count)
    zero = _tensor(weight, ir.DataType.UINT8, (length,), lambda array: pack(zeros(array)).reshape(-1))
    return parts | {"zero_point": zero}


def _tensor(
    weight: ir.TensorProtocol, dtype: ir.DataType, shape: tuple[int, ...], function: Callable[[Array], Array]
) -> ir.TensorProtocol:
    """`function` of the weight: now, where the weight is in memory, else whenever it is looked at."""

    def make() -> ir.TensorProtocol:
        array = np.ascontiguousarray(function(weight.numpy()))
        if isinstance(weight, ir.ExternalTensor):
            with contextlib.suppress(BufferError):  # somebody else looks at it
                weight.release()
        return ir.Tensor(array, dtype=dtype)

    if isinstance(weight, (ir.ExternalTensor, ir.LazyTensor)):
        return ir.LazyTensor(make, dtype, ir.Shape(shape))
    return make()


def _sliced(
    array: Array,
    axis: int,
    shape: tuple[int, ...],
    dtype: Any,
    out_axis: int,
    function: Callable[[Array], Array],
) -> Array:
    """`function` of slices along `axis`, put together along `out_axis`."""
    out = np.empty(shape, dtype)
    length = array.shape[axis]
    step = max(1, SLICE_ELEMENTS * length // max(array.size, 1))
    for start in range(0, length, step):
        cut = slice(start, min(start + step, length))
        part = np.asarray(array[(slice(None),) * axis + (cut,)], np.float32)
        out[(slice(None),) * out_axis + (cut,)] = function(part)
    return out


def _sizes(tensor: ir.TensorProtocol) -> tuple[int, ...]:
    return tuple(int(size) for size in tensor.shape)  # type: ignore[arg-type]
