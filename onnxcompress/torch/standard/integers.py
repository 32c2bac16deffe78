"""Quantization, and operators on integers.

Quantized tensors are floats that hold whole numbers where they come from floats, so that gradients pass straight
through the rounding; tensors that are integers from the start stay so.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import torch

from onnxcompress.torch.ops.rounding import round_through
from onnxcompress.torch.quantization import Grid, dequantize, quantize
from onnxcompress.torch.standard.convolution import convolution
from onnxcompress.torch.standard.operator import Call, Function, Integers, Operator, Table

EXACT_FLOAT32 = 1 << 24
"""Whole numbers up to here are exact in float32."""


def grid_of(call: Call) -> Grid:
    """The grid of a QuantizeLinear or DequantizeLinear.

    Raises:
        ModelError: its integers are of a type that has no grid (8-bit floats).
    """
    if call.op == "QuantizeLinear":
        kind = call.kind(2) or ir.DataType(call.get("output_dtype") or ir.DataType.UINT8)
    else:
        kind = call.kind(2) or call.kind(0) or ir.DataType.INT32
    try:
        return Grid.of(kind, call.get("axis", 1), call.get("block_size", 0))
    except KeyError:
        raise call.refusal(f"quantization to {kind.name} is not supported") from None


def quantize_linear(call: Call) -> Function:
    grid = grid_of(call)
    return lambda x, scale, zero_point=None: quantize(x, scale, zero_point, grid)


def dequantize_linear(call: Call) -> Function:
    grid = grid_of(call)
    return lambda q, scale, zero_point=None: dequantize(q, scale, zero_point, grid)


def dynamic_range(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and zero point (whole, of x's type) to 0..255 of the range of x with 0 in it; no gradients."""
    x = x.detach()
    low, high = x.amin().clamp(max=0), x.amax().clamp(min=0)
    scale = (high - low) / 255
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    return scale, torch.clamp(torch.round(-low / scale), 0, 255)


def dynamic_quantize_linear(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    scale, zero = dynamic_range(x)
    return torch.clamp(round_through(x / scale) + zero, 0, 255), scale, zero.to(torch.uint8)


def _shifted(x: torch.Tensor, zero: torch.Tensor | None, dtype: torch.dtype, axis: int | None) -> torch.Tensor:
    """x - zero in a floating type; a vector of zero points lies along the axis."""
    x = x.to(dtype)
    if zero is None:
        return x
    if zero.dim() == 1 and zero.numel() > 1 and axis is not None:
        shape = [1] * x.dim()
        shape[axis] = -1
        zero = zero.reshape(shape)
    return x - zero.to(dtype)


def _working_type(depth: int, largest: int = 255 * 255) -> torch.dtype:
    """Wide enough for exact sums of `depth` products."""
    return torch.float32 if depth * largest < EXACT_FLOAT32 else torch.float64


def _result(y: torch.Tensor, *inputs: torch.Tensor) -> torch.Tensor:
    """Sums of integers as int32; of whole floats as float."""
    floats = [x.dtype for x in inputs if x.is_floating_point()]
    return y.to(floats[0] if floats else torch.int32)


def integer_product(a: torch.Tensor, b: torch.Tensor, a_zero: Any = None, b_zero: Any = None) -> torch.Tensor:
    """(a - a_zero) @ (b - b_zero), exactly. Zero points of a may be per row, of b per column."""
    dtype = _working_type(a.shape[-1])
    product = torch.matmul(_shifted(a, a_zero, dtype, -2), _shifted(b, b_zero, dtype, -1))
    return _result(product, a, b)


def integer_convolution(call: Call) -> Function:
    convolve = convolution(call)

    def apply(
        x: torch.Tensor, w: torch.Tensor, x_zero: torch.Tensor | None = None, w_zero: torch.Tensor | None = None
    ) -> torch.Tensor:
        dtype = _working_type(w[0].numel())
        return _result(convolve(_shifted(x, x_zero, dtype, None), _shifted(w, w_zero, dtype, 0)), x, w)

    return apply


def requantize(
    y: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, kind: ir.DataType | None, like: torch.Tensor
) -> torch.Tensor:
    """Real values onto a grid; integers where what they were made of were integers."""
    q = quantize(y, scale.to(y.dtype), zero, Grid.of(kind or ir.DataType.UINT8, 0, 0))
    return q.to(like.dtype) if like.is_floating_point() else q.to(zero.dtype)


def quantized_product(call: Call) -> Function:
    def apply(a: Any, a_scale: Any, a_zero: Any, b: Any, b_scale: Any, b_zero: Any, y_scale: Any, y_zero: Any) -> Any:
        sums = integer_product(a.double(), b.double(), a_zero, b_zero)
        rows = a_scale[..., None] if a_scale.numel() > 1 else a_scale
        return requantize(
            sums * (rows.double() * b_scale.double()), y_scale, y_zero, call.kind(7), a if a.is_floating_point() else b
        )

    return apply


def quantized_convolution(call: Call) -> Function:
    """The bias is int32, in units of x_scale * w_scale."""
    convolve = convolution(call)

    def apply(
        x: Any, x_scale: Any, x_zero: Any, w: Any, w_scale: Any, w_zero: Any, y_scale: Any, y_zero: Any, b: Any = None
    ) -> torch.Tensor:
        kind = torch.float64
        bias = None if b is None else b.to(kind)
        sums = convolve(_shifted(x, x_zero, kind, None), _shifted(w, w_zero, kind, 0), bias)
        unit = (x_scale.to(kind) * w_scale.to(kind)).reshape(-1, *[1] * (w.dim() - 2))
        return requantize(sums * unit, y_scale, y_zero, call.kind(7), x if x.is_floating_point() else w)

    return apply


INTEGERS: Table = {
    "QuantizeLinear": Operator(quantize_linear, fixed=(1, 2), scales=(1,)),
    "DequantizeLinear": Operator(dequantize_linear, fixed=(1, 2), scales=(1,)),
    "DynamicQuantizeLinear": Operator(lambda call: dynamic_quantize_linear),
    "MatMulInteger": Operator(lambda call: integer_product),
    "ConvInteger": Operator(integer_convolution),
    "QLinearMatMul": Operator(quantized_product, fixed=(1, 2, 4, 5, 6, 7), integers={3: Integers(4, 5, -1)}),
    # Its bias is in units of two scales, which therefore stay.
    "QLinearConv": Operator(quantized_convolution, fixed=(1, 2, 4, 5, 6, 7), integers={3: Integers(4, 5, 0)}),
}
