"""Times per node that are kept between runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnxcompress.runtime import library, timings
from onnxcompress.runtime.profile import profile
from tests.models import images, small_cnn


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ONNXCOMPRESS_CACHE", str(tmp_path / "times"))
    return tmp_path / "times"


def _count(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls = [0]
    measure = profile

    def counted(*args: object, **kwargs: object) -> dict[str, float]:
        calls[0] += 1
        return measure(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(timings, "profile", counted)
    return calls


def test_a_structure_is_measured_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _count(monkeypatch)
    model, feeds = small_cnn(), images(2)
    first = timings.node_times(model, feeds, runs=2)
    again = timings.node_times(model, feeds, runs=2)
    assert first and again == first and calls[0] == 1
    assert len(list(cache.glob("*.json"))) == 1


def test_other_weights_have_the_same_times_and_other_shapes_or_libraries_have_not(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = _count(monkeypatch)
    model, feeds = small_cnn(), images(1)
    timings.node_times(model, feeds, runs=1)
    weight = model.graph.initializers["w1"]
    assert weight.const_value is not None
    weight.const_value = ir.tensor(weight.const_value.numpy() * 2, name="w1")
    timings.node_times(model, feeds, runs=1)
    assert calls[0] == 1
    timings.node_times(model, feeds, runs=1, threads=2)
    assert calls[0] == 2
    monkeypatch.setattr(library, "instruction_set", lambda: "another")
    timings.node_times(model, feeds, runs=1)
    assert calls[0] == 3


def test_a_broken_cache_is_measured_anew(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, feeds = small_cnn(), images(1)
    first = timings.node_times(model, feeds, runs=1)
    (path,) = cache.glob("*.json")
    path.write_text("{")
    assert timings.node_times(model, feeds, runs=1).keys() == first.keys()
    monkeypatch.setenv("ONNXCOMPRESS_CACHE", "/proc/nowhere")
    assert timings.node_times(model, feeds, runs=1).keys() == first.keys()
    assert all(np.isfinite(ms) for ms in first.values())
