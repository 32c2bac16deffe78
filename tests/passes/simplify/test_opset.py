"""Conversion to a later opset keeps what ops meant; what it cannot keep it refuses."""

from __future__ import annotations

import itertools

import onnx
import onnx_ir as ir
import pytest

from onnxcompress.passes.simplify import ConvertOpset, InferShapes
from tests.passes.simplify.models import assert_same, ops, parse

CONVERTED = {
    "softmax over the last axis": (11, "float[n,4,5] x", "float[n,4,5] y", "y = Softmax<axis=2>(x)"),
    "softmax over a flattened tail": (11, "float[n,4,5] x", "float[n,4,5] y", "y = Softmax(x)"),
    "log softmax over a flattened tail": (11, "float[n,4,5] x", "float[n,4,5] y", "y = LogSoftmax<axis=-2>(x)"),
    "hardmax over a flattened tail": (11, "float[n,4,5] x", "float[n,4,5] y", "y = Hardmax<axis=1>(x)"),
    "softmax over a tail of ones": (11, "float[n,4,1,1] x", "float[n,4,1,1] y", "y = Softmax<axis=1>(x)"),
    "slice": (9, "float[n,4,5] x", "float[n,2,3] y", "y = Slice<starts=[1,1],ends=[3,-1],axes=[1,2]>(x)"),
    "clip": (10, "float[n] x", "float[n] y", "y = Clip<min=-0.5,max=0.5>(x)"),
    "clip above only": (10, "float[n] x", "float[n] y", "y = Clip<max=0.5>(x)"),
    "pad": (10, "float[n,2] x", "float[n,5] y", "y = Pad<pads=[0,1,0,2],value=1.5>(x)"),
    "pad by reflection": (10, "float[1,1,4,4] x", "float[1,1,5,4] y",
        "y = Pad<mode=\"reflect\",pads=[0,0,1,0,0,0,0,0]>(x)"),
    "squeeze and unsqueeze": (11, "float[n,1,2] x", "float[1,n,2] y", "t = Squeeze<axes=[1]>(x)\n"
        " y = Unsqueeze<axes=[0]>(t)"),
    "squeeze of all": (11, "float[1,3,1] x", "float[3] y", "y = Squeeze(x)"),
    "sum": (11, "float[n,3] x", "float[n,1] y", "y = ReduceSum<axes=[1]>(x)"),
    "mean": (13, "float[n,3] x", "float[n] y", "y = ReduceMean<axes=[-1],keepdims=0>(x)"),
    "max of all": (12, "float[n,3] x", "float[1,1] y", "y = ReduceMax(x)"),
    "split": (11, "float[n,5] x", "float[n,2] y, float[n,3] z", "y, z = Split<axis=1,split=[2,3]>(x)"),
    "even split": (13, "float[n,6] x", "float[n,3] y, float[n,3] z", "y, z = Split<axis=1>(x)"),
    "top k": (9, "float[n,6] x", "float[n,2] y, int64[n,2] z", "y, z = TopK<k=2>(x)"),
    "dropout": (9, "float[n] x", "float[n] y", "y = Dropout<ratio=0.3>(x)"),
    "upsample": (7, "float[1,2,3,4] x", "float[1,2,6,8] y",
        "y = Upsample<mode=\"nearest\",scales=[1.0,1.0,2.0,2.0]>(x)"),
    "linear upsample": (7, "float[1,2,3,4] x", "float[1,2,6,8] y",
        "y = Upsample<mode=\"linear\",scales=[1.0,1.0,2.0,2.0]>(x)"),
    "resize down": (10, "float[1,1,6,6] x", "float[1,1,4,4] y",
                    "s = Constant<value=float[4] {1.0,1.0,0.7,0.7}>()\n y = Resize<mode=\"nearest\">(x, s)"),
    "scatter": (10, "float[3,3] x, int64[1,3] i, float[1,3] u", "float[3,3] y", "j = Abs(i)\n"
        " k = Sub(j, j)\n y = Scatter<axis=0>(x, k, u)"),
    "region of interest": (15, "float[1,1,8,8] x", "float[1,1,2,2] y",
        "r = Constant<value=float[1,4] {0.0,0.0,5.0,5.0}>()\n i = Constant<value=int64[1] {0}>()\n"
        "y = RoiAlign<output_height=2,output_width=2,sampling_ratio=2>(x, r, i)"),
    "grid sample": (16, "float[1,1,4,4] x, float[1,3,3,2] g", "float[1,1,3,3] y",
        "y = GridSample<mode=\"bicubic\">(x, g)"),
}  # fmt: skip


