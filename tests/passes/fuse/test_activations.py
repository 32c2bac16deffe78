"""Written-out activations and norms become one node, in every spelling, and near misses do not."""

from __future__ import annotations

import pytest

from onnxcompress.optimizer import optimize
from tests.passes.simplify.models import assert_same, ops, parse

CONSTANTS = """half = Constant<value_float=0.5>()\n one = Constant<value_float=1.0>()\n
 two = Constant<value_float=2.0>()
 three = Constant<value_float=3.0>()\n six = Constant<value_float=6.0>()\n zero = Constant<value_float=0.0>()
 root2 = Constant<value_float=1.41421354>()\n inv = Constant<value_float=0.70710677>()
 sixth = Constant<value_float=0.16666667>()\n k = Constant<value_float=0.7978846>()\n
 c = Constant<value_float=0.044715>()
 """
ERF = "u = Div(x, root2)\n e = Erf(u)\n a = Add(e, one)\n"
RELU6 = "p = Add(x, three)\n q = Clip(p, zero, six)\n"

SPELLINGS = {
    "gelu: half last": (ERF + "m = Mul(x, a)\n y = Mul(m, half)", "Gelu"),
    "gelu: half first": (ERF + "h = Mul(half, x)\n y = Mul(h, a)", "Gelu"),
    "gelu: half of the gate": (ERF + "h = Mul(a, half)\n y = Mul(x, h)", "Gelu"),
    "gelu: by products": ("u = Mul(x, inv)\n e = Erf(u)\n a = Add(one, e)\n m = Mul(a, x)\n y = Div(m, two)", "Gelu"),
    "gelu: tanh and a cube": (
        "b = Pow(x, three)\n d = Mul(c, b)\n f = Add(x, d)\n i = Mul(f, k)\n t = Tanh(i)\n a = Add(t, one)\n"
        "h = Mul(x, half)\n y = Mul(h, a)", "Gelu",
    ),
    "gelu: tanh and a square": (
        "b = Mul(x, x)\n d = Mul(b, c)\n f = Add(d, one)\n kx = Mul(x, k)\n i = Mul(kx, f)\n t = Tanh(i)\n"
        "a = Add(t, one)\n h = Mul(x, half)\n y = Mul(h, a)", "Gelu",
    ),
    "hard swish: divided last": (RELU6 + "m = Mul(x, q)\n y = Div(m, six)", "HardSwish"),
    "hard swish: times a sixth": (RELU6 + "m = Mul(q, x)\n y = Mul(m, sixth)", "HardSwish"),
    "hard swish: divided first": (RELU6 + "d = Div(q, six)\n y = Mul(x, d)", "HardSwish"),
    "hard sigmoid": (RELU6 + "y = Div(q, six)", "HardSigmoid"),
    "mish": ("s = Softplus(x)\n t = Tanh(s)\n y = Mul(t, x)", "Mish"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "op"), SPELLINGS.values(), ids=list(SPELLINGS))
def test_one_node(body: str, op: str) -> None:
    model = parse(f"g (float[n,8] x) => (float[n,8] y) {{ {CONSTANTS} {body} }}")
    result = optimize(model, portable=True)
    assert ops(result) == {op: 1}
    assert_same(model, result, tolerance=1e-5)


NEAR_MISSES = {
    "gelu of another value": ERF + "r = Neg(x)\n m = Mul(r, a)\n y = Mul(m, half)",
    "hard swish of another value": RELU6 + "r = Neg(x)\n m = Mul(r, q)\n y = Div(m, six)",
    "clip at five": "five = Constant<value_float=5.0>()\n p = Add(x, three)\n q = Clip(p, zero, five)\n"
    " m = Mul(x, q)\n y = Div(m, six)",
    "mish of another value": "r = Neg(x)\n s = Softplus(r)\n t = Tanh(s)\n y = Mul(t, x)",
}


@pytest.mark.parametrize("body", NEAR_MISSES.values(), ids=list(NEAR_MISSES))
def test_near_misses_stay(body: str) -> None:
    model = parse(f"g (float[n,8] x) => (float[n,8] y) {{ {CONSTANTS} {body} }}")
    result = optimize(model)
    assert not {"Gelu", "HardSwish", "Mish"} & set(ops(result))
    assert_same(model, result, tolerance=1e-5)


