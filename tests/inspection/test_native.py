"""Lowered models: their work and weights are those of the float model, and each node says what it replaced."""

from __future__ import annotations

import math

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

import onnxcompress
from onnxcompress.errors import ModelError
from onnxcompress.inspection import Inspection, text
from onnxcompress.inspection.walk import walk_model
from onnxcompress.ops import DOMAIN, OPS
from onnxcompress.ops.blocks import from_blocks, output_count
from onnxcompress.ops.qlinear4 import unpack4
from tests.lowered import Lowered, lowered_cnn, lowered_encoder
from tests.ops import forms
from tests.ops.cases import ALL
from tests.ops.cases.case import Array, Case

MADE = {"cnn": lowered_cnn, "encoder": lowered_encoder}
WITH_PRODUCTS = [
    "QLinear", "QLinear4", "QSparseLinear", "QLinearLayerNorm", "QSparseLinearLayerNorm", "QConv", "QSparseConv",
    "QConvTranspose", "QAttention", "QSqueezeExcite", "WeightOnlyLinear",
]  # fmt: skip


@pytest.fixture(scope="module", params=list(MADE))
def made(request: pytest.FixtureRequest) -> Lowered:
    return MADE[request.param]()


@pytest.fixture(scope="module")
def encoder() -> Lowered:
    return lowered_encoder()


def inspected(case: Case) -> Inspection:
    return onnxcompress.inspect(ir.from_proto(forms.model(case)))


def inputs_of(case: Case) -> dict[str, Array]:
    names = OPS[case.op].names(len(case.inputs))
    return {name: np.asarray(x) for name, x in zip(names, case.inputs, strict=True) if x is not None}


def dense(case: Case) -> Array:
    """The weights [N, ...] as integers; for transposed convolutions and others too."""
    given = inputs_of(case)
    if not case.op.startswith("QSparse"):
        if case.op == "WeightOnlyLinear":
            codes = unpack4(given["w"]) if case.attributes["bits"] == 4 else given["w"]
            middle = 1 << (int(case.attributes["bits"]) - 1)
            return np.asarray(codes[:, : given["x"].shape[-1]].astype(np.int64) - middle)
        return unpack4(given["w"]).astype(np.int64) - 8 if case.op == "QLinear4" else given["w"]
    values, row_start, column = (given[name] for name in ("values", "row_start", "column"))
    kh, kw = case.attributes.get("kernel_shape", (1, 1))
    k = case.attributes.get("in_features", case.attributes.get("in_channels", 0)) * kh * kw
    return from_blocks(values, row_start, column, output_count(row_start, values.shape[1], given["w_scale"]), k)


