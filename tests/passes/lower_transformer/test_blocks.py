"""Whole blocks: which operators they become, and that they compute what the float model does, near enough."""

from __future__ import annotations

import math
import warnings

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxcompress.passes.lower.functions import replaced_nodes
from onnxcompress.passes.lower.transformer import LowerTransformers
from onnxcompress.runtime.library import library_path
from tests.passes.lower_transformer import encoders
from tests.passes.lower_transformer.encoders import SPLITS, lowered, ours, outputs, similarity

CLOSE = 0.998
"""Cosine to the float model; all of these reach 0.999, wrong heads or masks are below 0.99."""


@pytest.mark.parametrize("split", SPLITS)
def test_a_pre_norm_block_is_five_operators(split: str) -> None:
    feeds = encoders.vectors()
    made = lowered(encoders.pre_norm(split), feeds)
    names = [node.op_type for node in ours(made.native)]
    assert names == ["QLayerNorm", "QLinear", "QAttention", "QLinearLayerNorm", "QLinear", "QLinear"]
    assert len(made.native.graph) == len(names)
    carried = ours(made.native)[3]
    assert [bool(out.name) for out in carried.outputs] == [False, True, False, False, True]  # q, and the sum goes on
    float_outputs = outputs(made.prepared, feeds)
    assert similarity(outputs(made.native, feeds), float_outputs) > CLOSE
    assert similarity(outputs(made.native, feeds), outputs(made.quantized, feeds)) > CLOSE


@pytest.mark.parametrize("split", SPLITS)
def test_a_sentence_encoder_is_seven_operators(split: str) -> None:
    feeds = encoders.sentences()
    made = lowered(encoders.sentence_encoder(split), feeds)
    assert [node.op_type for node in made.native.graph] == [
        "EmbedLayerNorm", "QLinear", "QAttention", "QLinearLayerNorm", "QLinear", "QLinearLayerNorm", "MeanPool",
    ]  # fmt: skip
    assert ours(made.native)[2].inputs[4] is made.native.graph.inputs[1]  # the mask itself
    assert similarity(outputs(made.native, feeds), outputs(made.prepared, feeds)) > CLOSE


@pytest.mark.skipif(library_path() is None, reason="no library of kernels")
@pytest.mark.parametrize("name", ["pre_norm", "sentence_encoder"])
def test_kernels_agree_with_the_bodies(name: str) -> None:
    source, feeds = {
        "pre_norm": (encoders.pre_norm(), encoders.vectors()),
        "sentence_encoder": (encoders.sentence_encoder(), encoders.sentences()),
    }[name]
    made = lowered(source, feeds)
    assert similarity(outputs(made.native, feeds, native=True), outputs(made.native, feeds)) > 0.9995


def test_the_mask_counts() -> None:
    feeds = encoders.sentences(4)
    made = lowered(encoders.sentence_encoder(), feeds)
    changed = []
    for feed in feeds:
        ids = np.where(feed["mask"] == 1, feed["ids"], (feed["ids"] + 7) % encoders.WORDS)
        changed.append(feed | {"ids": ids})
    for a, b in zip(outputs(made.native, feeds), outputs(made.native, changed), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_the_second_linear_of_an_mlp_reads_rows_with_scales_of_their_own() -> None:
    feeds = encoders.vectors()
    float_outputs = outputs(encoders.pre_norm(), feeds)
    made = {way: lowered(encoders.pre_norm(), feeds, per_token=way) for way in ("mlp", ())}
    first, second = ours(made["mlp"].native)[4:]
    assert first.attributes.get_int("dynamic") == 1
    assert list(second.inputs[:3]) == [first.outputs[0], first.outputs[2], first.outputs[3]]
    assert not any(node.attributes.get_int("dynamic", 0) for node in ours(made[()].native))
    rows, fixed = (similarity(outputs(made[way].native, feeds), float_outputs) for way in ("mlp", ()))
    assert rows > fixed


def test_smoothing_divides_the_scale_and_adds_no_node() -> None:
    feeds = encoders.sentences()
    made = lowered(encoders.sentence_encoder(), feeds, smooth=0.6)
    assert any(node.op_type == "Mul" and "smooth" in (node.name or "") for node in made.quantized.graph)
    norm = ours(made.native)[3]
    assert norm.inputs[9] is not None and norm.inputs[9].shape == (encoders.WIDTH,)  # q_scale
    assert made.census["Mul"] == 0


def test_every_replaced_node_is_named_once() -> None:
    made = lowered(encoders.sentence_encoder(), encoders.sentences())
    named = [name for node in ours(made.native) for name in replaced_nodes(node)]
    assert len(named) == len(set(named))
    originals = {
        node.name for node in made.prepared.graph if node.op_type in ("MatMul", "Softmax", "LayerNormalization")
    }
    assert originals <= set(named)
    assert originals <= {d.name for d in made.decisions if d.quantized}


def test_a_lowered_model_is_valid_and_lowering_it_again_changes_nothing() -> None:
    made = lowered(encoders.pre_norm(), encoders.vectors())
    onnx.checker.check_model(ir.to_proto(made.native))
    assert not LowerTransformers({})(made.native).modified


def test_nodes_that_are_to_stay_stay() -> None:
    feeds = encoders.vectors(4)
    source = encoders.pre_norm()
    names = {node.op_type: node.name or "" for node in lowered(source, feeds).prepared.graph}
    made = lowered(source, feeds, standard=[names["Softmax"]])
    assert made.census["QAttention"] == 0 and made.census["Softmax"] == 1
    assert made.reasons()[names["Softmax"]] == "it is kept in standard operators"
    assert similarity(outputs(made.native, feeds), outputs(made.prepared, feeds)) > CLOSE


@pytest.mark.parametrize("norm_first", [False, True])
def test_the_encoder_layer_of_torch_is_five_operators(norm_first: bool) -> None:
    """Its attention puts the sequence first, and splits heads in a way of its own."""
    import torch

    torch.manual_seed(0)
    was = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    layer = torch.nn.TransformerEncoderLayer(24, 4, 40, batch_first=True, activation="gelu", norm_first=norm_first)
    dims = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                layer.eval(), (torch.randn(2, 7, 24),), opset_version=21, dynamo=True, optimize=False, verbose=False,
                dynamic_shapes=(dims,), input_names=["x"],
            )  # fmt: skip
    finally:
        torch.backends.mha.set_fastpath_enabled(was)
    assert program is not None
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.normal(size=(2, 5 + i % 3, 24)).astype(np.float32)} for i in range(8)]
    made = lowered(program.model, feeds)
    assert made.census["QAttention"] == 1 and sum(made.census.values()) == (6 if norm_first else 5)
    attention = next(node for node in ours(made.native) if node.op_type == "QAttention")
    assert math.isclose(attention.attributes.get_float("scale"), 6**-0.5, rel_tol=1e-5)
    assert similarity(outputs(made.native, feeds), outputs(made.prepared, feeds)) > CLOSE
