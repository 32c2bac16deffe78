"""Q/DQ insertion: numbers against two runtimes, and every case of its docstring."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxcompress.passes.quantize import InsertQDQ, Scheme, plan_quantization
from tests.passes.quantize.models import (
    Array,
    Feed,
    build,
    decision,
    execute,
    min_max,
    node_named,
    normal,
    ops,
    reference,
    relative,
)

IMAGE = {"x": normal(2, 4, 8, 8, seed=1)}
ROWS = {"x": normal(6, 8, seed=2)}
# In the bodies below "Same" stands for a convolution that keeps the size.
WEIGHTS = {
    "w": normal(4, 4, 3, 3, seed=3, scale=0.3),
    "v": normal(6, 4, 1, 1, seed=4, scale=0.5),
    "d": normal(4, 1, 3, 3, seed=5, scale=0.5),
    "b": normal(4, seed=6),
    "m": normal(8, 8, seed=7, scale=0.3),
    "n": normal(8, 8, seed=8, scale=0.3),
    "c": normal(8, seed=9),
    "zero": np.array(0, np.float32),
    "six": np.array(6, np.float32),
    "one": np.array([1], np.float32),
    "shape": np.array([2, -1]),
}


def model_of(body: str, signature: str) -> ir.Model:
    body = body.replace("Same (", "Conv <pads = [1, 1, 1, 1]> (")
    words = body.replace("(", " ").replace(")", " ").replace(",", " ").split()
    return build(f"g {signature} {{ {body} }}", {n: a for n, a in WEIGHTS.items() if n in words})


def quantized(model: ir.Model, feed: Feed, scheme: Scheme | None = None) -> ir.Model:
    """A quantized copy, ranges from the feed itself; it must pass onnx's full check, inferred shapes included."""
    scheme = scheme or Scheme()
    copy = model.clone()
    assert InsertQDQ(min_max(model, scheme, feed), scheme)(copy).modified
    onnx.checker.check_model(ir.to_proto(copy), full_check=True)
    return copy


CONV = "(float[2, 4, 8, 8] x) => (float[P, Q, R, S] y)"
TWO = "(float[2, 4, 8, 8] x) => (float[P, Q, R, S] y, float[E, F, G, H] z)"
MLP = "(float[M, 8] x) => (float[P, Q] y)"

GRAPHS = [
    ("conv", CONV, "[k] y = Same (x, w, b)", IMAGE),
    ("conv relu", CONV, "a = Same (x, w, b) y = Relu (a)", IMAGE),
    ("conv relu6 conv", CONV, "a = Conv (x, w, b) h = Clip (a, zero, six) y = Conv (h, v)", IMAGE),
    (
        "depthwise",
        CONV,
        "a = Conv <group = 4, pads = [1, 1, 1, 1]> (x, d) h = Relu (a) y = Conv (h, v)",
        IMAGE,
    ),
    (
        "residual",
        CONV,
        "a = Same (x, w) h = Relu (a) i = Same (h, w, b) r = Add (i, h) y = Conv (r, v)",
        IMAGE,
    ),
    (
        "concat",
        CONV,
        "a = Conv (x, v) i = Conv (x, v) r = Concat <axis = 2> (a, i) s = Slice (r, starts, ends) y = Neg (s)",
        IMAGE,
    ),
    (
        "gate",
        CONV,
        "a = Same (x, w) p = GlobalAveragePool (a) q = Conv (p, w1) s = HardSigmoid (q) r = Mul (a, s) y = Conv (r, v)",
        IMAGE,
    ),
    (
        "pools",
        CONV,
        "a = Same (x, w) p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (a) y = Conv (p, v)",
        IMAGE,
    ),
    (
        "average",
        CONV,
        "a = Same (x, w) p = AveragePool <kernel_shape = [2, 2]> (a) y = Conv (p, v)",
        IMAGE,
    ),
    ("hard swish", CONV, "a = Same (x, w, b) h = HardSwish (a) y = Conv (h, v)", IMAGE),
    (
        "silu",
        CONV,
        "a = Same (x, w, b) s = Sigmoid (a) h = Mul (a, s) y = Conv (h, v)",
        IMAGE,
    ),
    ("mlp", MLP, "a = MatMul (x, m) s = Add (a, c) h = Relu (s) y = MatMul (h, n)", ROWS),
    ("gemm", MLP, "a = Gemm (x, m, c) h = Relu (a) y = Gemm <transB = 1> (h, n, c)", ROWS),
    ("gemm with one bias", MLP, "[k] y = Gemm (x, m, one)", ROWS),
    ("reshape", MLP, "a = MatMul (x, m) r = Reshape (a, shape) t = Transpose (r) y = Neg (t)", ROWS),
]
WEIGHTS |= {"w1": normal(4, 4, 1, 1, seed=10), "starts": np.array([0, 0, 1]), "ends": np.array([9, 9, 7])}


