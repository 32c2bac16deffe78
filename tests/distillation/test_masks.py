"""Zeros that are masks, and zeros that are not."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import torch

from onnxcompress.distillation.masks import set_masks, zero_masks
from onnxcompress.torch import OnnxModule
from tests.distillation.graphs import graph
from tests.distillation.networks import pruned, untrained, weight_of
from tests.models import with_initializers


def test_pruned_weights_have_masks_where_they_are_zero() -> None:
    model = pruned(untrained(), 0.5)
    masks = zero_masks(model, OnnxModule(model))
    assert set(masks) == {"w2", "w3", "w4"}  # neither w1, which is dense, nor the biases, which are all zero
    for name, mask in masks.items():
        np.testing.assert_array_equal(mask.numpy(), weight_of(model, name) != 0)


def test_a_single_zero_is_no_mask() -> None:
    model = untrained()
    weight = weight_of(model, "w2").copy()
    weight[0, 0, 0, 0] = 0
    model.graph.initializers["w2"].const_value = ir.tensor(weight, name="w2")
    assert not zero_masks(model, OnnxModule(model))


def quantized(zeros: float, kind: type[np.int8] = np.int8) -> ir.Model:
    """A Gemm whose weight is integers under a DequantizeLinear, a share of them zero."""
    rng = np.random.default_rng(0)
    integers = rng.integers(1, 100, (8, 8)).astype(kind)
    integers.reshape(-1)[: round(64 * zeros)] = 0
    model = graph("(float[N, 8] x) => (float[N, 8] y)", "w = DequantizeLinear (q, s) y = Gemm (x, w)", s=())
    return with_initializers(model, {"q": integers})


def test_integers_round_to_zero_by_themselves() -> None:
    few, many = quantized(0.1), quantized(0.5)
    assert not zero_masks(few, OnnxModule(few))
    assert set(zero_masks(many, OnnxModule(many))) == {"q"}


def test_weights_that_are_quantized_while_training() -> None:
    """Float weights through QuantizeLinear and DequantizeLinear have the masks of their zeros."""
    model = graph(
        "(float[N, 8] x) => (float[N, 8] y)",
        "q = QuantizeLinear (w, s, z) v = DequantizeLinear (q, s, z) y = Gemm (x, v)", s=(), w=(8, 8),
    )  # fmt: skip
    weight = weight_of(model, "w").copy()
    weight[:, ::2] = 0
    model.graph.initializers["w"].const_value = ir.tensor(weight, name="w")
    model = with_initializers(model, {"z": np.array(0, np.int8)})
    masks = zero_masks(model, OnnxModule(model))
    np.testing.assert_array_equal(masks["w"].numpy(), weight != 0)


def test_masks_are_put_on() -> None:
    module = OnnxModule(untrained())
    mask = np.random.default_rng(0).random((24, 16, 3, 3)) < 0.5
    tensors = set_masks(module, {"w2": mask})
    assert tensors["w2"].dtype == torch.bool
    assert not module.weight("w2").detach().numpy()[~mask].any()
