"""Dead code, common subexpressions, decided branches, functions."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from onnxcompress.optimizer import optimize
from onnxcompress.passes.simplify import ApplyRules, Rule, count_nodes
from onnxcompress.passes.simplify.editor import Editor
from tests.passes.simplify.models import assert_same, ops, parse


def test_dead_nodes_go_with_what_only_they_needed() -> None:
    model = parse("g (float[n] x) => (float[n] y) { a = Exp(x)\n b = Neg(a)\n y = Relu(x) }")
    assert ops(optimize(model)) == {"Relu": 1}


def test_unused_inputs_stay() -> None:
    model = parse("g (float[n] x, float[n] unused) => (float[n] y) { y = Relu(x) }")
    assert [v.name for v in optimize(model).graph.inputs] == ["x", "unused"]


def test_equal_nodes_are_one() -> None:
    model = parse("g (float[n] x) => (float[n] y) { a = Exp(x)\n b = Exp(x)\n y = Add(a, b) }")
    result = optimize(model)
    assert ops(result) == {"Exp": 1, "Add": 1}
    assert_same(model, result)


def test_nodes_that_differ_in_an_attribute_are_two() -> None:
    model = parse("g (float[n] x) => (float[n] y) { a = Elu<alpha=0.5>(x)\n b = Elu<alpha=1.5>(x)\n y = Add(a, b) }")
    result = optimize(model)
    assert ops(result) == {"Elu": 2, "Add": 1}
    assert_same(model, result)


def test_random_nodes_are_never_one() -> None:
    model = parse(
        "g (float[n] x) => (float[n] y) { a = RandomNormalLike(x)\n b = RandomNormalLike(x)\n y = Sub(a, b) }"
    )
    assert ops(optimize(model))["RandomNormalLike"] == 2


IF = """g (float[n] x) => (float[n] y) {{
    {condition}
    t = If (c) <
        then_branch = g1 () => (float[n] a) {{ k = Constant<value_float=2.0>()\n a = Mul(x, k) }},
        else_branch = g2 () => (float[n] b) {{ k = Constant<value_float=3.0>()\n m = Mul(x, k)\n b = Exp(m) }}
    >
    y = Relu(t)
}}"""


@pytest.mark.parametrize(("value", "expected"), [(1, {"Mul": 1, "Relu": 1}), (0, {"Mul": 1, "Exp": 1, "Relu": 1})])
def test_a_decided_if_is_its_branch(value: int, expected: dict[str, int]) -> None:
    model = parse(IF.format(condition=f"i = Constant<value_int={value}>()\n c = Cast<to=9>(i)"))
    result = optimize(model)
    assert ops(result) == expected
    assert_same(model, result)


def test_an_undecided_if_stays_and_its_branches_are_simplified() -> None:
    condition = "s = ReduceSum<keepdims=0>(x)\n z = Constant<value_float=0.0>()\n g = Greater(s, z)\n c = Not(g)"
    model = parse(IF.format(condition=condition))
    result = optimize(model)
    assert ops(result)["If"] == 1
    assert ops(result)["Not"] == 0, "Not swaps the branches"
    assert_same(model, result)


def test_a_branch_that_hands_an_outer_value_on_keeps_an_identity_where_an_output_needs_it() -> None:
    model = parse(
        """g (float[n] x) => (float[n] y) {
            i = Constant<value_int=1>()
            c = Cast<to=9>(i)
            y = If (c) <then_branch = g1 () => (float[n] a) { a = Identity(x) },
                        else_branch = g2 () => (float[n] b) { b = Neg(x) }>
        }"""
    )
    result = optimize(model)
    assert ops(result) == {"Identity": 1}
    assert_same(model, result)


FUNCTION = """<ir_version: 10, opset_import: ["" : 21, "{domain}" : 1]>
g (float[n] x) => (float[n] y) {{ t = {domain}.twice(x)\n y = {domain}.twice(t) }}
<domain: "{domain}", opset_import: ["" : 21]>
twice (a) => (b) {{ c = Identity(a)\n b = Add(c, c) }}"""


def test_functions_are_inlined() -> None:
    import onnx

    model = ir.from_proto(onnx.parser.parse_model(FUNCTION.format(domain="local")))
    result = optimize(model)
    assert ops(result) == {"Add": 2}
    assert not result.functions and "local" not in result.graph.opset_imports


def test_functions_that_stand_in_for_our_kernels_are_kept() -> None:
    import onnx

    model = ir.from_proto(onnx.parser.parse_model(FUNCTION.format(domain="onnxcompress")))
    result = optimize(model)
    assert ops(result) == {"twice": 2}
    assert len(result.functions) == 1


def test_rules_that_undo_each_other_come_to_an_end() -> None:
    def swap(node: ir.Node, other: str, editor: Editor) -> None:
        new = editor.insert(other, list(node.inputs), before=node)
        editor.replace(node.outputs[0], new.outputs[0])

    rules = [
        Rule("there", ("Exp",), lambda node: "Neg", swap),
        Rule("and back", ("Neg",), lambda node: "Exp", swap),
    ]
    model = parse("g (float[n] x) => (float[n] y) { t = Exp(x)\n y = Relu(t) }")
    ApplyRules("circle", rules)(model)
    assert count_nodes(model) == 2
