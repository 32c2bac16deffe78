"""Shape arithmetic folds, with dimensions known by name only."""

from __future__ import annotations

import onnx_ir as ir

from onnxcompress.optimizer import optimize
from tests.passes.simplify.models import assert_same, ops, parse


def test_reshape_by_parts_of_the_shape_needs_no_arithmetic() -> None:
    model = parse(
        """g (float[n,6,t] x) => (float[n,t,6] y) {
            s = Shape(x)
            zero = Constant<value_int=0>()
            i = Constant<value_ints=[0]>()
            n = Gather<axis=0>(s, zero)
            n1 = Unsqueeze(n, i)
            rest = Constant<value_ints=[-1, 6]>()
            target = Concat<axis=0>(n1, rest)
            y = Reshape(x, target)
        }"""
    )
    result = optimize(model)
    assert ops(result) == {"Reshape": 1}
    assert_same(model, result)


def test_known_dimensions_become_constants() -> None:
    model = parse(
        """g (float[n,6,4] x) => (float[n,24] y) {
            s = Shape<start=1>(x)
            one = Constant<value_ints=[1]>()
            zero = Constant<value_ints=[0]>()
            a = Gather<axis=0>(s, zero)
            b = Gather<axis=0>(s, one)
            p = Mul(a, b)
            minus = Constant<value_ints=[-1]>()
            target = Concat<axis=0>(minus, p)
            y = Reshape(x, target)
        }"""
    )
    result = optimize(model)
    assert ops(result) == {"Reshape": 1}
    assert_same(model, result)


def test_two_unknown_dimensions_keep_the_arithmetic() -> None:
    model = parse(
        """g (float[n,t,6] x) => (float[6,a,b] y) {
            s = Shape<end=2>(x)
            six = Constant<value_ints=[6]>()
            target = Concat<axis=0>(six, s)
            y = Reshape(x, target)
        }"""
    )
    result = optimize(model)
    assert ops(result)["Shape"] == 1
    assert_same(model, result)


def test_the_same_dimension_is_computed_once() -> None:
    model = parse(
        """g (float[n,4] x) => (int64[1] y, int64[1] z) {
            r = Relu(x)
            zero = Constant<value_ints=[0]>()
            two = Constant<value_ints=[2]>()
            s = Shape(x)
            a = Gather<axis=0>(s, zero)
            y = Mul(a, two)
            u = Shape(r)
            b = Gather<axis=0>(u, zero)
            c = Mul(b, two)
            z = Neg(c)
        }"""
    )
    result = optimize(model)
    assert ops(result) == {"Shape": 1, "Gather": 1, "Mul": 1, "Neg": 1}
    assert_same(model, result)


def test_dimensions_are_followed_through_convolutions_and_sums() -> None:
    """Inference names every convolution's width anew; equal windows make equal widths."""
    model = parse(
        """g (float[1,2,w] x, float[2,2,3] k) => (float[1,2,u] y) {
            a = Conv<strides=[2], pads=[1,1]>(x, k)
            b = Conv<strides=[2], pads=[1,1]>(x, k)
            m = MaxPool<kernel_shape=[3], strides=[2], pads=[1,1]>(x)
            c = Add(a, m)
            d = Add(c, b)
            s = Shape(d)
            i = Constant<value_ints=[2]>()
            w = Gather<axis=0>(s, i)
            ones = Constant<value_ints=[1,-1]>()
            target = Concat<axis=0>(ones, w)
            y = Reshape(a, target)
        }"""
    )
    result = optimize(model)
    assert ops(result)["Shape"] == 0
    assert_same(model, result, free=(5, 8))


def test_fixed_shapes_fold_what_depends_on_them() -> None:
    model = parse(
        "g (float[n,t,6] x) => (float[6,a,b] y) {"
        " s = Shape<end=2>(x)\n six = Constant<value_ints=[6]>()\n t = Concat<axis=0>(six, s)\n y = Reshape(x, t) }"
    )
    result = optimize(model, fixed_shapes={"x": (2, 3, 6)})
    assert ops(result) == {"Reshape": 1}
    assert result.graph.outputs[0].shape == ir.Shape([6, 2, 3])
    assert isinstance(model.graph.inputs[0].shape, ir.Shape) and model.graph.inputs[0].shape[0] == "n"
