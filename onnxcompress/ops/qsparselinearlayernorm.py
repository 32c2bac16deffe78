"""QSparseLinearLayerNorm: QLinearLayerNorm with block-sparse weights."""

from __future__ import annotations

from onnxcompress.ops.qlinearlayernorm import QLINEARLAYERNORM
from onnxcompress.ops.qsparselinear import sparse_version

QSPARSELINEARLAYERNORM = sparse_version(
    "QSparseLinearLayerNorm",
    QLINEARLAYERNORM,
    "QLinearLayerNorm with the int8 weights given by their blocks that are not all zeros (see QSparseLinear).",
)
