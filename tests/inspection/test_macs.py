"""Multiply-accumulates against torch's own flop counter, and against the sums written out by hand."""

from __future__ import annotations

import io
import warnings

import onnx
import onnx.parser
import onnx_ir as ir
import pytest

import onnxcompress


def macs(text: str, **shapes: tuple[int, ...]) -> int:
    model = ir.from_proto(onnx.parser.parse_model(text))
    found = onnxcompress.inspect(model, shapes=shapes)
    assert found.unknown_macs == 0
    return found.macs


HEADER = '<ir_version: 10, opset_import: ["": 21, "com.microsoft": 1]>'


def test_agrees_with_torch_flop_counter() -> None:
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    class Net(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.stem = torch.nn.Conv2d(3, 16, 3, stride=2, padding=1)
            self.depthwise = torch.nn.Conv2d(16, 16, 5, padding=2, groups=16)
            self.grouped = torch.nn.Conv2d(16, 32, (1, 3), groups=4, dilation=2)
            self.up = torch.nn.ConvTranspose2d(32, 8, 3, stride=2)
            self.linear = torch.nn.Linear(8, 10)

        def forward(self, x):  # type: ignore[no-untyped-def]
            x = self.up(torch.relu(self.grouped(self.depthwise(self.stem(x)))))
            features = self.linear(x.mean((2, 3)))
            return features @ features.transpose(0, 1)

    net = Net().eval()
    x = torch.randn(2, 3, 33, 40)
    with FlopCounterMode(display=False) as counter:
        net(x)
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (x,), stream, dynamo=False, opset_version=17, input_names=["x"])
    model = ir.from_proto(onnx.load_from_string(stream.getvalue()))
    assert onnxcompress.inspect(model).macs * 2 == counter.get_total_flops()


def test_matmul_with_broadcast_batches() -> None:
    text = f"{HEADER} g (float[2,1,3,4] a, float[5,4,6] b) => (float[2,5,3,6] y) {{ y = MatMul(a, b) }}"
    assert macs(text) == 2 * 5 * 3 * 6 * 4


def test_vector_products() -> None:
    assert macs(f"{HEADER} g (float[4] a, float[4] b) => (float y) {{ y = MatMul(a, b) }}") == 4


def test_gemm_transposed() -> None:
    text = f"{HEADER} g (float[7,3] a, float[5,7] b) => (float[3,5] y) {{ y = Gemm<transA=1, transB=1>(a, b) }}"
    assert macs(text) == 3 * 5 * 7


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent(op: str, gates: int) -> None:
    steps, batch, width, hidden = 6, 2, 5, 3
    text = (
        f"{HEADER} g (float[{steps},{batch},{width}] x, float[2,{gates * hidden},{width}] w,"
        f" float[2,{gates * hidden},{hidden}] r) => (float[{steps},2,{batch},{hidden}] y)"
        f' {{ y = {op}<hidden_size={hidden}, direction="bidirectional">(x, w, r) }}'
    )
    assert macs(text) == 2 * steps * batch * gates * hidden * (width + hidden)


def test_integer_forms_cost_what_the_float_ones_do() -> None:
    conv = f"{HEADER} g (uint8[1,4,8,8] x, int8[6,2,3,3] w) => (int32[1,6,6,6] y) {{ y = ConvInteger<group=2>(x, w) }}"
    assert macs(conv) == 6 * 6 * 6 * 2 * 9
    matmul = (
        f"{HEADER} g (float[3,8] x, int8[8,5] w, float[5] s) => (float[3,5] y)"
        " { y = com.microsoft.DynamicQuantizeMatMul(x, w, s) }"
    )
    assert macs(matmul) == 3 * 8 * 5
    blocks = (
        f"{HEADER} g (float[3,64] x, uint8[5,2,16] w, float[10] s) => (float[3,5] y)"
        " { y = com.microsoft.MatMulNBits<K=64, N=5, bits=4, block_size=32>(x, w, s) }"
    )
    assert macs(blocks) == 3 * 64 * 5


def test_einsum_of_two() -> None:
    text = (
        f"{HEADER} g (float[2,3,4] a, float[2,4,5] b) => (float[2,3,5] y)"
        ' { y = Einsum<equation="bij,bjk->bik">(a, b) }'
    )
    assert macs(text) == 2 * 3 * 4 * 5


def test_multi_head_attention() -> None:
    text = (
        f"{HEADER} g (float[2,7,16] q, float[2,9,16] k, float[2,9,16] v) => (float[2,7,16] y)"
        " { y = com.microsoft.MultiHeadAttention<num_heads=4>(q, k, v) }"
    )
    assert macs(text) == 2 * 4 * (7 * 9 * 4 + 7 * 9 * 4)


def test_elementwise_and_constant_nodes_cost_nothing() -> None:
    text = (
        f"{HEADER} g (float[3,4] x) => (float[3,4] y)"
        " <float[2,2] a = {1,2,3,4}, float[2,2] b = {1,2,3,4}> { c = MatMul(a, b) d = Relu(x) y = Sigmoid(d) }"
    )
    assert macs(text) == 0


def test_operator_of_an_unknown_domain_is_unknown() -> None:
    text = '<ir_version: 10, opset_import: ["": 21, "mine": 1]> g (float[3] x) => (float[3] y) { y = mine.Op(x) }'
    found = onnxcompress.inspect(ir.from_proto(onnx.parser.parse_model(text)))
    assert found.unknown_macs == 1
    assert "Op" in found.notes[-1]
