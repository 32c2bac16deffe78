"""No-ops go, and what only looks like one stays."""

from __future__ import annotations

import pytest

from onnxcompress.optimizer import optimize
from tests.passes.simplify.models import assert_same, ops, parse

GONE = {
    "identity": "t = Identity(x)\n y = Relu(t)",
    "cast": "t = Cast<to=1>(x)\n y = Relu(t)",
    "dropout": "t = Dropout(x)\n y = Relu(t)",
    "transpose": "t = Transpose<perm=[0,1,2]>(x)\n y = Relu(t)",
    "reshape to the same": "s = Constant<value_ints=[0,-1,4]>()\n t = Reshape(x, s)\n y = Relu(t)",
    "reshape by its own shape": "s = Shape(x)\n t = Reshape(x, s)\n y = Relu(t)",
    "expand by its own shape": "s = Shape(x)\n t = Expand(x, s)\n y = Relu(t)",
    "expand by ones": "s = Constant<value_ints=[1,1]>()\n t = Expand(x, s)\n y = Relu(t)",
    "tile": "r = Constant<value_ints=[1,1,1]>()\n t = Tile(x, r)\n y = Relu(t)",
    "slice of all": """s = Constant<value_ints=[0,0]>()
        e = Constant<value_ints=[6,9223372036854775807]>()
        a = Constant<value_ints=[1,2]>()
        t = Slice(x, s, e, a)\n y = Relu(t)""",
    "pad by nothing": "p = Constant<value_ints=[0,0,0,0,0,0]>()\n t = Pad(x, p)\n y = Relu(t)",
    "concat of one": "t = Concat<axis=1>(x)\n y = Relu(t)",
    "plus zero": "z = Constant<value_float=0.0>()\n t = Add(z, x)\n y = Relu(t)",
    "times a vector of ones": "z = Constant<value_floats=[1.0,1.0,1.0,1.0]>()\n t = Mul(x, z)\n y = Relu(t)",
    "relu twice": "t = Relu(x)\n y = Relu(t)",
    "max of one": "t = Max(x)\n y = Relu(t)",
    "decided where": "c = Constant<value_int=1>()\n b = Cast<to=9>(c)\n n = Neg(x)\n t = Where(b, x, n)\n y = Relu(t)",
}


@pytest.mark.parametrize("body", GONE.values(), ids=list(GONE))
def test_no_ops_go(body: str) -> None:
    model = parse(f"g (float[n,6,4] x) => (float[n,6,4] y) {{ {body} }}")
    result = optimize(model)
    assert ops(result) == {"Relu": 1}
    assert_same(model, result)


STAY = {
    "cast to another type": ("t = Cast<to=11>(x)\n y = Relu(t)", "double[n,6,4]", "Cast"),
    "slice of a part": (
        "s = Constant<value_ints=[0]>()\n e = Constant<value_ints=[5]>()\n a = Constant<value_ints=[1]>()\n"
        "t = Slice(x, s, e, a)\n y = Relu(t)", "float[n,5,4]", "Slice",
    ),
    "zero that broadcasts": (
        "i = Constant<value_ints=[2,1,6,4]>()\n z = ConstantOfShape(i)\n t = Add(x, z)\n y = Relu(t)",
        "float[2,n,6,4]", "Add",
    ),
    "one minus": ("z = Constant<value_float=0.0>()\n t = Sub(z, x)\n y = Relu(t)", "float[n,6,4]", "Sub"),
    "transpose that moves": ("t = Transpose<perm=[0,2,1]>(x)\n y = Relu(t)", "float[n,4,6]", "Transpose"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "output", "op"), STAY.values(), ids=list(STAY))
def test_what_only_looks_like_a_no_op_stays(body: str, output: str, op: str) -> None:
    model = parse(f"g (float[n,6,4] x) => ({output} y) {{ {body} }}")
    result = optimize(model)
    assert ops(result)[op] == 1
    assert_same(model, result)


def test_an_identity_between_input_and_output_stays() -> None:
    model = parse("g (float[n] x) => (float[n] y, float[n] z) { y = Identity(x)\n z = Relu(x) }")
    result = optimize(model)
    assert ops(result) == {"Identity": 1, "Relu": 1}
    assert_same(model, result)


def test_the_output_keeps_its_name_when_its_node_goes() -> None:
    model = parse("g (float[n] x) => (float[n] y) { t = Relu(x)\n y = Identity(t) }")
    result = optimize(model)
    assert ops(result) == {"Relu": 1}
    assert_same(model, result)


def test_one_value_as_two_outputs_keeps_both_names() -> None:
    model = parse("g (float[n] x) => (float[n] y, float[n] z) { t = Relu(x)\n y = Identity(t)\n z = Identity(t) }")
    result = optimize(model)
    assert ops(result) == {"Relu": 1, "Identity": 1}
    assert_same(model, result)


def test_integers_times_zero_are_zero_and_floats_are_not() -> None:
    integers = parse(
        "g (int64 s, float[n] x) => (float[n] y) {"
        " z = Constant<value_int=0>()\n m = Mul(s, z)\n c = Cast<to=1>(m)\n y = Add(x, c)\n }"
    )
    assert ops(optimize(integers))["Mul"] == 0
    floats = parse(
        "g (float s, float[n] x) => (float[n] y) { z = Constant<value_float=0.0>()\n m = Mul(s, z)\n y = Add(x, m) }"
    )
    assert ops(optimize(floats))["Mul"] == 1
