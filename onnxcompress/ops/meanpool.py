"""MeanPool: the mean of the token vectors that a mask keeps."""

from __future__ import annotations

import numpy as np

from onnxcompress.ops.op import Array, Attributes, Op, Port, Variant


def _reference(attributes: Attributes, x: Array, mask: Array) -> tuple[Array]:
    weight = mask.astype(np.float64)
    count = np.maximum(weight.sum(1, keepdims=True), float(str(attributes["minimum_count"])))
    y = np.einsum("bs,bsc->bc", weight, x.astype(np.float64)) / count
    if attributes["normalize"]:
        y = y / np.maximum(np.linalg.norm(y, axis=1, keepdims=True), float(str(attributes["norm_epsilon"])))
    return (y.astype(np.float32),)


def _body(variant: Variant) -> str:
    text = f"""
        weight = Cast <to = 1> (mask)
        row = Constant <value_ints = [1]> ()
        weight_row = Unsqueeze (weight, row)
        sum_row = MatMul (weight_row, x)
        sum = Squeeze (sum_row, row)
        counted = ReduceSum <keepdims = 1> (weight, row)
        least = Constant <value_float = {float(str(variant.attributes["minimum_count"]))}> ()
        count = Max (counted, least)
    """
    if not variant.attributes["normalize"]:
        return text + "y = Div (sum, count)"
    return (
        text
        + f"""
        mean = Div (sum, count)
        length = ReduceL2 <keepdims = 1> (mean, row)
        least_length = Constant <value_float = {float(str(variant.attributes["norm_epsilon"]))}> ()
        norm = Max (length, least_length)
        y = Div (mean, norm)
    """
    )


MEANPOOL = Op(
    "MeanPool",
    inputs=(Port("x", ("float",)), Port("mask", ("int64", "int32", "float", "bool"))),
    outputs=(Port("y", ("float",)),),
    attributes={"minimum_count": 1e-9, "normalize": 0, "norm_epsilon": 1e-12},
    reference=_reference,
    body=_body,
    doc="""y = sum over s of mask * x / max(sum of mask, minimum_count); with normalize = 1 it is then divided by
    max(its Euclidean norm, norm_epsilon). x: float [B, S, C]; mask: [B, S]; y: float [B, C].""",
)
