"""Real networks, lowered: all convolutions become ours, and the outputs are those of the QDQ graph."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from onnxcompress.passes.lower.convolution import FoldFocus
from onnxcompress.recipe import Recipe, prepare
from onnxcompress.runtime import library
from tests.passes.lower.networks import NATIVE, lowered, quantized
from tests.passes.quantize.models import relative
from tests.zoo import ZooModel

Zoo = Callable[[str], ZooModel]

LOWERED = {
    "ppocr-cls": {"QConv": 35, "QSqueezeExcite": 9, "QPool": 2},
    "ppocr-det": {
        "QConv": 42, "QSqueezeExcite": 10, "QElementwise": 3, "QConvTranspose": 2, "QConcat": 1, "DequantizeNCHW": 1,
    },
    "ddddocr-det": {"QConv": 83, "QConcat": 13, "QPool": 3, "DequantizeNCHW": 6},
}  # fmt: skip


TOLERANCES = {"ppocr-det": 0.1, "ddddocr-det": 0.05}
"""Norm of the difference over the norm. ONNX Runtime itself, with and without its optimizations, differs by 0.045 and
0.03 on the QDQ graphs: every rounding to the other side is followed by others."""


@pytest.mark.parametrize("name", TOLERANCES)
@pytest.mark.parametrize("native", [False, True])
def test_whole_networks_are_lowered_and_hold(zoo: Zoo, name: str, native: bool) -> None:
    if native and library.library_path() is None:
        pytest.skip("no library of kernels here")
    feed = zoo(name).speed_feed()
    model = prepare(zoo(name).path(), Recipe(mode="static"))
    FoldFocus()(model)
    result = lowered(quantized(model, feed, NATIVE))
    assert result.ops == LOWERED[name]
    assert not set(result.others) & {"Conv", "ConvTranspose", "HardSwish", "QuickGelu", "Resize"}
    for expected, actual in zip(*result.outputs(feed, native=native), strict=True):
        assert np.isfinite(actual).all()
        assert relative(actual, expected) <= TOLERANCES[name]


def test_a_tiny_classifier_is_lowered_whole(zoo: Zoo) -> None:
    feed = zoo("ppocr-cls").speed_feed()
    result = lowered(quantized(prepare(zoo("ppocr-cls").path(), Recipe(mode="static")), feed, NATIVE))
    assert result.ops == LOWERED["ppocr-cls"]
    assert not set(result.others) & {"Conv", "HardSwish", "HardSigmoid", "Mul", "Add", "MaxPool", "GlobalAveragePool"}
    (probabilities,) = result.outputs(feed)[1]
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
