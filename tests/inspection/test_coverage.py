"""What `inspect` calls quantized, held against what ONNX Runtime makes of the same graph."""

from __future__ import annotations

import math
import re
from pathlib import Path

import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime as ort
import pytest

import onnxcompress
from onnxcompress.inspection.results import Quantization

WEIGHT = {
    "Conv": "int8[2,2,1,1] w = {1,2,3,4}",
    "ConvTranspose": "int8[2,2,1,1] w = {1,2,3,4}",
    "MatMul": "int8[2,2] w = {1,2,3,4}",
    "Gemm": "int8[2,2] w = {1,2,3,4}",
}
SHAPE = {"Conv": "1,2,4,4", "ConvTranspose": "1,2,4,4", "MatMul": "3,2", "Gemm": "3,2"}
FLOAT_FORMS = {"Conv", "FusedConv", "ConvTranspose", "MatMul", "Gemm", "FusedMatMul", "LSTM"}

Q_IN = "qx = QuantizeLinear(x, s, z) dx = DequantizeLinear(qx, s, z) "
DQ_W = "dw = DequantizeLinear(w, ws, wz) "
Q_OUT = "qy = QuantizeLinear(c, s, z) y = DequantizeLinear(qy, s, z)"


def graph(op: str, body: str, *, more: str = "", zero: str = "uint8 z = {128}", shape: str = "") -> str:
    shape = shape or SHAPE[op]
    constants = f"float s = {{0.1}}, {zero}, float ws = {{0.01}}, int8 wz = {{0}}, {WEIGHT[op]}{more}"
    return (
        f'<ir_version: 10, opset_import: ["": 21]> g (float[{shape}] x) => (float[{shape}] y)'
        f" <{constants}> {{ {body} }}"
    )