def test_no_op_of_a_later_opset_is_written() -> None:
    body = SPELLINGS["hard swish: divided last"][0]
    model = parse(f"g (float[n,8] x) => (float[n,8] y) {{ {CONSTANTS} {body} }}", opset=12)
    dropout = parse("g (float[n] x) => (float[n] y, float[n] m) { y, m = Dropout(x) }", opset=9)
    assert optimize(dropout).graph.opset_imports[""] == 9
    result = optimize(model, opset=13)
    assert result.graph.opset_imports[""] == 13 and "HardSwish" not in ops(result)


NORM = """g (float[n,5,4] x, float[n,5,4] z) => (float[n,5,4] y) {{
    two = Constant<value_float=2.0>()
    eps = Constant<value_float=0.00001>()
    axes = Constant<value_ints=[{axis}]>()
    scale = Constant<value_floats=[1.0,2.0,3.0,4.0]>()
    bias = Constant<value_floats=[4.0,3.0,2.0,1.0]>()
    s = Add(x, z)
    mean = ReduceMean(s, axes)
    d = Sub(s, mean)
    square = {square}
    variance = ReduceMean(square, axes)
    v = Add(variance, eps)
    root = Sqrt(v)
    {normal}
    scaled = Mul(normal, scale)
    {end}
}}"""


@pytest.mark.parametrize("axis", [-1, 2])
@pytest.mark.parametrize("square", ["Pow(d, two)", "Mul(d, d)"])
@pytest.mark.parametrize("normal", ["normal = Div(d, root)", "inverse = Reciprocal(root)\n normal = Mul(d, inverse)"])
@pytest.mark.parametrize("end", ["y = Add(scaled, bias)", "y = Neg(scaled)"])
def test_layer_norm(axis: int, square: str, normal: str, end: str) -> None:
    model = parse(NORM.format(axis=axis, square=square, normal=normal, end=end))
    result = optimize(model, portable=True)
    assert ops(result)["LayerNormalization"] == 1
    assert sum(ops(result).values()) == (2 if "Add" in end else 3)
    assert_same(model, result, tolerance=1e-5)


@pytest.mark.parametrize(
    ("scale", "bias"), [("1.0,1.0,1.0,1.0", "4.0,3.0,2.0,1.0"), ("1.0,1.0,1.0,1.0", "0.0,0.0,0.0,0.0")]
)
def test_a_norm_whose_scale_or_bias_does_nothing(scale: str, bias: str) -> None:
    """As untrained layers have them: they are gone before the norm is looked for."""
    body = NORM.format(axis=-1, square="Mul(d, d)", normal="normal = Div(d, root)", end="y = Add(scaled, bias)")
    model = parse(body.replace("1.0,2.0,3.0,4.0", scale).replace("4.0,3.0,2.0,1.0", bias))
    result = optimize(model, portable=True)
    assert ops(result) == {"Add": 1, "LayerNormalization": 1}
    assert_same(model, result, tolerance=1e-5)


def test_a_norm_over_another_axis_stays() -> None:
    model = parse(NORM.format(axis=1, square="Mul(d, d)", normal="normal = Div(d, root)", end="y = Add(scaled, bias)"))
    result = optimize(model)
    assert "LayerNormalization" not in ops(result)
    assert_same(model, result, tolerance=1e-5)


@pytest.mark.parametrize("end", ["y = Add(scaled, bias)", "b = Add(scaled, bias)\n y = Add(b, s)"])
def test_skip_layer_norm_is_written_where_it_need_not_be_portable(end: str) -> None:
    model = parse(NORM.format(axis=-1, square="Mul(d, d)", normal="normal = Div(d, root)", end=end))
    result = optimize(model)
    assert ops(result)["SkipLayerNormalization"] == 1 and "LayerNormalization" not in ops(result)
    assert_same(model, result, tolerance=1e-5)
    assert "com.microsoft" not in optimize(model, portable=True).graph.opset_imports
