"""Which tensors are observed, and which are masks."""

from __future__ import annotations

import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from onnxcompress.calibration.taps import computed_values, only_masks, select
from onnxcompress.errors import CalibrationError


def parse(text: str) -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model('<ir_version: 10, opset_import: ["" : 21]>\n' + text))


CONSTANTS = parse("""
    g (float[2, N] x, float[2] overridden) => (float[2, N] y)
    <float[1] w = {2.0}, float[2] overridden = {1.0, 1.0}> {
        c = Constant <value_float: float = 1.0> ()
        folded = Add (c, w)
        shape = Shape (x)
        scaled = Mul (x, folded)
        y = Relu (scaled)
        noise = RandomNormal <shape: ints = [2]> ()
    }""")


def test_constants_and_what_follows_from_them_are_not_computed() -> None:
    assert list(computed_values(CONSTANTS.graph)) == ["x", "shape", "scaled", "y", "noise"]


def test_what_a_subgraph_takes_from_outside_counts() -> None:
    model = parse("""
        g (float[2] x) => (float[2] y)
        <bool yes = {1}> {
            inner = Neg (x)
            y = If (yes) <
                then_branch = a () => (float[2] t) { t = Relu (inner) },
                else_branch = b () => (float[2] e) { e = Identity (inner) }
            >
            constant = If (yes) <
                then_branch = a () => (float c) { c = Constant <value_float: float = 1.0> () },
                else_branch = b () => (float d) { d = Constant <value_float: float = 2.0> () }
            >
        }""")
    assert list(computed_values(model.graph)) == ["x", "inner", "y"]


def test_selected_names_come_in_graph_order() -> None:
    assert select(CONSTANTS, {"y", "x", "scaled"}) == ["x", "scaled", "y"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("absent", "is not in the model's main graph"),
        ("folded", "is a constant"),
        ("w", "is a constant"),
        ("overridden", "is a constant"),
    ],
)
def test_what_cannot_be_observed_is_named(name: str, reason: str) -> None:
    with pytest.raises(CalibrationError, match=f"tensor '{name}' {reason}"):
        select(CONSTANTS, ["x", name])


def test_masks_end_in_softmax_alone() -> None:
    model = parse("""
        g (float[2, 4] x, bool[2, 4] allowed, int64[2] shape) => (float[2, 4] y, float[2, 4] other)
        <float none = {0.0}, float never = {-1e30}> {
            mask = Where (allowed, none, never)
            reshaped = Reshape (mask, shape)
            scores = Add (x, reshaped)
            p = Softmax <axis = -1> (scores)
            y = Neg (p)
            leaking = Add (x, none)
            leaked = Softmax (leaking)
            other = Mul (leaking, leaked)
        }""")
    values = computed_values(model.graph)
    assert {name for name, value in values.items() if only_masks(value)} == {
        "allowed", "shape", "mask", "reshaped", "scores",
    }  # fmt: skip


def test_an_attention_takes_a_mask_but_its_query_is_none() -> None:
    model = parse("""
        g (float[1, 4, 8] q, float[1, 4, 8] k, float[1, 4, 8] v, float[4, 4] mask) => (float[1, 4, 8] y) {
            bias = Neg (mask)
            query = Neg (q)
            y = Attention <q_num_heads = 2, kv_num_heads = 2> (query, k, v, bias)
        }""")
    values = computed_values(model.graph)
    assert only_masks(values["bias"])
    assert not only_masks(values["query"])
