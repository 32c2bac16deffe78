"""Operators of ONNX Runtime (domain com.microsoft)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from onnxcompress.torch.ops.rounding import round_through
from onnxcompress.torch.quantization import damped
from onnxcompress.torch.standard.activations import gelu
from onnxcompress.torch.standard.integers import dequantize_linear, dynamic_range, integer_product, quantize_linear
from onnxcompress.torch.standard.normalization import root_mean_square
from onnxcompress.torch.standard.operator import Call, Function, Integers, Operator, Table, plain
from onnxcompress.torch.standard.recurrent import lstm_step, unrolled


def quick_gelu(call: Call) -> Function:
    alpha = call.get("alpha", 1.702)
    return F.silu if alpha == 1.0 else lambda x: x * torch.sigmoid(alpha * x)


def fast_gelu(x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    return F.gelu(x if bias is None else x + bias, approximate="tanh")


def skip_layer_norm(call: Call) -> Function:
    """LayerNorm(x + skip + bias) and, as the fourth output, the sum."""
    epsilon = call.get("epsilon", 1e-12)

    def apply(x: torch.Tensor, skip: torch.Tensor, scale: torch.Tensor, shift: Any = None, bias: Any = None) -> Any:
        total = x + skip if bias is None else x + skip + bias
        y = F.layer_norm(total, scale.shape, scale, shift, epsilon)
        return y, None, None, total

    return apply


def skip_simplified_layer_norm(call: Call) -> Function:
    epsilon = call.get("epsilon", 1e-12)

    def apply(x: torch.Tensor, skip: torch.Tensor, scale: torch.Tensor, bias: Any = None) -> Any:
        total = x + skip if bias is None else x + skip + bias
        return root_mean_square(total, -1, epsilon) * scale, None, None, total

    return apply


def fused_matmul(call: Call) -> Function:
    alpha = call.get("alpha", 1.0)
    a_turned, b_turned = bool(call.get("transA", 0)), bool(call.get("transB", 0))
    if call.get("transBatchA", 0) or call.get("transBatchB", 0):
        raise call.refusal("transposed batches are not supported")

    def apply(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        a, b = a.mT if a_turned and a.dim() > 1 else a, b.mT if b_turned and b.dim() > 1 else b
        product = a @ b
        return product if alpha == 1.0 else alpha * product

    return apply


def matmul_integer_to_float(
    a: Any, b: Any, a_scale: Any, b_scale: Any, a_zero: Any = None, b_zero: Any = None, bias: Any = None
) -> Any:
    """(a - a_zero) @ (b - b_zero) * a_scale * b_scale + bias. Learned scales are those of 8-bit tensors."""
    a_scale, b_scale = damped(a_scale, a, 255), damped(b_scale, b, 127)
    y = integer_product(a, b, a_zero, b_zero).to(a_scale.dtype) * (a_scale * b_scale)
    return y if bias is None else y + bias


def dynamic_quantize_matmul(a: Any, b: Any, b_scale: Any, b_zero: Any = None, bias: Any = None) -> Any:
    scale, zero = dynamic_range(a)
    return matmul_integer_to_float(_rounded(a, scale, zero), b, scale, b_scale, zero, b_zero, bias)


def _rounded(x: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
    return torch.clamp(round_through(x / scale) + zero, 0, 255)


def _dynamic(x: torch.Tensor) -> torch.Tensor:
    """x rounded to 8 bits over its range."""
    scale, zero = dynamic_range(x)
    return (_rounded(x, scale, zero) - zero) * scale


def dynamic_quantize_lstm(call: Call) -> Function:
    """An LSTM whose W [D, I, 4H] and R [D, H, 4H] are integers, with inputs and states in 8 bits, by their own ranges.

    Raises:
        ModelError: a backward direction, peepholes or sequence lengths, which are not supported here.
    """
    if call.get("layout", 0) or any(call.has(i) for i in (4, 7)):
        raise call.refusal("sequence lengths, peepholes and layout 1 are not supported")
    direction, hidden = call.get("direction", "forward"), call.attributes["hidden_size"]
    lstm = Call(**{**vars(call), "op": "LSTM"})

    def apply(
        x: Any, w: Any, r: Any, b: Any, lengths: Any, h0: Any, c0: Any, p: Any, w_scale: Any, w_zero: Any, r_scale: Any,
        r_zero: Any,
    ) -> tuple[torch.Tensor, ...]:  # fmt: skip
        results = []
        for d in range(w.shape[0]):
            backward = direction == "reverse" or d == 1
            weight, recurrent = _real(w, w_scale, w_zero, d, x.dtype), _real(r, r_scale, r_zero, d, x.dtype)
            bias = x.new_zeros(8 * hidden) if b is None else b[d]
            zeros = x.new_zeros(x.shape[1], hidden)
            h, c = (zeros if s is None else s[d] for s in (h0, c0))
            inputs = _dynamic(x) @ weight + bias[: 4 * hidden]
            step = lstm_step(lstm, d, recurrent.t(), bias, None)
            y, h, c = unrolled(
                lambda part, h, c, step=step: step(part, _dynamic(h), c),  # type: ignore[misc]
                inputs.flip(0) if backward else inputs, h, c, None,
            )  # fmt: skip
            results.append((y.flip(0) if backward else y, h, c))
        y, h, c = (torch.stack([result[i] for result in results], 1 if i == 0 else 0) for i in range(3))
        return y, h, c

    return apply


def _real(w: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, direction: int, dtype: torch.dtype) -> torch.Tensor:
    """Scales are one for each direction, or for each column of it."""
    return (w[direction].to(dtype) - zero[direction].to(dtype)) * scale[direction]


def matmul_nbits(call: Call) -> Function:
    """A [..., K] times the transpose of a weight [N, K] of 4 or 8 bits, in blocks along K.

    B uint8 [N, blocks, block_size * bits / 8], low bits first; scales [N * blocks]; zero points packed alike.
    """
    bits, n, k, block = (call.attributes[name] for name in ("bits", "N", "K", "block_size"))
    if bits not in (4, 8) or call.has(4):
        raise call.refusal("only weights of 4 or 8 bits without group indices are supported")

    def apply(a: Any, b: Any, scales: Any, zeros: Any = None, groups: Any = None, bias: Any = None) -> torch.Tensor:
        blocks = -(-k // block)
        q = _unpacked(b, bits).reshape(n, blocks, block).to(scales.dtype)
        if zeros is None:
            zero = q.new_full((), 2 ** (bits - 1))
        elif zeros.is_floating_point():
            zero = zeros.reshape(n, blocks, 1)
        else:
            zero = _unpacked(zeros.reshape(n, -1), bits)[:, :blocks, None].to(scales.dtype)
        weight = ((q - zero) * scales.reshape(n, blocks, 1)).reshape(n, -1)[:, :k]
        return F.linear(a, weight.to(a.dtype), bias)

    return apply


def _unpacked(packed: torch.Tensor, bits: int) -> torch.Tensor:
    return packed if bits == 8 else torch.stack((packed & 15, packed >> 4), -1).flatten(-2)


CONTRIBUTED: Table = {
    "Gelu": Operator(gelu),
    "QuickGelu": Operator(quick_gelu),
    "FastGelu": plain(fast_gelu),
    "BiasGelu": plain(lambda x, bias: F.gelu(x + bias)),
    "SkipLayerNormalization": Operator(skip_layer_norm, weights=(2, 3, 4)),
    "SkipSimplifiedLayerNormalization": Operator(skip_simplified_layer_norm, weights=(2, 3)),
    "FusedMatMul": Operator(fused_matmul, weights=(0, 1)),
    "QuantizeLinear": Operator(quantize_linear, fixed=(1, 2), scales=(1,)),
    "DequantizeLinear": Operator(dequantize_linear, fixed=(1, 2), scales=(1,)),
    "MatMulIntegerToFloat": plain(
        matmul_integer_to_float, fixed=(2, 3, 4, 5), scales=(2, 3), integers={1: Integers(3, 5, -1)}
    ),
    "DynamicQuantizeMatMul": plain(dynamic_quantize_matmul, fixed=(2, 3), integers={1: Integers(2, 3, -1)}),
    "DynamicQuantizeLSTM": Operator(dynamic_quantize_lstm, fixed=(8, 9, 10, 11)),
    "MatMulNBits": Operator(matmul_nbits, fixed=(2, 3)),
}
