"""Models that are quantized already are told from those that are not."""

from __future__ import annotations

import onnx_ir as ir

from onnxcompress.passes.quantize.detect import quantized_operators
from onnxcompress.passes.quantize.dynamic import QuantizeDynamic
from tests.models import small_cnn


def test_a_float_model_has_none() -> None:
    assert not quantized_operators(small_cnn())


def test_operators_are_counted() -> None:
    model = small_cnn()
    QuantizeDynamic()(model)
    assert quantized_operators(model) == {"DynamicQuantizeLinear": 1, "MatMulInteger": 1}


def test_operators_of_our_own_count_and_their_bodies_do_not() -> None:
    text = """<ir_version: 10, opset_import: ["": 21, "onnxcompress": 1]>
    g (uint8[4] x) => (uint8[4] y) <uint8[256] table = {0}> { y = onnxcompress.QTable (x, table) }
    <domain: "onnxcompress", opset_import: ["": 21]>
    QTable (x, table) => (y) {
        s = Constant <value_float = 0.5> ()
        q = QuantizeLinear (s, s)
        y = Gather (table, x)
    }"""
    assert quantized_operators(ir.from_onnx_text(text)) == {"QTable": 1}


def test_operators_of_foreign_domains_say_nothing() -> None:
    text = """<ir_version: 10, opset_import: ["": 21, "mine": 1]>
    g (float[4] x) => (float[4] y) { y = mine.QLinearThing (x) }"""
    assert not quantized_operators(ir.from_onnx_text(text))


def test_subgraphs_and_functions_are_looked_into() -> None:
    text = """<ir_version: 10, opset_import: ["": 21, "own": 1]>
    g (bool c, float[2] x) => (float[2] y) <float s = {0.1}, uint8 z = {0}> {
        t = own.Round (x)
        y = If (c) <
            then_branch = a () => (float[2] p) { q = QuantizeLinear (t, s, z) p = DequantizeLinear (q, s, z) },
            else_branch = b () => (float[2] r) { r = Identity (t) }
        >
    }
    <domain: "own", opset_import: ["": 21]>
    Round (v) => (w) {
        o = Constant <value_float = 0.5> ()
        q = QuantizeLinear (v, o)
        w = DequantizeLinear (q, o)
    }"""
    assert quantized_operators(ir.from_onnx_text(text)) == {"QuantizeLinear": 2, "DequantizeLinear": 2}
