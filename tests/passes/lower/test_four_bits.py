"""Linear layers of quantized activations with weights of 4 bits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxcompress.ops.qlinear4 import unpack4
from onnxcompress.passes.lower.four_bits import UseFourBits, four_bits
from onnxcompress.passes.lower.functions import AttachFunctions
from onnxcompress.passes.simplify.editor import array_of
from onnxcompress.quantizer import quantize
from onnxcompress.runtime import open_session
from tests.ops import forms
from tests.ops.cases import ALL
from tests.ops.cases.case import Case
from tests.zoo import ZooModel

Array = np.ndarray[Any, Any]
_rng = np.random.default_rng(0)


def real(packed: Array, scale: Array, block_size: int) -> Array:
    """What QLinear4's weights mean, by its definition."""
    result: Array = (unpack4(packed).astype(np.float64) - 8) * np.repeat(scale.astype(np.float64), block_size, axis=1)
    return result


@pytest.mark.parametrize("block_size", [32, 64, 96])
def test_weights_are_rounded_within_their_blocks(block_size: int) -> None:
    w = _rng.normal(0, 1, (20, 192)).astype(np.float32)
    w[3, :32], w[4] = 0, 0
    packed, scale = four_bits(w, block_size)
    assert packed.shape == (20, 96)
    assert scale.shape == (20, 192 // block_size)
    error = np.abs(real(packed, scale, block_size) - w)
    largest = np.abs(w).reshape(20, -1, block_size).max(axis=-1)
    clipped = largest - 7 * scale  # of the largest weights, where a smaller scale has less error in all
    bound = np.repeat(np.maximum(scale / 2, clipped), block_size, axis=1)
    assert (error <= bound + 1e-6).all()
    assert not real(packed, scale, block_size)[4].any()


def test_no_plain_scale_is_better() -> None:
    w = _rng.standard_t(4, (64, 128)).astype(np.float32)
    packed, scale = four_bits(w, 32)
    plain = np.abs(w).reshape(64, -1, 32).max(axis=-1) / 7
    rounded = np.clip(np.rint(w.reshape(64, -1, 32) / plain[..., None]), -7, 7) * plain[..., None]
    assert np.square(real(packed, scale, 32) - w).sum() < 0.97 * np.square(rounded.reshape(w.shape) - w).sum()


def case_of(op: str, inputs: int, **attributes: Any) -> Case:
    """The first case of an operator whose weight has a multiple of so many inputs."""
    for case in ALL:
        w = case.inputs[3] if len(case.inputs) > 3 else None
        plain = all(case.attributes.get(name, value) == value for name, value in attributes.items())
        if case.op == op and w is not None and w.size and w.shape[1] % inputs == 0 and plain and not case.skip:
            return case
    raise AssertionError(f"no case of {op}")


@pytest.mark.parametrize("op", ["QLinear", "QLinearLayerNorm"])
def test_the_layer_computes_with_the_rounded_weights(op: str) -> None:
    """Against the 8-bit operator's own reference, given the 4-bit weights as wide floats: within one step."""
    case = case_of(op, 32, dynamic=0)
    model = ir.from_proto(forms.model(case))
    step = UseFourBits(32)
    step(model)
    AttachFunctions()(model)
    assert [decision.quantized for decision in step.decisions] == [True]
    linear = next(node for node in model.graph if node.op_type == "QLinear4")
    packed, scale = (array_of(linear.inputs[i]) for i in (3, 4))
    assert packed is not None
    assert scale is not None
    exact = [real(packed, scale, 32) if i == 3 else x for i, x in enumerate(case.inputs)]
    exact[4] = np.ones(1, np.float32)
    expected = forms.reference(replace(case, inputs=exact))
    session = open_session(model, threads=1)
    feed = {value.name: case.inputs[int(value.name[1:])] for value in session.get_inputs()}
    got = dict(zip(case.outputs, session.run(list(case.outputs), feed), strict=True))
    assert set(got) == set(expected)
    for name, value in expected.items():
        atol = 1 if value.dtype == np.uint8 else 1e-3 * np.abs(value).max()
        np.testing.assert_allclose(got[name].astype(np.float64), value.astype(np.float64), rtol=0, atol=atol)


def test_a_real_encoder_takes_four_bits(zoo: Callable[[str], ZooModel]) -> None:
    """All but the layers whose results have a scale for each row; `tests/test_zoo_quantize.py` has the accuracy."""
    model = zoo("minilm")
    result = quantize(model.path(), data=model.feeds(4), method="minmax", weights="int4", threads=1)
    counts = Counter(node.op_type for node in result.model.graph)
    assert (counts["QLinear4"], counts["QLayerNorm"], counts["QLinear"], counts["QLinearLayerNorm"]) == (18, 12, 6, 0)
    assert all(n.attributes.get_int("dynamic", 0) for n in result.model.graph if n.op_type == "QLinear")
    assert sum("4-bit weights" in decision.reason for decision in result.decisions) >= 18
    assert "18 linear layers take 4-bit weights, the others 8; --explain says why" in result.notes


@pytest.mark.parametrize("size", [0, 16, 33, -32])
def test_other_block_sizes_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match="a multiple of 4 inputs from 32 on"):
        UseFourBits(size)


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (case_of("QLinear", 32, dynamic=1), "a scale for each row"),
        (case_of("QLinear", 1), "no blocks of"),
    ],
)
def test_what_keeps_its_bits_says_why(case: Case, reason: str) -> None:
    model = ir.from_proto(forms.model(case))
    step = UseFourBits(32)
    assert not step(model).modified
    assert [reason in decision.reason for decision in step.decisions] == [True]
