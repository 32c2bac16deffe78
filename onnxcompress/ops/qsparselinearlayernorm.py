"""QSparseLinearLayerNorm: QLinearLayerNorm with block-sparse weights."""

from __future__ import annotations

from onnxcompress.ops.op import Op
from onnxcompress.ops.qlinearlayernorm import QLINEARLAYERNORM
from onnxcompress.ops.qsparselinear import sparse_body, sparse_inputs, sparse_reference

QSPARSELINEARLAYERNORM = Op(
    "QSparseLinearLayerNorm",
    inputs=sparse_inputs(QLINEARLAYERNORM),
    outputs=QLINEARLAYERNORM.outputs,
    attributes={"in_features": 0, **QLINEARLAYERNORM.attributes},
    reference=sparse_reference(QLINEARLAYERNORM),
    body=sparse_body(QLINEARLAYERNORM),
    doc="""QLinearLayerNorm with the int8 weights given by their blocks that are not all zeros (see QSparseLinear).""",
)