@pytest.mark.parametrize(("opset", "inputs", "outputs", "body"), CONVERTED.values(), ids=list(CONVERTED))
@pytest.mark.parametrize("target", [21, 23])
def test_old_ops_keep_their_meaning(opset: int, inputs: str, outputs: str, body: str, target: int) -> None:
    if target > 21 and "RoiAlign" in body:
        pytest.skip("ONNX Runtime has no kernel for RoiAlign-22")
    model = parse(f"g ({inputs}) => ({outputs}) {{ {body} }}", opset=opset, ir_version=7)
    result = model.clone()
    InferShapes(working=True)(result)
    converter = ConvertOpset(target)
    assert converter(result).modified
    assert converter.refusal is None
    assert result.graph.opset_imports[""] == target
    InferShapes()(result)
    assert_same(model, result, free=(3, 2))


def test_softmax_of_unknown_rank_is_converted_by_its_definition() -> None:
    model = parse("g (float[n,4,5] x) => (float[n,4,5] y) { y = Softmax(x) }", opset=11, ir_version=7)
    result = model.clone()
    assert ConvertOpset(21)(result).modified
    assert ops(result) == {"Flatten": 1, "Shape": 1, "Softmax": 1, "Reshape": 1}
    assert_same(model, result)


def test_ops_in_branches_are_converted_too() -> None:
    model = parse(
        """g (bool c, float[3,1] x) => (float[3] y) {
            y = If (c) <then_branch = g1 () => (float[3] a) { a = Squeeze<axes=[1]>(x) },
                        else_branch = g2 () => (float[3] b) { r = ReduceSum<axes=[1], keepdims=0>(x)\n b = Neg(r) }>
        }""",
        opset=11,
        ir_version=7,
    )
    result = model.clone()
    assert ConvertOpset(21)(result).modified
    assert_same(model, result)


REFUSED = {
    "a dropout mask": (9, "float[n] x", "float[n] y, float[n] m", "y, m = Dropout(x)", "training"),
    "batch norm in training": (
        9, "float[n,2] x, float[2] s", "float[n,2] y, float[2] m", "y, m = BatchNormalization(x, s, s, s, s)",
            "training",
    ),
    "nearest resizing both ways": (
        10, "float[1,1,4,4] x", "float[1,1,8,2] y",
        "s = Constant<value=float[4] {1.0,1.0,2.0,0.5}>()\n y = Resize<mode=\"nearest\">(x, s)", "up and down",
    ),
    "group norm by group": (
        18, "float[n,4,3] x, float[2] s", "float[n,4,3] y", "y = GroupNormalization<num_groups=2>(x, s, s)", "scale",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("opset", "inputs", "outputs", "body", "reason"), REFUSED.values(), ids=list(REFUSED))
def test_what_cannot_be_converted_is_left_alone_and_said(
    opset: int, inputs: str, outputs: str, body: str, reason: str
) -> None:
    model = parse(f"g ({inputs}) => ({outputs}) {{ {body} }}", opset=opset, ir_version=7)
    before = ir.to_proto(model).SerializeToString()
    converter = ConvertOpset(21)
    assert not converter(model).modified
    assert converter.refusal is not None and reason in converter.refusal
    assert ir.to_proto(model).SerializeToString() == before


def test_a_later_opset_stays() -> None:
    model = parse("g (float[n] x) => (float[n] y) { y = Relu(x) }", opset=22)
    assert not ConvertOpset(21)(model).modified
    assert model.graph.opset_imports[""] == 22


def test_opset_6_is_refused() -> None:
    model = parse("g (float[n] x) => (float[n] y) { y = Relu(x) }", opset=6, ir_version=3)
    converter = ConvertOpset(21)
    assert not converter(model).modified
    assert "older" in str(converter.refusal)


def test_every_op_whose_attributes_changed_is_known() -> None:
    """An attribute or a required input that a later schema lacks or adds must have an adapter on the way."""
    from onnxcompress.passes.simplify.opset import ADAPTERS

    history: dict[str, list[onnx.defs.OpSchema]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            history.setdefault(schema.name, []).append(schema)
    unknown = []
    for name, schemas in history.items():
        schemas.sort(key=lambda s: s.since_version)
        for old, new in itertools.pairwise(schemas):
            if not old.since_version >= 7 or new.since_version > 21 or (name, new.since_version) in ADAPTERS:
                continue
            gone = set(old.attributes) - set(new.attributes)
            demanded = {k for k, a in new.attributes.items() if a.required} - set(old.attributes)
            if gone or demanded or new.min_input > old.max_input:
                unknown.append(f"{name}-{new.since_version}: {gone or demanded or 'inputs'}")
    assert not unknown