@pytest.mark.parametrize(("signature", "body", "feed"), [g[1:] for g in GRAPHS], ids=[g[0] for g in GRAPHS])
@pytest.mark.parametrize("activations", ["u8", "s8", "u16"])
def test_close_to_float_and_the_same_in_two_runtimes(signature: str, body: str, feed: Feed, activations: Any) -> None:
    model = model_of(body, signature)
    expected = execute(model, feed)[0]
    scheme = Scheme(activations=activations)
    copy = quantized(model, feed, scheme)
    plain = execute(copy, feed)[0]
    # 8-bit weights alone leave about 0.5 %; 8-bit activations 1 % a layer.
    assert relative(plain, expected) < {"u8": 0.04, "s8": 0.06, "u16": 0.015}[activations]
    # Ties that round apart change a value by one step of the output, and few of them do.
    step = float(np.ptp(expected)) / (255 if activations != "u16" else 65535)
    other = reference(copy, feed)[0]
    assert np.abs(other - plain).max() <= 3 * step + 1e-5
    assert np.mean(np.abs(other - plain) > 1e-4 * np.abs(expected).max()) < 0.05
    assert relative(execute(copy, feed, optimize=True)[0], expected) < 0.06


@pytest.mark.parametrize("graph", [g for g in GRAPHS if g[0] not in ("reshape",)], ids=lambda g: g[0])
def test_second_run_changes_nothing(graph: tuple[str, str, str, Feed]) -> None:
    _, signature, body, feed = graph
    copy = quantized(model_of(body, signature), feed)
    before = ir.to_proto(copy).SerializeToString(deterministic=True)
    plan = plan_quantization(copy, Scheme())
    assert not plan.compute and not plan.tensors
    assert not InsertQDQ({}, Scheme())(copy).modified
    assert ir.to_proto(copy).SerializeToString(deterministic=True) == before


def test_missing_range_names_the_tensor() -> None:
    model = model_of("y = MatMul (x, m)", MLP)
    with pytest.raises(Exception) as error:
        InsertQDQ({}, Scheme())(model)
    assert isinstance(error.value, KeyError) and error.value.args[0] == "x"


def test_shared_weight_is_quantized_for_each_reader_apart() -> None:
    body = "a = Same (x, w, b) h = Relu (a) y = Conv (h, w, b)"
    copy = quantized(model_of(body, CONV), IMAGE)
    weights = [copy.graph.initializers[n] for n in copy.graph.initializers if n.endswith("/quantized")]
    assert sorted(str(v.dtype) for v in weights) == ["INT32", "INT32", "INT8", "INT8"]
    assert "w" not in copy.graph.initializers and "b" not in copy.graph.initializers


def test_weight_that_a_float_node_reads_too_stays_beside() -> None:
    signature = "(float[2, 4, 8, 8] x) => (float[P, Q, R, S] y, float[E, F, G, H] z)"
    copy = quantized(model_of("y = Conv (x, v) z = Neg (v)", signature), IMAGE)
    np.testing.assert_array_equal(execute(copy, IMAGE)[1], -WEIGHTS["v"])


