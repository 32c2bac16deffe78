"""Every command takes a lowered model, or leaves it as it is and says so."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

import onnxcompress
from onnxcompress.inspection.inspector import count_operators
from onnxcompress.optimizer import Log, optimize
from onnxcompress.runtime import open_session
from tests.lowered import Lowered, lowered_cnn, lowered_encoder

MODES = ("static", "dynamic", "weight-only")


def test_operators_of_our_own_are_kept_with_their_bodies() -> None:
    made = lowered_cnn()
    result = optimize(made.model)
    assert count_operators(result) == count_operators(made.model)
    assert set(result.functions) == set(made.model.functions)
    assert [node.metadata_props for node in result.graph] == [node.metadata_props for node in made.model.graph]


@pytest.mark.parametrize("made", [lowered_cnn, lowered_encoder])
def test_a_lowered_model_becomes_portable_by_its_function_bodies(made: Callable[[], Lowered]) -> None:
    lowered = made()
    log = Log()
    result = optimize(lowered.model, portable=True, log=log)
    assert log.applied["InlineFunctions"] == 1
    assert not result.functions
    assert set(result.opset_imports) == {""}
    for feed in lowered.feeds[:2]:
        (expected,) = open_session(lowered.model, native=False).run(None, dict(feed))
        (actual,) = open_session(result, native=False).run(None, dict(feed))
        assert np.linalg.norm(actual - expected) <= 1e-5 * np.linalg.norm(expected)


def test_the_opset_stays_while_there_are_function_bodies() -> None:
    log = Log()
    assert optimize(lowered_cnn().model, opset=23, log=log).opset_imports[""] == 21
    assert log.notes == ["the opset stays as it is: the model has functions of another opset"]


@pytest.mark.parametrize("mode", MODES)
def test_it_is_not_quantized_again(mode: str) -> None:
    made = lowered_cnn()
    before = ir.to_proto(made.model).SerializeToString()
    data = list(made.feeds) if mode == "static" else None
    result = onnxcompress.quantize(made.model, mode=mode, data=data)  # type: ignore[arg-type]
    assert result.notes[0].startswith("the model is quantized already (3 QConv")
    assert ir.to_proto(result.model).SerializeToString() == before


def test_its_floats_are_calibrated() -> None:
    made = lowered_cnn()
    ranges = onnxcompress.calibrate(made.model, data=list(made.feeds))
    low, high = ranges.interval("x")
    assert low == min(feed["x"].min() for feed in made.feeds)
    assert high == max(feed["x"].max() for feed in made.feeds)
