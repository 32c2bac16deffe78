"""Lowering of convolution networks: what becomes what, the same numbers as the QDQ graph, reasons for what stays."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxcompress.passes.lower.convolution import LowerConvolutions
from onnxcompress.passes.quantize import Scheme
from tests.passes.lower.networks import IMAGE, Result, assert_close, lower, lowered, network, quantized
from tests.passes.quantize.models import normal


def attribute(node: ir.Node, name: str) -> object:
    return node.attributes[name].value if name in node.attributes else None


def replaced(node: ir.Node) -> list[str]:
    return node.metadata_props["onnxcompress.replaces"].split("\n")


@pytest.mark.parametrize(
    ("body", "ops"),
    [
        ("a = Same (x, w, b)\nr = Relu (a)\ny = Conv (r, v)", {"QConv": 2}),
        ("a = Conv <pads = [1, 1, 1, 1], group = 16, strides = [2, 2]> (x, d, b)\ny = Conv (a, v)", {"QConv": 2}),
        ("a = Same (x, w)\nh = HardSwish (a)\no = Add (h, half)\ny = Conv (o, v)", {"QConv": 2}),
        ("a = Same (x, w)\ng = Sigmoid (a)\nm = Mul (a, g)\ny = Conv (m, v)", {"QConv": 2}),
        ("a = Same (x, w)\nq = com.microsoft.QuickGelu <alpha = 1.0> (a)\ny = Conv (q, v)", {"QConv": 2}),
        ("a = Same (x, w)\nc = Clip (a, zero, six)\ny = Conv (c, v)", {"QConv": 2}),
        ("a = Same (x, w)\np = MaxPool <kernel_shape = [3, 3], strides = [2, 2]> (a)\ny = Conv (p, v)", {"QPool": 1}),
        (
            "a = Same (x, w)\np = AveragePool <kernel_shape = [2, 2], pads = [0, 1, 0, 1], count_include_pad = 1> (a)\n"
            "y = Conv (p, v)",
            {"QPool": 1},
        ),
        ("a = Same (x, w)\nr = Relu (a)\np = ReduceMean (r, spatial)\ny = Conv (p, v)", {"QPool": 1}),
        ("a = Conv (x, v)\nc = Conv (x, u)\nm = Mul (a, c)\ny = Same (m, w)", {"QElementwise": 1}),
        ("a = Conv (x, v)\nc = Conv (x, u)\nm = Sub (a, c)\nr = Relu (m)\ny = Same (r, w)", {"QElementwise": 1}),
        ("a = ConvTranspose <strides = [2, 2]> (x, t, b)\nr = Relu (a)\ny = Conv (r, v)", {"QConvTranspose": 1}),
    ],
)
def test_becomes_our_operators_with_the_same_numbers(body: str, ops: dict[str, int]) -> None:
    result = lower(body)
    assert {name: result.ops[name] for name in ops} == ops
    assert not result.others
    assert result.ops["QTable"] == 0
    assert_close(result)


def test_a_chain_of_functions_is_one_table_in_the_convolution_before_it() -> None:
    result = lower("a = Same (x, w)\nh = HardSwish (a)\nm = Mul (h, two)\no = Sub (m, half)\ny = Conv (o, v)")
    first = next(node for node in result.lowered.graph if node.op_type == "QConv")
    assert replaced(first) == ["Conv_0", "HardSwish_1", "Mul_2", "Sub_3"]
    table = first.inputs[8]
    assert table is not None and table.const_value is not None and table.const_value.shape == (256,)


def test_two_functions_of_one_tensor_are_tables_apart() -> None:
    result = lower("a = Same (x, w)\nh = HardSwish (a)\ng = Tanh (a)\ni = Conv (h, v)\nj = Conv (g, u)\ny = Add (i, j)")
    assert result.ops == {"QuantizeNHWC": 1, "QConv": 3, "QTable": 2, "DequantizeNCHW": 1}
    assert_close(result)


@pytest.mark.parametrize(
    ("body", "after"),
    [
        ("a = Same (x, w)\nr = Relu (a)\nc = Conv (r, v)\ns = Add (c, r)\ny = Conv (s, u)", 0),
        ("a = Same (x, w)\nr = Relu (a)\nc = Conv (r, v)\ns = Add (r, c)\nf = Relu (s)\ny = Conv (f, u)", 0),
        ("a = Same (x, w)\nr = Relu (a)\nc = Conv (r, v)\nh = HardSwish (c)\ns = Add (h, r)\ny = Conv (s, u)", 1),
    ],
)
def test_a_residual_sum_is_part_of_its_convolution(body: str, after: int) -> None:
    result = lower(body)
    assert result.ops["QConv"] == 3 and result.ops["QElementwise"] == 0
    (node,) = (n for n in result.lowered.graph if len(n.inputs) > 9 and n.inputs[9] is not None)
    assert (attribute(node, "residual_after") or 0) == after
    assert_close(result, tolerance=0.01)


def test_a_sum_whose_convolution_is_read_elsewhere_too_stays_a_sum() -> None:
    result = lower("a = Same (x, w)\nc = Conv (a, v)\ns = Add (c, a)\ni = Conv (c, u)\nj = Conv (s, u)\ny = Add (i, j)")
    assert result.ops["QElementwise"] == 1
    assert_close(result, tolerance=0.01)


@pytest.mark.parametrize("gate", ["HardSigmoid <alpha = 0.2, beta = 0.5>", "Sigmoid"])
@pytest.mark.parametrize("inner", ["Relu", "HardSwish"])
@pytest.mark.parametrize("residual", [False, True])
def test_squeeze_and_excitation_is_one_operator(gate: str, inner: str, residual: bool) -> None:
    tail = "k = Add (a, e)\ny = Conv (k, u)" if residual else "y = Conv (e, u)"
    result = lower(
        f"a = Same (x, w)\np = GlobalAveragePool (a)\nf = Conv (p, s1, b1)\nr = {inner} (f)\n"
        f"z = Conv (r, s2, b)\ng = {gate} (z)\ne = Mul (a, g)\n{tail}"
    )
    node = result.node("QSqueezeExcite")
    assert result.ops == {"QuantizeNHWC": 1, "QConv": 2, "QSqueezeExcite": 1}
    assert attribute(node, "residual") == (1 if residual else None)
    assert_close(result, tolerance=0.02)  # its inside is not rounded: the QDQ graph rounds four times


def test_another_gate_stays_a_product_per_channel() -> None:
    result = lower(
        "a = Same (x, w)\np = GlobalAveragePool (a)\nf = Conv (p, v)\ng = Tanh (f)\ne = Mul (g, a)\ny = Conv (e, u)"
    )
    assert result.ops == {"QuantizeNHWC": 1, "QConv": 3, "QPool": 1, "QElementwise": 1}
    assert_close(result)


def test_the_second_operand_is_upsampled_as_it_is_read() -> None:
    result = lower(
        "a = Same (x, w)\nh = Conv <strides = [2, 2]> (a, v)\n"
        'r = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">'
        "(h, none, double)\ns = Mul (a, r)\ny = Conv (s, u)"
    )
    assert attribute(result.node("QElementwise"), "upsample") == 2
    assert result.ops["QResize"] == 0
    assert_close(result)


def test_a_concatenation_requantizes_only_what_others_read_too() -> None:
    result = lower(
        "a = Same (x, w)\nk = Mul (a, two)\nh = Conv (k, v)\nc = Concat <axis = 1> (k, h)\ny = Conv (c, wide)",
    )
    node = result.node("QConcat")
    assert attribute(node, "identity") == (0, 1)
    assert_close(result)


def test_an_upsampled_part_of_a_concatenation_is_copied_larger() -> None:
    result = lower(
        "a = Same (x, w)\nh = Conv <strides = [2, 2]> (a, v)\n"
        'r = Resize <mode = "nearest", coordinate_transformation_mode = "half_pixel"> (h, none, double)\n'
        "c = Concat <axis = 1> (r, a)\ny = Conv (c, wide)"
    )
    assert attribute(result.node("QConcat"), "upsample") == (2, 1)
    assert_close(result)


def test_an_image_is_quantized_inside_the_first_convolution() -> None:
    feed = {"x": normal(1, 3, 9, 9, seed=2)}
    result = lower(
        "a = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, stem, b)\nr = Relu (a)\ny = Conv (r, v)",
        "(float[N, 3, H, W] x) => (float[N, 16, P, Q] y)", feed,
    )  # fmt: skip
    assert result.ops == {"QConv": 2}
    assert attribute(next(iter(result.lowered.graph)), "x_layout") == "NCHW"
    assert_close(result, feed)


def test_a_head_writes_float_and_a_function_of_bytes_is_looked_up() -> None:
    result = lower("a = Same (x, w)\ny = Sigmoid (a)")
    assert result.ops == {"QuantizeNHWC": 1, "QConv": 1, "DequantizeNCHW": 1}
    assert replaced(result.node("DequantizeNCHW")) == ["Sigmoid_1"]
    assert_close(result)


def test_integer_kernels_that_stay_read_transposed_bytes() -> None:
    result = lower(
        "a = Same (x, w)\np = GlobalAveragePool (a)\nf = Flatten (p)\ny = MatMul (f, fc)",
        "(float[N, 16, H, W] x) => (float[N, 8] y)",
    )
    assert result.ops["QPool"] == 1 and "MatMul" in result.others
    assert_close(result)


def test_the_portable_placement_is_lowered_too() -> None:
    model = network("a = Same (x, w)\nh = HardSwish (a)\nc = Conv (h, v)\ns = Add (c, a)\ny = Conv (s, u)")
    result = lowered(quantized(model, scheme=Scheme()))
    assert result.ops["QConv"] == 3
    assert not set(result.others) & {"Conv", "HardSwish"}
    assert_close(result, tolerance=0.02)


def test_sizes_and_batches_may_change_from_run_to_run() -> None:
    result = lower("a = Same (x, w)\nh = HardSwish (a)\np = MaxPool <kernel_shape = [2, 2]> (h)\ny = Conv (p, v)")
    for shape in [(1, 16, 5, 9), (3, 16, 12, 4), (0, 16, 6, 6)]:
        expected, actual = result.outputs({"x": IMAGE["x"][:1, :, :1, :1] * np.ones(shape, np.float32)})
        assert expected[0].shape == actual[0].shape


def stays(body: str, name: str, signature: str | None = None, feed: dict[str, np.ndarray] | None = None) -> str:
    result: Result = lower(body, signature, feed or IMAGE)
    return result.reason(name)


@pytest.mark.parametrize(
    ("body", "name", "reason"),
    [
        (
            'a = Same (x, w)\nr = Resize <mode = "nearest"> (a, none, uneven)\ny = Conv (r, v)',
            "Resize_1",
            "whole times",
        ),
        (
            "a = Same (x, w)\np = MaxPool <kernel_shape = [2, 2], dilations = [2, 2]> (a)\ny = Conv (p, v)",
            "MaxPool_1",
            "dilated",
        ),
        ('y = Conv <auto_pad = "SAME_UPPER"> (x, w)', "Conv_0", "automatic"),
        ("y = ConvTranspose <dilations = [2, 2]> (x, t)", "ConvTranspose_0", "dilated"),
    ],
)
def test_what_stays_has_a_reason(body: str, name: str, reason: str) -> None:
    assert reason in stays(body, name)


def test_a_portable_concatenation_of_rows_stays_with_a_reason() -> None:
    model = network("a = Same (x, w)\nc = Concat <axis = 2> (a, a)\ny = Conv (c, v)")
    assert "does not join channels" in lowered(quantized(model, scheme=Scheme())).reason("Concat_1")


def test_excluded_nodes_stay() -> None:
    model = quantized(network("a = Same (x, w)\nr = Relu (a)\ny = Conv (r, v)"))
    result = lowered(model, frozenset({"Conv_2"}))
    assert result.reason("Conv_2") == "excluded"
    assert result.ops["QConv"] == 1 and result.others["Conv"] == 1
    assert_close(result)


def test_a_float_network_is_left_alone() -> None:
    step = LowerConvolutions()
    assert not step(network("a = Same (x, w)\ny = Relu (a)")).modified
    assert "not quantized" in step.decisions[0].reason


def test_parts_without_a_convolution_stay() -> None:
    model = quantized(
        network("a = Same (x, w)\np = MaxPool <kernel_shape = [2, 2]> (a)\nc = Conv (p, v)\ny = Relu (c)")
    )
    result = lowered(model, frozenset({"Conv_0", "Conv_2"}))
    assert "no convolution is near" in result.reason("MaxPool_1")
    assert not result.ops
