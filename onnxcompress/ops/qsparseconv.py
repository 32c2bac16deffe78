"""QSparseConv: a convolution of quantized images with block-sparse weights."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import cast

from onnxcompress.ops.blocks import from_blocks, output_count
from onnxcompress.ops.op import TABLE, Array, Attributes, Op, Port, Variant, parameters
from onnxcompress.ops.qconv import QCONV
from onnxcompress.ops.qsparselinear import BLOCK_INPUTS, dense_weights

_FIXED: Attributes = {"group": 1, "x_layout": "NHWC", "y_layout": "NHWC", "residual_after": 0}


def _kernel(attributes: Attributes) -> tuple[int, int, int]:
    """Height, width and channels of the weights."""
    height, width = cast("tuple[int, int]", attributes["kernel_shape"])
    return height, width, cast("int", attributes["in_channels"])


def _reference(attributes: Attributes, *inputs: Array | None) -> tuple[Array | None, ...]:
    x, x_scale, x_zero, values, row_start, column, w_scale, *rest = inputs
    assert values is not None and row_start is not None and column is not None and w_scale is not None
    kernel = _kernel(attributes)
    n = output_count(row_start, values.shape[1], w_scale)
    w = from_blocks(values, row_start, column, n, prod(kernel)).reshape(n, *kernel)
    missing = len(QCONV.inputs) - 5 - len(rest)
    return QCONV.reference({**attributes, **_FIXED}, x, x_scale, x_zero, w, w_scale, *rest, *[None] * missing)


def _body(variant: Variant) -> str:
    kernel = _kernel(variant.attributes)
    nodes, n, inputs = dense_weights(variant, prod(kernel))
    dense = replace(
        variant,
        inputs=inputs,
        shapes={**variant.shapes, "w": (n, *kernel)},
        attributes={**variant.attributes, **_FIXED},
    )
    shape = ", ".join(str(d) for d in (n, *kernel))
    return f"""
        {nodes.replace("w = Slice", "w_matrix = Slice")}
        w_shape = Constant <value = int64[4] {{{shape}}}> ()
        w = Reshape (w_matrix, w_shape)
        {QCONV.body(dense)}
    """


QSPARSECONV = Op(
    "QSparseConv",
    inputs=(
        Port("x", ("uint8",)),
        *parameters("x"),
        *BLOCK_INPUTS,
        Port("w_scale", ("float",), constant=True),
        Port("bias", ("float",), optional=True, constant=True),
        *parameters("y", optional=True),
        TABLE,
    ),
    outputs=(Port("y", ("uint8",), optional=True), Port("y_float", ("float",), optional=True)),
    attributes={
        "kernel_shape": (1, 1),
        "in_channels": 0,
        "strides": (1, 1),
        "pads": (0, 0, 0, 0),
        "dilations": (1, 1),
    },
    reference=_reference,
    body=_body,
    doc="""QConv, of one group and without a residual, with weights seen as int8 [N, K], K over (ky, kx, channel), and
        given by their blocks that are not all zeros (see QSparseLinear).

        x: uint8 [B, H, W, C], C the attribute in_channels. y: uint8 [B, OH, OW, N] with y_scale, y_float without.""",
)
