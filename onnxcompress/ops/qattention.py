"""QAttention: multi-head attention on quantized queries, keys and values."""

from __future__ import annotations

import math

import numpy as np

from onnxcompress.ops.op import Array, Attributes, Op, Port, Variant, parameters
from onnxcompress.ops.quantization import dequantize, quantize

MOST_BIAS = 1e30
"""Masks are brought into [-1e30, 1e30]: a float score drowns in it, and sums of it stay finite."""


def softmax_scale(attributes: Attributes, head_size: int) -> float:
    """What scores are multiplied by: the attribute, or where it is 0 one over the root of the head size."""
    return float(str(attributes["scale"])) or 1.0 / math.sqrt(head_size)


def attention(
    attributes: Attributes, qkv: Array, q_scale: Array, k_scale: Array, v_scale: Array, mask: Array | None
) -> Array:
    """The result in float64 [B, S, C], before it is quantized."""
    batch, length, width = qkv.shape
    heads, channels = int(str(attributes["num_heads"])), width // 3
    size = channels // heads
    scale = np.concatenate([np.repeat(q_scale, size), np.repeat(k_scale, size), v_scale])
    split = dequantize(qkv, scale, 128).reshape(batch, length, 3, heads, size).transpose(2, 0, 3, 1, 4)
    scores = split[0] @ split[1].swapaxes(-1, -2) * softmax_scale(attributes, size)
    if mask is not None and attributes["mask_kind"] == "keep":
        scores = np.where(mask[:, None, None, :] != 0, scores, -MOST_BIAS)
    elif mask is not None:
        scores = scores + np.clip(mask.astype(np.float64), -MOST_BIAS, MOST_BIAS)
    chance = np.exp(scores - scores.max(-1, keepdims=True, initial=-np.inf))
    y = (chance / chance.sum(-1, keepdims=True)) @ split[2]
    result: Array = y.transpose(0, 2, 1, 3).reshape(batch, length, channels)
    return result


def _reference(
    attributes: Attributes,
    qkv: Array,
    q_scale: Array,
    k_scale: Array,
    v_scale: Array,
    mask: Array | None,
    y_scale: Array,
    y_zero_point: Array,
) -> tuple[Array]:
    y = attention(attributes, qkv, q_scale, k_scale, v_scale, mask)
    return (quantize(y, y_scale, y_zero_point),)


def _body(variant: Variant) -> str:
    heads = int(str(variant.attributes["num_heads"]))
    channels = variant.shapes["v_scale"][0]
    size = channels // heads
    softmax = softmax_scale(variant.attributes, size)
    # Bytes are moved rather than floats. A head of q takes all scales of its products with k, whose zero point softmax
    # drops as it adds the same to all scores of a query; the scales of v are those of the result.
    return f"""
        parts = Constant <value_ints = [{channels}, {channels}, {channels}]> ()
        q, k, v = Split <axis = 2> (qkv, parts)
        by_head = Constant <value_ints = [0, 0, {heads}, {size}]> ()
        q_heads = Reshape (q, by_head)
        k_heads = Reshape (k, by_head)
        v_heads = Reshape (v, by_head)
        q_bytes = Transpose <perm = [0, 2, 1, 3]> (q_heads)
        k_bytes = Transpose <perm = [0, 2, 3, 1]> (k_heads)
        v_bytes = Transpose <perm = [0, 2, 1, 3]> (v_heads)
        softmax = Constant <value_float = {softmax:.9e}> ()
        products_scale = Mul (q_scale, k_scale)
        scores_scale = Mul (products_scale, softmax)
        zeros = Constant <value = uint8[{heads}] {{{", ".join(["128"] * heads)}}}> ()
        keys = Cast <to = 1> (k_bytes)
        {_scores(variant, heads)}
        unit = Constant <value = float {{1.0}}> ()
        zero = Constant <value = uint8 {{128}}> ()
        values = DequantizeLinear (v_bytes, unit, zero)
        chances = Softmax <axis = -1> (scores)
        sums = MatMul (chances, values)
        rows = Transpose <perm = [0, 2, 1, 3]> (sums)
        joined = Constant <value_ints = [0, 0, {channels}]> ()
        joined_rows = Reshape (rows, joined)
        result_scale = Div (v_scale, y_scale)
        result = Mul (joined_rows, result_scale)
        y = QuantizeLinear (result, unit, y_zero_point)
    """


def _scores(variant: Variant, heads: int) -> str:
    """Nodes that compute the scores of `q_bytes` and the float `keys`."""
    if not variant.has("mask") or variant.attributes["mask_kind"] == "add":
        products = """
        queries = DequantizeLinear <axis = 1> (q_bytes, scores_scale, zeros)
        products = MatMul (queries, keys)"""
        if not variant.has("mask"):
            return products.replace("products =", "scores =")
        return f"""{products}
        low = Constant <value_float = {-MOST_BIAS}> ()
        high = Constant <value_float = {MOST_BIAS}> ()
        bias = Clip (mask, low, high)
        scores = Add (products, bias)"""
    # What the mask of keys adds is one more product of each query, with a constant: that costs less than a sum.
    return f"""
        kept = Cast <to = 9> (mask)
        axes = Constant <value_ints = [1, 2]> ()
        wide = Unsqueeze (kept, axes)
        away = Constant <value_float = {-MOST_BIAS}> ()
        nothing = Constant <value_float = 0.0> ()
        bias = Where (wide, nothing, away)
        every_head = Constant <value_ints = [1, {heads}, 1, 1]> ()
        bias_key = Expand (bias, every_head)
        masked_keys = Concat <axis = 2> (keys, bias_key)
        one_more = Constant <value_ints = [0, 0, 0, 0, 0, 0, 0, 1]> ()
        one_step = Constant <value = uint8 {{129}}> ()
        q_padded = Pad (q_bytes, one_more, one_step)
        queries = DequantizeLinear <axis = 1> (q_padded, scores_scale, zeros)
        scores = MatMul (queries, masked_keys)"""


QATTENTION = Op(
    "QAttention",
    inputs=(
        Port("qkv", ("uint8",)),
        Port("q_scale", ("float",), constant=True),
        Port("k_scale", ("float",), constant=True),
        Port("v_scale", ("float",), constant=True),
        Port("mask", ("int64", "int32", "float", "bool"), optional=True),
        *parameters("y"),
    ),
    outputs=(Port("y", ("uint8",)),),
    attributes={"num_heads": 1, "scale": 0.0, "mask_kind": "keep"},
    reference=_reference,
    body=_body,
    doc="""y = softmax(q * k^T * scale + mask) * v for every head.

    qkv: uint8 [B, S, 3C], the channels of q, k and v side by side and those of a head side by side in each, zero
    point 128. q_scale, k_scale: [num_heads]; v_scale: [C]. scale: 0 stands for 1 / sqrt(C / num_heads).
    mask: with mask_kind "keep", [B, S] of int64, int32, float or bool, nonzero where a key is attended to; a query
    whose keys are all masked attends to all alike. With mask_kind "add", float [B or 1, num_heads or 1, S or 1, S],
    added to the scores, after it is brought into [-1e30, 1e30].
    The kernels round probabilities to whole 255ths of the greatest of a query and give what that takes off their sum
    to the mean of all values (not with a mask that differs between queries): results are within 2 steps of the formula
    up to some hundred keys. S is at most 65536.""",
)