def test_bias_beyond_int32_widens_the_weight_scale() -> None:
    weight, bias = WEIGHTS["v"][:4] * np.float32(1e-7), np.array([1e3, -1e3, 0.5, 0], np.float32)
    model = build(
        "g (float[2, 4, 8, 8] x) => (float[P, Q, R, S] y) { [k] y = Conv (x, w, b) }",
        {"w": weight, "b": bias},
    )
    expected = execute(model, IMAGE)[0]
    copy = quantized(model, IMAGE)
    stored = node_named(copy, "k").inputs[2].producer().inputs[0].const_value.numpy()  # type: ignore[union-attr]
    assert stored.dtype == np.int32 and np.abs(stored.astype(np.int64)).max() <= 2**30 + 128
    assert relative(execute(copy, IMAGE)[0], expected) < 0.005


def test_a_bias_of_one_row_is_quantized_as_a_vector() -> None:
    weight, feed = normal(8, 4, seed=3), {"x": normal(5, 8, seed=4)}
    text = "g (float[5, 8] x) => (float[5, 4] y) { [k] y = Gemm (x, w, b) }"
    row, vector = (
        execute(quantized(build(text, {"w": weight, "b": bias}), feed), feed)[0]
        for bias in (normal(1, 4, seed=5), normal(4, seed=5))
    )
    np.testing.assert_array_equal(row, vector)


def test_zero_range_and_zero_weights() -> None:
    model = build(
        "g (float[2, 4, 8, 8] x) => (float[P, Q, R, S] y) { y = Conv (x, w) }",
        {"w": np.zeros((4, 4, 1, 1), np.float32)},
    )
    copy = quantized(model, {"x": np.zeros((2, 4, 8, 8), np.float32)})
    for optimize in (False, True):
        assert np.all(execute(copy, IMAGE, optimize=optimize)[0] == 0)


def test_quantized_graph_output_keeps_its_name() -> None:
    copy = quantized(model_of("y = Conv (x, v) z = Neg (y)", TWO), IMAGE)
    assert [value.name for value in copy.graph.outputs] == ["y", "z"]
    assert copy.graph.outputs[0].producer().op_type == "DequantizeLinear"  # type: ignore[union-attr]
    y, z = execute(copy, IMAGE)
    np.testing.assert_array_equal(y, -z)


def test_only_quantized_readers_of_an_input_read_it_dequantized() -> None:
    copy = quantized(model_of("y = Conv (x, v) z = Neg (x)", TWO), IMAGE)
    np.testing.assert_array_equal(execute(copy, IMAGE)[1], -IMAGE["x"])


def test_everybody_reads_the_output_of_a_convolution_dequantized() -> None:
    copy = quantized(model_of("a = Conv (x, v) y = Neg (a) z = Exp (a)", TWO), IMAGE)
    for op in ("Neg", "Exp"):
        node = next(node for node in copy.graph if node.op_type == op)
        assert node.inputs[0].producer().op_type == "DequantizeLinear"  # type: ignore[union-attr]


def scales_around(model: ir.Model, op: str) -> set[tuple[float, int]]:
    """Scale and zero point of the pairs at the inputs and outputs of the only `op`."""
    (node,) = (node for node in model.graph if node.op_type == op)
    pairs = [value.producer() for value in node.inputs if value is not None and value.producer() is not None]
    pairs += [user for out in node.outputs for user in out.consumers()]
    found = set()
    for pair in pairs:
        assert pair is not None and pair.op_type in ("QuantizeLinear", "DequantizeLinear"), pair
        scale, zero = (pair.inputs[i].const_value.numpy() for i in (1, 2))  # type: ignore[union-attr]
        found.add((float(scale), int(zero)))
    return found


@pytest.mark.parametrize(
    ("op", "body"),
    [
        ("Concat", "a = Conv (x, v) e = Conv (x, v2) r = Concat <axis = 2> (a, e) y = Conv (r, v3)"),
        ("MaxPool", "a = Conv (x, v) r = MaxPool <kernel_shape = [2, 2]> (a) y = Conv (r, v3)"),
        ("Transpose", "a = Conv (x, v) r = Transpose <perm = [0, 1, 3, 2]> (a) y = Conv (r, v3)"),
    ],
)
def test_data_movement_shares_one_scale(op: str, body: str) -> None:
    weights = {"v": WEIGHTS["v"], "v2": WEIGHTS["v"] * 10, "v3": normal(4, 6, 1, 1)}
    words = body.replace("(", " ").replace(")", " ").replace(",", " ").split()
    model = build(f"g {CONV} {{ {body} }}", {name: a for name, a in weights.items() if name in words})
    assert len(scales_around(quantized(model, IMAGE), op)) == 1


