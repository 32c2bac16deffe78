"""Neighbours that become one node."""

from __future__ import annotations

import pytest

from onnxcompress.optimizer import optimize
from tests.passes.simplify.models import assert_same, ops, parse

MERGED = {
    "transposes": (
        "t = Transpose<perm=[1,2,0]>(x)\n y = Transpose<perm=[1,0,2]>(t)", "float[4,6,n]", {"Transpose": 1},
    ),
    "transposes that undo each other": (
        "t = Transpose<perm=[1,2,0]>(x)\n r = Relu(x)\n u = Transpose<perm=[2,0,1]>(t)\n y = Add(u, r)",
        "float[n,6,4]", {"Relu": 1, "Add": 1},
    ),
    "reshapes": (
        "a = Constant<value_ints=[-1,3,2,4]>()\n b = Constant<value_ints=[-1,8]>()\n"
        "t = Reshape(x, a)\n y = Reshape(t, b)", "float[m,8]", {"Reshape": 1},
    ),
    "squeeze of unsqueeze": (
        "a = Constant<value_ints=[1]>()\n t = Unsqueeze(x, a)\n u = Squeeze(t, a)\n y = Relu(u)",
        "float[n,6,4]", {"Relu": 1},
    ),
    "unsqueezes": (
        "a = Constant<value_ints=[1]>()\n b = Constant<value_ints=[0,-1]>()\n"
        "t = Unsqueeze(x, a)\n y = Unsqueeze(t, b)", "float[1,n,1,6,4,1]", 1,
    ),
    "transpose of length-one axes": (
        "a = Constant<value_ints=[1]>()\n t = Unsqueeze(x, a)\n u = Transpose<perm=[1,0,2,3]>(t)\n"
        "b = Constant<value_ints=[0]>()\n y = Squeeze(u, b)", "float[n,6,4]", 1,
    ),
    "casts": ("t = Cast<to=11>(x)\n u = Cast<to=1>(t)\n y = Relu(u)", "float[n,6,4]", {"Relu": 1}),
    "clips": (
        "a = Constant<value_float=-1.0>()\n b = Constant<value_float=0.5>()\n"
        "t = Clip(x, a, b)\n y = Relu(t)", "float[n,6,4]", {"Clip": 1},
    ),
    "slices": (
        "s = Constant<value_ints=[1]>()\n e = Constant<value_ints=[3]>()\n a = Constant<value_ints=[1]>()\n"
        "b = Constant<value_ints=[-1]>()\n t = Slice(x, s, e, a)\n y = Slice(t, s, e, b)",
        "float[n,2,2]", {"Slice": 1},
    ),
    "concats": ("t = Concat<axis=1>(x, x)\n y = Concat<axis=1>(t, x)", "float[n,18,4]", {"Concat": 1}),
    "mean over one element": (
        "a = Constant<value_ints=[1]>()\n t = Unsqueeze(x, a)\n u = ReduceMean<keepdims=0>(t, a)\n y = Relu(u)",
        "float[n,6,4]", {"Relu": 1},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("body", "output", "expected"), MERGED.values(), ids=list(MERGED))
def test_neighbours_merge(body: str, output: str, expected: dict[str, int] | int) -> None:
    model = parse(f"g (float[n,6,4] x) => ({output} y) {{ {body} }}")
    result = optimize(model)
    if isinstance(expected, int):
        assert sum(ops(result).values()) == expected
    else:
        assert ops(result) == expected
    assert_same(model, result)


def test_clips_whose_ranges_miss_each_other_do_not_merge() -> None:
    model = parse(
        "g (float[n] x) => (float[n] y) { a = Constant<value_float=-2.0>()\n b = Constant<value_float=-1.0>()\n"
        "t = Clip(x, a, b)\n y = Relu(t) }"
    )
    result = optimize(model)
    assert sum(ops(result).values()) == 2
    assert_same(model, result)


def test_a_narrowing_cast_stays() -> None:
    model = parse("g (float[n] x) => (float[n] y) { t = Cast<to=10>(x)\n y = Cast<to=1>(t) }")
    result = optimize(model)
    assert ops(result) == {"Cast": 2}
    assert_same(model, result)


def test_a_concat_read_twice_stays() -> None:
    model = parse(
        "g (float[n,2] x) => (float[n,6] y, float[n,4] z) {"
        " t = Concat<axis=1>(x, x)\n y = Concat<axis=1>(t, x)\n z = Relu(t) }"
    )
    assert ops(optimize(model))["Concat"] == 2


def test_zero_initial_state_of_an_lstm_is_the_default() -> None:
    model = parse(
        """g (float[t,b,2] x, float[1,12,2] w, float[1,12,3] r) => (float[t,1,b,3] y) {
            s = Shape(x)
            i = Constant<value_ints=[1]>()
            b = Gather<axis=0>(s, i)
            one = Constant<value_ints=[1]>()
            three = Constant<value_ints=[3]>()
            shape = Concat<axis=0>(one, b, three)
            zero = ConstantOfShape(shape)
            y = LSTM<hidden_size=3>(x, w, r, , , zero, zero)
        }"""
    )
    result = optimize(model)
    assert ops(result) == {"LSTM": 1}
    assert_same(model, result)


FLAT_SOFTMAX = """g (float[n,t,5] x) => (float[n,t,5] y) {{
    r = Relu(x)
    {flat}
    p = {op}<axis={axis}>(f)
    s = Shape(r)
    y = Reshape(p, s)
}}"""


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize(
    "flat",
    ["f = Flatten<axis=2>(r)", "f = Flatten<axis=-1>(r)", "d = Constant<value_ints=[-1, 5]>()\nf = Reshape(r, d)"],
)
def test_a_flattened_softmax_is_one_along_the_last_axis(flat: str, axis: int, op: str) -> None:
    model = parse(FLAT_SOFTMAX.format(flat=flat, op=op, axis=axis))
    result = optimize(model)
    assert ops(result) == {"Relu": 1, op: 1}
    assert_same(model, result)


@pytest.mark.parametrize(
    ("flat", "axis"),
    [
        ("f = Flatten<axis=1>(r)", -1),
        ("f = Flatten<axis=2>(r)", 0),
        ("d = Constant<value_ints=[-1, 1]>()\nf = Reshape(r, d)", -1),
    ],
)
def test_a_softmax_over_more_than_the_last_axis_stays_flat(flat: str, axis: int) -> None:
    model = parse(FLAT_SOFTMAX.format(flat=flat, op="Softmax", axis=axis))
    result = optimize(model)
    assert ops(result)["Reshape"] >= 1
    assert_same(model, result)
