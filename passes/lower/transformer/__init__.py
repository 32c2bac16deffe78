"""Transformers: from QDQ graphs to the operators of this project; rows of uint8 between them.

Nothing is assumed of head count, width or the exporter: BERT-like (normalization behind the sum), ViT-like and other
pre-norm graphs are lowered by the same passes.
"""

from onnxcompress.passes.lower.transformer.attention import LowerAttention, attention_tensors
from onnxcompress.passes.lower.transformer.embedding import LowerEmbedding
from onnxcompress.passes.lower.transformer.linear import LowerLinears
from onnxcompress.passes.lower.transformer.normalization import LowerNormalizations
from onnxcompress.passes.lower.transformer.per_token import DynamicRows
from onnxcompress.passes.lower.transformer.pooling import LowerPooling
from onnxcompress.passes.lower.transformer.quantizers import TakeQuantizers
from onnxcompress.passes.lower.transformer.transformers import LowerTransformers

__all__ = [
    "DynamicRows",
    "LowerAttention",
    "LowerEmbedding",
    "LowerLinears",
    "LowerNormalizations",
    "LowerPooling",
    "LowerTransformers",
    "TakeQuantizers",
    "attention_tensors",
]
