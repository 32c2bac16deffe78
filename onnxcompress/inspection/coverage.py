"""Which compute nodes run quantized in ONNX Runtime on the CPU, and why the others do not.

What ONNX Runtime does with quantize-dequantize pairs was seen by optimizing small graphs with version 1.31;
tests repeat it with the version installed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxcompress.inspection.facts import Facts, Visit, type_name
from onnxcompress.inspection.native import is_native, native_quantization
from onnxcompress.inspection.results import Coverage, Quantization

INTEGER_OPS: Mapping[str, tuple[int, int]] = {
    "ConvInteger": (0, 1),
    "MatMulInteger": (0, 1),
    "QLinearConv": (0, 3),
    "QLinearMatMul": (0, 3),
    "com.microsoft::QGemm": (0, 3),
    "com.microsoft::MatMulIntegerToFloat": (0, 1),
    "com.microsoft::DynamicQuantizeMatMul": (0, 1),
    "com.microsoft::DynamicQuantizeLSTM": (0, 1),
    "com.microsoft::QAttention": (0, 1),
}
"""Integer operators: indices of the activation and of the weight."""

FUSABLE_OPS = {"Conv", "MatMul", "Gemm"}
"""Float operators that ONNX Runtime turns into integer ones when they stand between Q and DQ."""

FLOAT_OPS = FUSABLE_OPS | {
    "ConvTranspose",
    "DeformConv",
    "LSTM",
    "GRU",
    "RNN",
    "Einsum",
    "Attention",
    *(
        f"com.microsoft::{name}"
        for name in (
            "FusedConv", "FusedMatMul", "TransposeMatMul", "FusedGemm", "Attention", "MultiHeadAttention",
            "GroupQueryAttention",
        )
    ),
}  # fmt: skip

MOVING_OPS = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "MaxPool"}
"""ONNX Runtime moves a DequantizeLinear through these."""

DEQUANTIZE = {"DequantizeLinear", "com.microsoft::DequantizeLinear"}
QUANTIZE = {"QuantizeLinear", "com.microsoft::QuantizeLinear"}
BYTES = {ir.DataType.INT8, ir.DataType.UINT8}


class Consumers:
    """Who reads each value."""

    def __init__(self, visits: Iterable[Visit], outputs: Iterable[Facts]) -> None:
        self.readers: dict[Facts, list[Visit]] = {}
        self.outputs = set(outputs)
        for visit in visits:
            if not visit.container:
                for facts in visit.inputs:
                    if facts is not None:
                        self.readers.setdefault(facts, []).append(visit)

    def only(self, facts: Facts) -> Visit | None:
        """The one node that reads a value, if nothing else does."""
        readers = self.readers.get(facts, [])
        return readers[0] if len(readers) == 1 and facts not in self.outputs else None


def classify(visit: Visit, consumers: Consumers, *, static: bool) -> Quantization | None:
    """How a node runs; None if it is no compute node, or depends on constants only.

    1. An integer operator, of ONNX Runtime or of this project, is quantized; MatMulNBits is weight-only.
    2. A float operator without DequantizeLinear on its weight or second input is float; with one there only,
       it is weight-only.
    3. With a float weight behind a quantized input it is float, unless ONNX Runtime quantizes the weight itself.
    4. Between DequantizeLinear on both, it is quantized if ONNX Runtime has an integer kernel for it, for its
       types, and for what surrounds it (`_hindrance`).

    Args:
        static: the model fixes its shapes, so ONNX Runtime's shape-dependent rewrites apply.
    """
    if all(facts is None or facts.constant for facts in visit.inputs):
        return None
    if is_native(visit):
        return native_quantization(visit)
    if visit.op in INTEGER_OPS:
        activation, weight = (visit.input(index) for index in INTEGER_OPS[visit.op])
        return Quantization("quantized", _type(weight), _integer_activations(visit, activation))
    if visit.op == "com.microsoft::MatMulNBits":
        bits = int(visit.attribute("bits", 4))
        return Quantization("weight-only", f"int{bits}", None, "its activations are float")
    if visit.op == "com.microsoft::MatMulBnb4":
        return Quantization("weight-only", "4-bit float", None, "its activations are float")
    if visit.op not in FLOAT_OPS:
        return None
    return _classify_float(visit, consumers, static)


def summarize(visits: Sequence[Visit], found: Sequence[Quantization | None]) -> Coverage:
    """Counts over the nodes that count, and the share of multiply-accumulates that run in integers."""
    compute = [(v, q) for v, q in zip(visits, found, strict=True) if q is not None and v.counted]
    states = Counter(q.state for _, q in compute)
    total = sum(visit.macs or 0 for visit, _ in compute)
    quantized = sum(visit.macs or 0 for visit, q in compute if q.state == "quantized")
    known = total and all(visit.macs is not None for visit, _ in compute)
    reasons = Counter(q.reason for _, q in compute if q.reason)
    return Coverage(
        len(compute),
        states["quantized"],
        states["weight-only"],
        states["float"],
        quantized / total if known else None,
        dict(reasons.most_common()),
    )


def _classify_float(visit: Visit, consumers: Consumers, static: bool) -> Quantization:
    activation, weight = visit.input(0), visit.input(1)
    if activation is not None and activation.constant and not (weight is not None and weight.constant):
        activation, weight = weight, activation
    of_activation, of_weight = _dequantizer(activation), _dequantizer(weight)
    types = _quantized_type(of_weight), _quantized_type(of_activation)
    constant = weight is not None and weight.constant
    if of_activation is None and of_weight is None:
        reason = "no DequantizeLinear before it" if constant else "its weight is not constant"
        return Quantization("float", reason=f"inside a subgraph or function, {reason}" if visit.scope else reason)
    if of_weight is None and constant and _is_quantized_on_load(visit, of_activation, consumers):
        return Quantization("quantized", "float, int8 on load", _activations(of_activation))
    if of_weight is None:
        reason = "its input is quantized, its weight is float"
        if not constant:
            reason = "one of its two inputs has no DequantizeLinear"
        return Quantization("float", None, types[1], reason)
    if of_activation is None:
        reason = "its activation input has no DequantizeLinear"
        return Quantization("weight-only" if constant else "float", types[0], None, reason)
    return _between_pairs(visit, of_activation, of_weight, consumers, static)


def _between_pairs(
    visit: Visit, of_activation: Visit, of_weight: Visit, consumers: Consumers, static: bool
) -> Quantization:
    weights, activations = _quantized_type(of_weight), _activations(of_activation)
    reason = _hindrance(visit, of_activation, of_weight, consumers, static)
    return Quantization("float" if reason else "quantized", weights, activations, reason)


def _is_quantized_on_load(visit: Visit, of_activation: Visit | None, consumers: Consumers) -> bool:
    """Whether ONNX Runtime quantizes the float weight itself: of a Conv or Gemm with an 8-bit input and output."""
    facts = None if of_activation is None else of_activation.input(0)
    if visit.op not in ("Conv", "Gemm") or facts is None or facts.dtype not in BYTES:
        return False
    return _is_quantized(visit.outputs[0], consumers)


def _activations(dequantizer: Visit | None) -> str | None:
    if dequantizer is None:
        return None
    scale = dequantizer.input(1)
    return f"{_quantized_type(dequantizer)} {'static' if scale is not None and scale.constant else 'dynamic'}"


def _hindrance(visit: Visit, of_activation: Visit, of_weight: Visit, consumers: Consumers, static: bool) -> str:
    """Why ONNX Runtime runs a node in float although its inputs are dequantized; empty if it does not."""
    if visit.op not in FUSABLE_OPS:
        return f"ONNX Runtime has no integer {visit.node.op_type}"
    for name, dequantizer in (("activations", of_activation), ("weight", of_weight)):
        facts = dequantizer.input(0)
        if facts is None or facts.dtype not in BYTES:
            return f"its {name} are {_type(facts)}: no integer kernel" if name == "activations" else (
                f"its weight is {_type(facts)}, its activations 8-bit: no integer kernel"
            )  # fmt: skip
    output = visit.outputs[0]
    follower = consumers.only(output)
    quantized = _is_quantized(output, consumers)
    if visit.op == "Conv" and not quantized:
        return "its output has no QuantizeLinear (directly, or after a Relu or Clip that it makes redundant)"
    bias = visit.input(2) if visit.op == "Gemm" else None
    if bias is not None and not quantized and _dequantizer(bias) is None:
        return "its bias is float and its output has no QuantizeLinear"
    if visit.op == "MatMul" and follower is not None and follower.op == "Add" and (static or _rank(output) == 2):
        added = [facts for facts in follower.inputs if facts is not output and facts is not None]
        if added and added[0].constant and _rank(added[0]) == 1 and not _is_quantized(follower.outputs[0], consumers):
            return "ONNX Runtime makes one float Gemm of it and the Add after it"
    return ""


def _is_quantized(facts: Facts, consumers: Consumers) -> bool:
    """Whether a value goes into a QuantizeLinear only, itself or after a redundant Relu or Clip."""
    reader = consumers.only(facts)
    if reader is None:
        return False
    if reader.op in QUANTIZE:
        return True
    if reader.op not in ("Relu", "Clip"):
        return False
    quantizer = consumers.only(reader.outputs[0])
    return quantizer is not None and quantizer.op in QUANTIZE and _is_redundant(reader, quantizer)


def _is_redundant(activation: Visit, quantizer: Visit) -> bool:
    """Whether saturation in the quantizer already does what a Relu or Clip before it does."""
    scale, zero_point = quantizer.input(1), quantizer.input(2)
    if scale is None or scale.data is None or scale.data.size != 1:
        return False
    dtype = quantizer.outputs[0].dtype
    if dtype not in BYTES:
        return False
    limits = np.iinfo(dtype.numpy())
    zero = 0
    if zero_point is not None:
        if zero_point.data is None:
            return False
        zero = int(zero_point.data.reshape(-1)[0])
    lowest, highest = ((limit - zero) * float(scale.data.reshape(-1)[0]) for limit in (limits.min, limits.max))
    if activation.op == "Relu":
        return lowest >= 0
    low = _bound(activation, 1, "min", -np.inf)
    high = _bound(activation, 2, "max", np.inf)
    return low is not None and high is not None and low <= lowest and highest <= high + 1e-6 * abs(high)


def _bound(clip: Visit, index: int, name: str, default: float) -> float | None:
    facts = clip.input(index)
    if facts is None:
        return float(clip.attribute(name, default))
    return None if facts.data is None else float(facts.data.reshape(-1)[0])


def _dequantizer(facts: Facts | None) -> Visit | None:
    """The DequantizeLinear that a value comes from, through operators that only move values."""
    while facts is not None and facts.source is not None:
        if facts.source.op in DEQUANTIZE:
            return facts.source
        if facts.source.op not in MOVING_OPS:
            return None
        facts = facts.source.input(0)
    return None


def _quantized_type(dequantizer: Visit | None) -> str | None:
    return None if dequantizer is None else _type(dequantizer.input(0))


def _type(facts: Facts | None) -> str | None:
    return None if facts is None else type_name(facts.dtype)


def _rank(facts: Facts) -> int | None:
    return None if facts.shape is None else len(facts.shape)


def _integer_activations(visit: Visit, activation: Facts | None) -> str:
    op = visit.node.op_type
    if op in ("DynamicQuantizeMatMul", "DynamicQuantizeLSTM"):
        return "uint8 dynamic"
    source = activation.source if activation is not None else None
    dynamic = source is not None and source.op == "DynamicQuantizeLinear"
    return f"{_type(activation) or 'uint8'} {'dynamic' if dynamic else 'static'}"