def test_relu_output_starts_at_zero() -> None:
    copy = quantized(model_of("a = Conv (x, v) h = Relu (a) y = Neg (h)", CONV), IMAGE)
    pair = next(node for node in copy.graph if node.op_type == "Relu").outputs[0].consumers()[0]
    assert pair.op_type == "QuantizeLinear"
    assert pair.inputs[2].const_value.numpy() == 0  # type: ignore[union-attr]


@pytest.mark.parametrize("activations", ["u8", "u16", "s8"])
def test_hard_swish_over_its_whole_range(activations: Any) -> None:
    body = "a = Conv (x, eye) h = HardSwish (a) y = Conv (h, eye)"
    eye = np.eye(4, dtype=np.float32).reshape(4, 4, 1, 1)
    model = build(f"g {CONV} {{ {body} }}", {"eye": eye})
    feed = {"x": np.linspace(-9, 9, 2 * 4 * 64, dtype=np.float32).reshape(2, 4, 8, 8)}
    scheme = Scheme(activations=activations)
    expected, copy = execute(model, feed)[0], quantized(model, feed, scheme)
    assert ("HardSwish" in ops(copy)) == (activations == "s8"), "signed types have no saturation at 0"
    # Three pairs (input, gate, output), each off by at most half a step of 12/255, the gate's times x / 6.
    steps = 1 if activations != "u16" else 1 / 200
    for optimize in (False, True):
        assert np.abs(execute(copy, feed, optimize=optimize)[0] - expected).max() < 0.12 * steps + 0.02


def test_hard_swish_range_is_cut_where_it_saturates() -> None:
    body = "a = Conv (x, v) h = HardSwish (a) y = Conv (h, v3)"
    model = build(f"g {CONV} {{ {body} }}", {"v": WEIGHTS["v"] * 8, "v3": normal(4, 6, 1, 1)})
    ranges = min_max(model, Scheme(), IMAGE)
    assert ranges["a"][0] < -6
    copy = quantized(model, IMAGE)
    scale, zero = (node_named(copy, "a/quantize").inputs[i].const_value.numpy() for i in (1, 2))  # type: ignore[union-attr]
    assert -int(zero) * float(scale) == pytest.approx(-3.0, abs=0.06)


def test_wide_nodes_take_16_bits() -> None:
    body = "a = MatMul (x, m) h = Tanh (a) [second] y = MatMul (h, n)"
    copy = quantized(model_of(body, MLP), ROWS, Scheme(wide=frozenset({"second"})))
    types = {node.name: node.outputs[0].dtype for node in copy.graph if node.op_type == "QuantizeLinear"}
    assert types == {"x/quantize": ir.DataType.UINT8, "h/quantize": ir.DataType.UINT16}
    execute(copy, ROWS, optimize=True)


def test_reduced_range() -> None:
    copy = quantized(model_of("y = MatMul (x, m)", MLP), ROWS, Scheme(reduced_range=True))
    (weight,) = (
        v for v in copy.graph.initializers.values() if v.dtype == ir.DataType.INT8 and v.shape != ir.Shape([8])
    )
    assert weight.const_value is not None
    assert np.abs(weight.const_value.numpy().astype(int)).max() == 63


def test_excluded_node_stays_float() -> None:
    body = "[one_] a = MatMul (x, m) h = Tanh (a) [two_] y = MatMul (h, n)"
    scheme = Scheme(exclude=frozenset({"two_"}))
    model = model_of(body, MLP)
    copy = quantized(model, ROWS, scheme)
    assert node_named(copy, "two_").inputs[1] is copy.graph.initializers["n"]
    assert decision(plan_quantization(model, scheme).decisions, "two_") == (False, "excluded")


def test_nothing_to_quantize_changes_nothing() -> None:
    model = model_of("y = Tanh (x)", MLP)
    assert not InsertQDQ({}, Scheme())(model).modified


