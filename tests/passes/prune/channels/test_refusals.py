"""What cannot be cut is refused, with the reason; nothing that is refused is ever half cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxcompress.passes.prune.channels import PruneChannels, find_groups
from onnxcompress.passes.prune.channels.operators import OPERATORS
from tests.passes.prune.channels.networks import Array, build

HEAD = "(float[N, 3, 8, 8] x) => (float[N, M, H, W] y) { [c1] a = Conv (x, w1)"
CHANNELS: dict[str, tuple[int, ...]] = {"w1": (8, 3, 1, 1), "w2": (4, 8, 1, 1)}

REFUSED: dict[str, tuple[str, dict[str, tuple[int, ...]], dict[str, Sequence[int] | Array], str]] = {
    "output": (HEAD + " y = Relu (a) }", {"w1": (8, 3, 1, 1)}, {}, "the model's output 'y'"),
    "softmax over channels": (
        HEAD + "[s] b = Softmax <axis = 1> (a) y = Conv (b, w2) }", CHANNELS, {}, "s (Softmax) runs over it",
    ),
    "mean over channels": (
        HEAD + "[m] b = ReduceMean (a, one) c = Mul (a, b) y = Conv (c, w2) }", CHANNELS, {"one": [1]},
        "m (ReduceMean) reduces it",
    ),
    "channels picked by number": (
        HEAD + "[g] b = Gather <axis = 1> (a, order) y = Conv (b, w2) }", CHANNELS, {"order": [1, 0, 2, 3, 4, 5, 6, 7]},
        "g (Gather) picks its positions by number",
    ),
    "every other channel": (
        HEAD + "[s] b = Slice (a, zero, far, one, two) y = Conv (b, w3) }", {"w1": (8, 3, 1, 1), "w3": (4, 4, 1, 1)},
        {"zero": [0], "far": [99], "one": [1], "two": [2]}, "s (Slice) parts it where it cannot be parted",
    ),
    "local response": (
        HEAD + "[l] b = LRN <size = 3> (a) y = Conv (b, w2) }", CHANNELS, {}, "l (LRN) takes its statistics over it",
    ),
    "an operator that is not known": (
        HEAD + "[t] v, i = TopK <axis = 1> (a, k) y = Conv (v, w2) }", CHANNELS, {"k": [8]}, "t (TopK) is not followed",
    ),
    "arithmetic on the size": (
        HEAD + "[s] n = Shape <start = 1, end = 2> (a) [f] m = Cast <to = 1> (n) [d] b = Div (a, m) y = Conv (b, w2) }",
        CHANNELS, {}, "d (Div) computes with its size",
    ),
    "regrouped across channels": (
        HEAD + " [r] b = Reshape (a, odd) y = Conv (b, w3) }", {"w1": (6, 3, 1, 1), "w3": (4, 4, 1, 1)},
        {"odd": [-1, 4, 96, 1]}, "axes that are coupled are cut into pieces that do not fit each other",
    ),
    "a target that is computed": (
        "(float[N, 3, 8, 8] x, int64[4] shape) => (float[N, M, H, W] y) { [c1] a = Conv (x, w1)"
        "[r] b = Reshape (a, shape) y = Conv (b, w2) }",
        CHANNELS, {}, "r (Reshape) has a target that is not followed",
    ),
    "repeated": (
        HEAD + "[t] b = Tile (a, twice) y = Conv (b, w3) }", {"w1": (8, 3, 1, 1), "w3": (4, 16, 1, 1)},
        {"twice": [1, 2, 1, 1]}, "t (Tile) repeats it",
    ),
    "padded with its own edge": (
        HEAD + '[p] b = Pad <mode = "edge"> (a, pads) y = Conv (b, w3) }', {"w1": (8, 3, 1, 1), "w3": (4, 9, 1, 1)},
        {"pads": [0, 1, 0, 0, 0, 0, 0, 0]}, "p (Pad) pads it",
    ),
    "training": (
        HEAD + "[b] b, m, v = BatchNormalization <training_mode = 1> (a, s, s, s, s) y = Conv (b, w2) }",
        {**CHANNELS, "s": (8,)}, {}, "b (BatchNormalization) is not followed",
    ),
    "added to an axis that may be 1": (
        "(float[N, 3, 8, 8] x, float[N, C, 1, 1] z) => (float[N, M, H, W] y) { [c1] a = Conv (x, w1)"
        "[s] b = Add (a, z) y = Conv (b, w2) }",
        CHANNELS, {}, "s (Add) may broadcast it: the size of the axis that it meets is not known",
    ),
    "read by a subgraph": (
        HEAD + """ c = ReduceMax <keepdims = 0> (x) d = Cast <to = 9> (c)
        [if] b = If (d) <
            then_branch = t () => (float[N, 8, 8, 8] p) { p = Relu (a) },
            else_branch = e () => (float[N, 8, 8, 8] q) { q = Neg (a) }> y = Conv (b, w2) }""",
        CHANNELS, {}, "a subgraph of if (If) reads it",
    ),
    "pooling that tells where": (
        HEAD + "[p] b, i = MaxPool <kernel_shape = [1, 1]> (a) c = Cast <to = 1> (i) d = Add (b, c) y = Conv (d, w2) }",
        CHANNELS, {}, "p (MaxPool) is not followed",
    ),
    "split where heads are not": (
        HEAD + """ b = Reshape (a, apart) t = Transpose <perm = [0, 2, 1, 3]> (b) c = Reshape (t, together)
        [s] p, q = Split <axis = 1> (c, parts) y = Conv (p, w3) }""",
        {"w1": (8, 3, 1, 1), "w3": (4, 3, 1, 1)},
        {"apart": [0, 4, 2, -1], "together": [0, 8, 8, 8], "parts": [3, 5]},
        "s (Split) parts it where it cannot be parted",
    ),
    "expanded beyond what is known": (
        "(float[N, 3, 8, 8] x, int64[4] shape) => (float[N, M, H, W] y) { [c1] a = Conv (x, w1)"
        "[e] b = Expand (a, shape) y = Conv (b, w2) }",
        CHANNELS, {}, "e (Expand) has a target that is not followed",
    ),
    "summed by Einsum": (
        HEAD + '[e] b = Einsum <equation = "nchw->nhw"> (a) c = Unsqueeze (b, one) d = Add (c, a) y = Conv (d, w2) }',
        CHANNELS, {"one": [1]}, "e (Einsum) sums over it",
    ),
    "a running sum": (
        HEAD + "[s] b = CumSum (a, axis) y = Conv (b, w2) }", CHANNELS, {"axis": np.array(1, np.int64)},
        "s (CumSum) runs over it",
    ),
    "the greatest channel": (
        HEAD + "[m] b = ArgMax <axis = 1> (a) c = Cast <to = 1> (b) d = Mul (c, a) y = Conv (d, w2) }", CHANNELS, {},
        "m (ArgMax) reduces it",
    ),
    "joined along an axis of unknown size": (
        "(float[N, 3, 8, 8] x, float[N, C, 8, 8] z) => (float[N, M, H, W] y) { [c1] a = Conv (x, w1)"
        "[j] b = Concat <axis = 1> (a, z) y = Conv (b, w2) }",
        {"w1": (8, 3, 1, 1), "w2": (4, 9, 1, 1)}, {}, "j (Concat) joins it with an axis of unknown size",
    ),
    "its own outer product": (
        HEAD + """ g = GlobalAveragePool (a) r = Squeeze (g, last) u = Unsqueeze (r, two) v = Unsqueeze (r, one)
        m = Mul (u, v) f = Reshape (m, flat) [l] z = MatMul (f, w3) y = Reshape (z, image) }""",
        {"w1": (8, 3, 1, 1), "w3": (64, 4)},
        {"last": [2, 3], "two": [2], "one": [1], "flat": [0, 64], "image": [0, 1, 2, 2]},
        "an axis holds its pairs: cutting one position would cut a row and a column",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "weights", "constants", "reason"), REFUSED.values(), ids=list(REFUSED))
def test_a_group_is_refused_with_its_reason(
    text: str,
    weights: Mapping[str, tuple[int, ...]],
    constants: Mapping[str, Sequence[int] | Array],
    reason: str,
) -> None:
    model = build(text, weights, constants)
    groups, refused = find_groups(model)
    assert not [group for group in groups if any(member.initializer == "w1" for member in group.members)]
    reasons = [refusal.reason for refusal in refused if refusal.name == "c1"]
    assert reasons and all(found.startswith("its ") and reason in found for found in reasons)


def test_a_recurrent_layer_is_refused() -> None:
    model = build(
        """(float[S, N, 8] x) => (float[S, N, K] y) {
            [up] a = MatMul (x, w1)
            [lstm] b = LSTM <hidden_size = 5> (a, w, r)
            c = Squeeze (b, one)
            y = MatMul (c, w2)
        }""",
        {"w1": (8, 6), "w": (1, 20, 6), "r": (1, 20, 5), "w2": (5, 8)},
        {"one": [1]},
    )
    groups, refused = find_groups(model)
    assert groups == []
    assert (refused[0].name, refused[0].reason) == ("up", "its 6 neurons stay: lstm (LSTM) is not followed")


def test_a_weight_in_a_constant_node_is_refused() -> None:
    """Optimizing makes initializers of them; a model that was not optimized must not be cut on one side only."""
    model = build(
        """(float[N, 3, 8, 8] x) => (float[N, M, H, W] y) {
            [k] b = Constant <value_floats = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]> ()
            [c1] a = Conv (x, w1, b)
            y = Conv (a, w2)
        }""",
        CHANNELS,
    )
    groups, refused = find_groups(model)
    assert groups == []
    assert "k (Constant) is not followed" in refused[0].reason


def test_a_domain_that_is_not_the_standard_one_is_refused() -> None:
    proto = ir.to_proto(build(HEAD + " [r] b = Relu (a) y = Conv (b, w2) }", CHANNELS))
    proto.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    node = next(node for node in proto.graph.node if node.name == "r")
    node.domain, node.op_type = "com.microsoft", "QuickGelu"
    groups, refused = find_groups(ir.from_proto(proto))
    assert groups == []
    assert "r (QuickGelu) is not followed" in refused[0].reason


def test_inputs_and_outputs_are_never_cut() -> None:
    model = build("(float[N, 8] x) => (float[N, 8] y, float[N, 6] h) { [up] h = MatMul (x, w1) y = MatMul (h, w2) }",
                  {"w1": (8, 6), "w2": (6, 8)})  # fmt: skip
    groups, refused = find_groups(model)
    assert groups == []
    assert {refusal.reason for refusal in refused} == {
        "its 6 neurons stay: the model's output 'h'",
        "its 8 neurons stay: the model's output 'y'",
    }


def test_an_initializer_that_is_an_input_too_is_not_cut() -> None:
    proto = ir.to_proto(build(HEAD + " [r] b = Relu (a) y = Conv (b, w2) }", CHANNELS))
    proto.graph.input.append(onnx.helper.make_tensor_value_info("w2", onnx.TensorProto.FLOAT, [4, 8, 1, 1]))
    groups, refused = find_groups(ir.from_proto(proto))
    assert groups == []
    assert "the model's input 'w2'" in refused[0].reason


def test_tied_weights_are_cut_alike_and_equal_vectors_apart() -> None:
    text = """(float[N, 8] x) => (float[N, K] y) {
        [l1] a = MatMul (x, w1)
        aa = Add (a, shared)
        [l2] b = MatMul (aa, tied)
        bb = Add (b, shared)
        [l3] c = MatMul (bb, tied)
        [l4] y = MatMul (c, w2)
    }"""
    model = build(text, {"w1": (8, 6), "tied": (6, 6), "shared": (6,), "w2": (6, 8)})
    groups, _ = find_groups(model)
    # The tied matrix makes and reads the same units; one group runs through all of it.
    assert [(group.name, group.size) for group in groups] == [("l1", 6)]
    apart = text.replace("[l3] c = MatMul (bb, tied)", "[l3] c = MatMul (bb, other)").replace("tied", "free")
    model = build(apart, {"w1": (8, 6), "free": (6, 6), "other": (6, 6), "shared": (6,), "w2": (6, 8)})
    groups, _ = find_groups(model)
    assert [(group.name, group.size) for group in groups] == [("l1", 6), ("l2", 6), ("l3", 6)]
    PruneChannels({"l1": [0, 1], "l2": [3]})(model)
    biases = [node.inputs[1].const_value.numpy() for node in model.graph if node.op_type == "Add"]  # type: ignore[union-attr]
    assert [len(bias) for bias in biases] == [2, 1]


def test_no_name_in_the_table_is_misspelt() -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""}
    assert set(OPERATORS) <= known
    assert len(OPERATORS) > 90