CASES = {
    "conv between pairs": graph("Conv", Q_IN + DQ_W + "c = Conv(dx, dw) " + Q_OUT),
    "conv without Q after it": graph("Conv", Q_IN + DQ_W + "y = Conv(dx, dw)"),
    "conv, float bias": graph("Conv", Q_IN + DQ_W + "c = Conv(dx, dw, b) " + Q_OUT, more=", float[2] b = {1,2}"),
    "conv, relu, zero point in the middle": graph("Conv", Q_IN + DQ_W + "a = Conv(dx, dw) c = Relu(a) " + Q_OUT),
    "conv, relu, zero point lowest": graph(
        "Conv", Q_IN + DQ_W + "a = Conv(dx, dw) c = Relu(a) " + Q_OUT, zero="uint8 z = {0}"
    ),
    "conv, clip inside the range": graph(
        "Conv",
        Q_IN + DQ_W + "a = Conv(dx, dw) c = Clip(a, lo, hi) " + Q_OUT,
        zero="uint8 z = {0}",
        more=", float lo = {0}, float hi = {6}",
    ),
    "conv, clip as wide as the range": graph(
        "Conv",
        Q_IN + DQ_W + "a = Conv(dx, dw) c = Clip(a, lo, hi) " + Q_OUT,
        zero="uint8 z = {0}",
        more=", float lo = {0}, float hi = {25.5}",
    ),
    "conv read twice": graph(
        "Conv",
        Q_IN + DQ_W + "c = Conv(dx, dw) qy = QuantizeLinear(c, s, z) d = DequantizeLinear(qy, s, z)"
        " e = Sigmoid(c) y = Mul(d, e)",
    ),
    "conv behind a max pool": graph(
        "Conv", Q_IN + DQ_W + "p = MaxPool<kernel_shape=[1,1]>(dx) c = Conv(p, dw) " + Q_OUT
    ),
    "transposed conv": graph("ConvTranspose", Q_IN + DQ_W + "c = ConvTranspose(dx, dw) " + Q_OUT),
    "matmul between pairs": graph("MatMul", Q_IN + DQ_W + "c = MatMul(dx, dw) " + Q_OUT),
    "matmul without Q after it": graph("MatMul", Q_IN + DQ_W + "y = MatMul(dx, dw)"),
    "matmul, turned weight": graph("MatMul", Q_IN + DQ_W + "t = Transpose(dw) y = MatMul(dx, t)"),
    "matmul, weight kept in float": graph(
        "MatMul",
        Q_IN + "qw = QuantizeLinear(wf, ws, wz) dw = DequantizeLinear(qw, ws, wz) y = MatMul(dx, dw)",
        more=", float[2,2] wf = {1,2,3,4}",
    ),
    "matmul and add": graph("MatMul", Q_IN + DQ_W + "m = MatMul(dx, dw) y = Add(m, b)", more=", float[2] b = {1,2}"),
    "matmul and add of rank 3": graph(
        "MatMul", Q_IN + DQ_W + "m = MatMul(dx, dw) y = Add(m, b)", more=", float[2] b = {1,2}", shape="1,3,2"
    ),
    "matmul and add of open rank 3": graph(
        "MatMul", Q_IN + DQ_W + "m = MatMul(dx, dw) y = Add(m, b)", more=", float[2] b = {1,2}", shape="N,M,2"
    ),
    "matmul, add, Q": graph(
        "MatMul", Q_IN + DQ_W + "m = MatMul(dx, dw) c = Add(m, b) " + Q_OUT, more=", float[2] b = {1,2}"
    ),
    "matmul of two activations": graph(
        "MatMul",
        Q_IN + "t = Transpose(x) qt = QuantizeLinear(t, s, z) dt = DequantizeLinear(qt, s, z) r = MatMul(dx, dt)"
        " c = MatMul(r, x) " + Q_OUT,
    ),
    "dynamic matmul": graph(
        "MatMul",
        "qx, xs, xz = DynamicQuantizeLinear(x) dx = DequantizeLinear(qx, xs, xz) " + DQ_W + "y = MatMul(dx, dw)",
    ),
    "16-bit activations": graph("MatMul", Q_IN + DQ_W + "c = MatMul(dx, dw) " + Q_OUT, zero="uint16 z = {128}"),
    "gemm between pairs": graph("Gemm", Q_IN + DQ_W + "c = Gemm(dx, dw) " + Q_OUT),
    "gemm without Q after it": graph("Gemm", Q_IN + DQ_W + "y = Gemm(dx, dw)"),
    "gemm, float bias": graph("Gemm", Q_IN + DQ_W + "y = Gemm(dx, dw, b)", more=", float[2] b = {1,2}"),
    "gemm, int32 bias": graph(
        "Gemm",
        Q_IN + DQ_W + "db = DequantizeLinear(b, bs) y = Gemm(dx, dw, db)",
        more=", float bs = {0.001}, int32[2] b = {1,2}",
    ),
    "conv, float weight": graph("Conv", Q_IN + "c = Conv(dx, wf) " + Q_OUT, more=", float[2,2,1,1] wf = {1,2,3,4}"),
    "conv, float input": graph("Conv", DQ_W + "c = Conv(x, dw) " + Q_OUT),
    "conv, float weight, no Q after it": graph(
        "Conv", Q_IN + "y = Conv(dx, wf)", more=", float[2,2,1,1] wf = {1,2,3,4}"
    ),
    "gemm, float weight": graph("Gemm", Q_IN + "c = Gemm(dx, wf) " + Q_OUT, more=", float[2,2] wf = {1,2,3,4}"),
    "matmul, float weight": graph("MatMul", Q_IN + "c = MatMul(dx, wf) " + Q_OUT, more=", float[2,2] wf = {1,2,3,4}"),
    "nothing quantized": graph("Conv", "y = Conv(x, wf)", more=", float[2,2,1,1] wf = {1,2,3,4}"),
}


def parse(text: str) -> ir.Model:
    """A model from its text, where `float[3,5] w = {0}` is a whole tensor of zeros."""

    def fill(match: re.Match[str]) -> str:
        size = math.prod(int(dim) for dim in match[2].split(","))
        return f"{match[1]}{{{', '.join(['0'] * size)}}}"

    text = re.sub(r"(\w+\[([\d,]+)\] \w+ = )\{0\}", fill, text)
    return ir.from_proto(onnx.parser.parse_model(text))


