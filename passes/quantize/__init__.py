"""Quantization: planning, Q/DQ insertion, dynamic and weight-only forms, and what repairs accuracy."""

from onnxcompress.passes.quantize.bias_correction import CorrectBias, expected_weight_error
from onnxcompress.passes.quantize.equalize import EqualizeChannels
from onnxcompress.passes.quantize.insert_qdq import InsertQDQ
from onnxcompress.passes.quantize.plan import Plan, plan_quantization
from onnxcompress.passes.quantize.roles import Decision
from onnxcompress.passes.quantize.scheme import Scheme
from onnxcompress.passes.quantize.smooth import SmoothActivations
from onnxcompress.passes.quantize.weight_only import QuantizeWeights

__all__ = [
    "CorrectBias", "Decision", "EqualizeChannels", "InsertQDQ", "Plan", "QuantizeWeights", "Scheme",
    "SmoothActivations", "expected_weight_error", "plan_quantization",
]  # fmt: skip