def products(case: Case) -> int:
    """Multiply-accumulates, from the arrays."""
    given = inputs_of(case)
    y = next(iter(forms.reference(case).values()))
    if case.op == "QAttention":
        batch, tokens, width = y.shape
        return int(2 * batch * tokens * tokens * width)
    if case.op == "QSqueezeExcite":
        return int(y.shape[0] * (given["w1"].size + given["w2"].size))
    w = dense(case)
    if case.op == "WeightOnlyLinear":  # gated ones have half as many results
        return int(math.prod(given["x"].shape[:-1]) * w.size)
    if case.op == "QConvTranspose":
        return int(math.prod(given["x"].shape[:3]) * w.size)
    return int(y.size // w.shape[0] * w.size)


@pytest.mark.parametrize("case", [case for case in ALL if case.op in WITH_PRODUCTS], ids=str)
def test_work_of_each_operator(case: Case) -> None:
    found = inspected(case)
    (node,) = found.nodes
    assert node.macs == products(case)
    assert node.quantization is not None
    if case.op == "WeightOnlyLinear":
        assert (node.quantization.state, node.quantization.weights) == ("weight-only", f"int{case.attributes['bits']}")
        return
    assert node.quantization.state == "quantized"
    dynamic = np.ndim(inputs_of(case).get("x_scale", 0.0)) > 0
    assert node.quantization.activations == f"uint8 {'dynamic' if dynamic else 'static'}"
    assert (found.unknown_macs, found.unknown_activations) == (0, 0)


@pytest.mark.parametrize("op", sorted(set(OPS) - set(WITH_PRODUCTS)))
def test_other_operators_have_no_products(op: str) -> None:
    found = inspected(next(case for case in ALL if case.op == op))
    (node,) = found.nodes
    assert (node.macs, node.quantization) == (0, None)
    assert node.activation_bytes


@pytest.mark.parametrize(
    "op",
    [
        "QLinear",
        "QLinear4",
        "QSparseLinear",
        "QLinearLayerNorm",
        "QSparseLinearLayerNorm",
        "QConv",
        "QSparseConv",
        "WeightOnlyLinear",
    ],
)
def test_weights_are_those_of_the_dense_layer(op: str) -> None:
    case = next(case for case in ALL if case.op == op and all(np.size(x) for x in case.inputs if x is not None))
    found = inspected(case)
    w = dense(case)
    others = sum(x.size for name, x in inputs_of(case).items() if name in ("bias", "gamma", "beta"))
    assert found.parameters == w.size + others
    assert found.nodes[0].parameters == found.parameters
    assert found.sparsity == pytest.approx(1 - np.count_nonzero(w) / w.size)


def test_tables_scales_and_indices_are_no_parameters() -> None:
    for op in ("QTable", "QConcat", "DequantizeNCHW", "QElementwise", "QResize", "QPool", "QuantizeNHWC", "QAttention"):
        for case in (case for case in ALL if case.op == op):
            assert inspected(case).parameters == 0, case
    case = next(case for case in ALL if case.op == "EmbedLayerNorm")
    given = inputs_of(case)
    wanted = ("table", "type_table", "position_table", "gamma", "beta")
    assert inspected(case).parameters == sum(given[name].size for name in wanted if name in given)


def test_zero_blocks_of_convolution_weights_are_seen() -> None:
    w = np.ones((8, 3, 3, 16), np.int8)
    w[:, 1:] = 0
    given = [np.zeros((1, 5, 5, 16), np.uint8), np.float32(1), np.uint8(0), w, np.float32(1)]
    found = inspected(Case("QConv", "", [*map(np.asarray, given)], outputs=("y_float",)))
    (tensor,) = (t for t in found.tensors if t.name == "i3")
    assert tensor.zeros == w.size * 2 // 3
    assert tensor.groups_2_4 == tensor.blocks_4x4 == pytest.approx(2 / 3)


def test_work_is_that_of_the_float_model(made: Lowered) -> None:
    before, after = (onnxcompress.inspect(model, shapes=made.shapes) for model in (made.source, made.model))
    assert after.macs == before.macs > 0
    assert (after.unknown_macs, after.unknown_activations, after.notes) == (0, 0, ())
    assert after.parameters == pytest.approx(before.parameters, rel=0.01)
    assert after.coverage.quantized == after.coverage.compute_nodes
    assert after.coverage.macs_share == 1.0


def test_function_bodies_are_not_counted(made: Lowered) -> None:
    found = onnxcompress.inspect(made.model, shapes=made.shapes)
    assert sum(found.operators.values()) == len(found.nodes) == len(list(made.model.graph))
    assert not any(node.scope for node in found.nodes)
    assert len(found.functions) == len(made.model.functions) > 3


def test_summary_and_table_say_what_was_replaced(encoder: Lowered) -> None:
    found = onnxcompress.inspect(encoder.model)
    names = {name for node in found.nodes for name in node.replaces}
    ours = [node for node in encoder.model.graph if node.domain == DOMAIN]
    native = f"native       {len(ours)} operators of onnxcompress for {len(names)} nodes, {len(found.functions)} func"
    assert any(line.startswith(native) for line in text.summary(found))
    assert not any(line.startswith("functions") for line in text.summary(found))
    (attention,) = (node for node in found.nodes if node.op.endswith("QAttention"))
    assert len(attention.replaces) > 3
    (line,) = (line for line in text.node_table(found) if line.startswith(attention.name))
    assert line.endswith(f"for {', '.join(attention.replaces[:3])} and {len(attention.replaces) - 3} more")
    detail = "\n".join(text.node_detail(found, attention))
    assert all(name in detail for name in attention.replaces)
    assert found.as_dict()["nodes"][0]["replaces"]


def test_a_node_is_found_by_what_it_replaced(encoder: Lowered) -> None:
    found = onnxcompress.inspect(encoder.model)
    (attention,) = (node for node in found.nodes if node.op.endswith("QAttention"))
    for name in attention.replaces:
        assert attention in text.find_nodes(found, name)
    with pytest.raises(ModelError, match=f"did you mean .*{attention.replaces[0]}"):
        text.find_nodes(found, f"{attention.replaces[0]}x")


def test_shapes_without_given_ones_keep_their_symbols(encoder: Lowered) -> None:
    walk = walk_model(encoder.model)
    (attention,) = (visit for visit in walk.visits if visit.node.op_type == "QAttention")
    assert attention.outputs[0].shape == ("B", "S", 24)
    assert attention.outputs[0].dtype == ir.DataType.UINT8


ONE = """<ir_version: 10, opset_import: ["": 21, "onnxcompress": {version}]>
g (uint8[2,4] x) => (uint8[2,4] y) <uint8[256] t = {{{values}}}> {{ y = onnxcompress.QTable ({inputs}) }}
<domain: "onnxcompress", opset_import: ["": 21]>
QTable (x, table) => (y) {{ i = Cast <to = 6> (x) y = Gather (table, i) }}"""


def one(version: int = 1, inputs: str = "x, t") -> ir.Model:
    values = ", ".join(map(str, range(256)))
    return ir.from_proto(onnx.parser.parse_model(ONE.format(version=version, values=values, inputs=inputs)))


def test_an_operator_of_a_later_version_is_what_its_body_says() -> None:
    assert [node.op for node in onnxcompress.inspect(one()).nodes] == ["onnxcompress::QTable"]
    nodes = onnxcompress.inspect(one(2)).nodes
    assert [node.op for node in nodes] == ["onnxcompress::QTable", "Cast", "Gather"]


def test_a_node_that_does_not_fit_its_operator_is_noted() -> None:
    case = next(case for case in ALL if case.op == "QConv")
    model = ir.from_proto(forms.model(case))
    (node,) = model.graph
    value = node.inputs[0]
    assert value is not None
    value.shape = ir.Shape((1, 2))
    model.graph.outputs[0].shape = None
    found = onnxcompress.inspect(model)
    assert any("shapes cannot be inferred" in note for note in found.notes)
    assert found.unknown_macs == 1


def test_differences_of_a_lowered_model_are_told(made: Lowered) -> None:
    found = onnxcompress.diff(made.source, made.model, data=list(made.feeds[:2]))
    assert found.operators.keys() & {f"{DOMAIN}::{op}" for op in OPS}
    assert found.a.nodes == len(list(made.source.graph)) and found.b.nodes == len(list(made.model.graph))
    assert found.layers
    output = made.source.graph.outputs[0].name
    (last,) = (layer for layer in found.layers if layer.name == output)
    assert last.cosine is not None and last.cosine > 0.9
    assert any("of what they compute only floats are compared" in note for note in found.notes)
    assert onnxcompress.diff(made.model, made.model).same