def coverage(text: str) -> list[Quantization]:
    found = onnxcompress.inspect(parse(text))
    return [node.quantization for node in found.nodes if node.quantization is not None]


def optimized_ops(text: str, path: Path) -> list[str]:
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 4
    proto = onnx.parser.parse_model(text)
    ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(path).graph.node]


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_onnxruntime(name: str, tmp_path: Path) -> None:
    found = coverage(CASES[name])
    floating = sum(q.state != "quantized" for q in found)
    ops = optimized_ops(CASES[name], tmp_path / "optimized.onnx")
    assert floating == sum(op in FLOAT_FORMS for op in ops), (found, ops)
    assert all(q.reason for q in found if q.state != "quantized")
    assert not any(q.reason for q in found if q.state == "quantized")


@pytest.mark.parametrize(
    ("name", "state", "reason"),
    [
        ("nothing quantized", "float", "no DequantizeLinear before it"),
        ("conv, float input", "weight-only", "its activation input has no DequantizeLinear"),
        ("matmul, float weight", "float", "its input is quantized, its weight is float"),
        ("transposed conv", "float", "no integer ConvTranspose"),
        ("16-bit activations", "float", "activations are uint16"),
        ("gemm, float bias", "float", "its bias is float"),
        ("matmul and add", "float", "one float Gemm"),
    ],
)
def test_reasons(name: str, state: str, reason: str) -> None:
    (found,) = coverage(CASES[name])
    assert found.state == state
    assert reason in found.reason


def test_types_are_told() -> None:
    (static,) = coverage(CASES["conv between pairs"])
    assert (static.weights, static.activations) == ("int8", "uint8 static")
    (dynamic,) = coverage(CASES["dynamic matmul"])
    assert (dynamic.weights, dynamic.activations) == ("int8", "uint8 dynamic")


def test_two_activations() -> None:
    text = '<ir_version: 10, opset_import: ["": 21]> g (float[2] a, float[2] b) => (float y) {y = MatMul(a, b)}'
    (found,) = coverage(text)
    assert found.reason == "its weight is not constant"


def test_four_bit_weights() -> None:
    text = """<ir_version: 10, opset_import: ["": 21, "com.microsoft": 1]>
    g (float[3,32] x) => (float[3,5] y) <uint8[5,1,16] w = {0}, float[5] s = {0}>
    { y = com.microsoft.MatMulNBits<K=32, N=5, bits=4, block_size=32>(x, w, s) }"""
    (found,) = coverage(text)
    assert (found.state, found.weights) == ("weight-only", "int4")


def test_inside_a_subgraph() -> None:
    text = """<ir_version: 10, opset_import: ["": 21]>
    g (float[2,2] x, bool c) => (float[2,2] y) <float[2,2] w = {0}> {
        y = If(c) <then_branch = t () => (float[2,2] a) { a = MatMul(x, w) },
                   else_branch = e () => (float[2,2] b) { b = Identity(x) }>
    }"""
    (found,) = coverage(text)
    assert found.reason == "inside a subgraph or function, no DequantizeLinear before it"


def test_quantized_function_body_is_seen_through_the_call() -> None:
    text = """<ir_version: 10, opset_import: ["": 21, "mine": 1]>
    g (uint8[3,2] x) => (int32[3,4] y) <int8[2,4] w = {0}> { y = mine.Linear(x, w) }
    <domain: "mine", opset_import: ["": 21]> Linear(x, w) => (y) { y = MatMulInteger(x, w) }"""
    (found,) = coverage(text)
    assert (found.state, found.weights) == ("quantized", "int8")


def test_share_of_macs() -> None:
    text = graph(
        "MatMul",
        Q_IN
        + DQ_W
        + "c = MatMul(dx, dw) qc = QuantizeLinear(c, s, z) dc = DequantizeLinear(qc, s, z) y = MatMul(dc, wf)",
        more=", float[2,2] wf = {1,2,3,4}",
    )
    found = onnxcompress.inspect(parse(text)).coverage
    assert (found.compute_nodes, found.quantized, found.floating) == (2, 1, 1)
    assert found.macs_share == 0.5