def test_elementwise_can_be_left_out() -> None:
    body = "a = Same (x, w) i = Same (x, w, b) r = Add (a, i) y = Conv (r, v)"
    plans = [plan_quantization(model_of(body, CONV), Scheme(elementwise=on)) for on in (True, False)]
    assert [[node.op_type for node in plan.followers] for plan in plans] == [["Add"], []]


def test_matmul_output_gets_no_pair() -> None:
    copy = quantized(model_of("a = MatMul (x, m) h = Tanh (a) y = MatMul (h, n)", MLP), ROWS)
    users = next(node for node in copy.graph if node.op_type == "Tanh").inputs[0]
    assert users is not None and users.producer().op_type == "MatMul"  # type: ignore[union-attr]


def test_plan_is_reused() -> None:
    model = model_of("a = MatMul (x, m) h = Tanh (a) y = MatMul (h, n)", MLP)
    plan, ranges = plan_quantization(model, Scheme()), min_max(model, Scheme(), ROWS)
    InsertQDQ(ranges, Scheme(), plan)(model)
    assert ops(model).count("QuantizeLinear") == 2


def test_group_ranges_are_the_union() -> None:
    from onnxcompress.passes.quantize.plan import group_ranges

    body = "a = Conv (x, v) e = Conv (x, v) r = Concat <axis = 2> (a, e) y = Conv (r, v3)"
    model = build(f"g {CONV} {{ {body} }}", {"v": WEIGHTS["v"], "v3": normal(4, 6, 1, 1)})
    plan = plan_quantization(model, Scheme())
    given = {name: (-1.0, 1.0) for name in plan.observed} | {"a": (-2.0, 1.0), "e": (-1.0, 5.0)}
    ranges = group_ranges(plan, given)
    assert ranges["a"] == ranges["e"] == ranges["r"] == (-2.0, 5.0)
    assert ranges["x"] == (-1.0, 1.0)


def test_saturating_readers_cut_and_others_do_not() -> None:
    from onnxcompress.passes.quantize.plan import group_ranges

    for tail, low in (("z = Neg (y)", -3.0), ("z = Neg (a)", -50.0)):
        body = f"a = Conv (x, v) h = HardSwish (a) y = Conv (h, v3) {tail}"
        model = build(f"g {TWO} {{ {body} }}", {"v": WEIGHTS["v"], "v3": normal(4, 6, 1, 1)})
        plan = plan_quantization(model, Scheme())
        ranges = group_ranges(plan, dict.fromkeys(plan.observed, (-50.0, 20.0)))
        assert ranges["a"] == (low, 20.0)


def test_followers_whose_output_nobody_quantized_reads_are_dropped() -> None:
    plan = plan_quantization(model_of("a = Conv (x, v) t = Transpose (a) y = Neg (t)", CONV), Scheme())
    assert plan.followers == []
    assert "t" not in plan.tensors


def test_node_with_a_graph_output_stays_float() -> None:
    body = "a = Same (x, w) i = Same (x, w, b) y = Add (a, i)"
    assert plan_quantization(model_of(body, CONV), Scheme()).followers == []


def test_split_keeps_one_scale() -> None:
    body = """a = Conv (x, v)
        s, t = Split <axis = 1, num_outputs = 2> (a)
        k = Conv (s, v5)
        l = Conv (t, v5)
        y = Add (k, l)
        z = Neg (y)"""
    model = build(f"g {TWO} {{ {body} }}", {"v": WEIGHTS["v"], "v5": normal(4, 3, 1, 1)})
    copy = quantized(model, IMAGE)
    assert len(scales_around(copy, "Split")) == 1
    assert relative(execute(copy, IMAGE)[0], execute(model, IMAGE)[0]) < 0.04


def test_infinite_bounds_do_not_reach_scales() -> None:
    copy = quantized(model_of("a = Conv (x, v) h = Relu (a) y = Neg (h)", CONV), IMAGE)
    for value in copy.graph.initializers.values():
        if value.dtype == ir.DataType.FLOAT and value.const_value is not None:
            array: Array = value.const_value.numpy()
            assert np.all(np.isfinite(array)) and math.isfinite(float(array.max(initial=0)))
