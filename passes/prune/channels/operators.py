"""The operators that channels are followed through."""

from __future__ import annotations

from collections.abc import Mapping

from onnxcompress.passes.prune.channels import layout, pointwise, products, shapes
from onnxcompress.passes.prune.channels.trace import Operator, Rule

UNARY = """
    Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Cast CastLike Ceil Celu Clip Cos Cosh Dropout Elu Erf Exp Floor
    Gelu HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu Shrink
    Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu
""".split()  # noqa: SIM905 - a table is read as words

ELEMENTWISE = """
    Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min
    Mod Mul Or PRelu Pow Sub Sum Where Xor
""".split()  # noqa: SIM905

REDUCTIONS = """
    ArgMax ArgMin ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare
""".split()  # noqa: SIM905

RULES: Mapping[str, Rule] = {
    **dict.fromkeys(UNARY, pointwise.unary),
    **dict.fromkeys(ELEMENTWISE, pointwise.elementwise),
    **dict.fromkeys(REDUCTIONS, pointwise.reduction),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax", "LpNormalization", "CumSum"), pointwise.along_axis),
    **dict.fromkeys(
        ("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), pointwise.pool
    ),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), pointwise.layer_norm),
    "BatchNormalization": pointwise.batch_norm,
    "InstanceNormalization": pointwise.instance_norm,
    "GroupNormalization": pointwise.group_norm,
    "LRN": pointwise.normalized_channels,
    "Conv": products.convolution,
    "ConvTranspose": products.transposed_convolution,
    "MatMul": products.matrix_product,
    "Gemm": products.gemm,
    "Einsum": products.einsum,
    "Transpose": layout.transpose,
    "Flatten": layout.flatten,
    "Split": layout.split_parts,
    "Pad": layout.pad,
    "Tile": layout.tile,
    "DepthToSpace": layout.depth_to_space,
    "SpaceToDepth": layout.space_to_depth,
}

OPERATORS: Mapping[str, Operator] = {
    **{name: Operator(rule) for name, rule in RULES.items()},
    "Shape": Operator(shapes.shape, follow=shapes.sizes),
    "Gather": Operator(layout.gather, follow=shapes.picked),
    "Slice": Operator(layout.window, follow=shapes.cut_out),
    "Concat": Operator(layout.concat, follow=shapes.joined),
    "Squeeze": Operator(layout.squeeze, follow=shapes.same),
    "Unsqueeze": Operator(layout.unsqueeze, follow=shapes.same),
    "Cast": Operator(pointwise.unary, follow=shapes.same),
    "Identity": Operator(pointwise.unary, follow=shapes.same),
    "Reshape": Operator(shapes.reshape, shape=1, follow=shapes.same),
    "Expand": Operator(shapes.expand, shape=1),
    "Resize": Operator(pointwise.resize, shape=3),
}
"""Standard operators; all others, and those of other domains, keep everything that they touch whole."""
