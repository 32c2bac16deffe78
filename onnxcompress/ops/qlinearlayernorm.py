"""QLinearLayerNorm: a linear layer, the residual sum and the layer normalization after it."""

from __future__ import annotations

from onnxcompress.ops.op import Array, Attributes, Op, Port, Variant
from onnxcompress.ops.qlayernorm import NORM_ATTRIBUTES, NORM_INPUTS, NORM_OUTPUTS, norm_body, norm_reference, sum_body
from onnxcompress.ops.qlinear import LINEAR_INPUTS, linear_body, linear_reference


def _reference(attributes: Attributes, *inputs: Array | None) -> tuple[Array | None, ...]:
    x, x_scale, x_zero, w, w_scale, bias, residual, gamma, beta, q_scale, q_zero = inputs
    assert x is not None and x_scale is not None and x_zero is not None and w is not None and w_scale is not None
    assert residual is not None and gamma is not None
    total = linear_reference(x, x_scale, x_zero, w, w_scale, bias) + residual
    return norm_reference(attributes, total, gamma, beta, q_scale, q_zero)


def _body(variant: Variant) -> str:
    total = "sum" if "sum" in variant.outputs else "total"
    return f"{linear_body(variant)}\n{sum_body(total, 'linear', 'residual')}\n{norm_body(variant, total)}"


QLINEARLAYERNORM = Op(
    "QLinearLayerNorm",
    inputs=(*LINEAR_INPUTS, Port("residual", ("float",)), *NORM_INPUTS),
    outputs=NORM_OUTPUTS,
    attributes=NORM_ATTRIBUTES,
    reference=_reference,
    body=_body,
    doc="""sum = x * w^T + bias + residual, and y, q, row_scale and row_zero_point of it as QLayerNorm has them.

        x, x_scale, x_zero_point, w, w_scale and bias are those of QLinear; residual: float [..., N].""",
)
