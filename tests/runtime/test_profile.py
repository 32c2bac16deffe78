"""Times by node, under the names that the model gives."""

from __future__ import annotations

import resource
import signal
import tempfile
from pathlib import Path

import onnx_ir as ir
import pytest

from onnxcompress.errors import CompressError
from onnxcompress.runtime.profile import profile, time_of
from tests.models import images, wide_cnn


@pytest.fixture(scope="module")
def times() -> dict[str, float]:
    return profile(wide_cnn(), images(2, 32), runs=3)


def test_compute_nodes_are_found_by_their_names(times: dict[str, float]) -> None:
    nodes = {node.name: node for node in wide_cnn().graph}
    found = {name: time_of(nodes[name], times) for name in ("c1", "c2", "c3", "fc")}
    assert all(value is not None and value >= 0 for value in found.values()), times
    assert max(found, key=lambda name: found[name] or 0) in ("c2", "c3"), "21 times the work of c1"


def test_a_kernel_named_after_an_output_or_an_activation_is_found() -> None:
    node = next(node for node in wide_cnn().graph if node.name == "c1")
    assert time_of(node, {"a": 1.0}) == 1.0
    assert time_of(node, {"r": 2.0}) == 2.0
    assert time_of(node, {"c2": 2.0}) is None


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    text = '<ir_version: 10, opset_import: ["": 21]> g (float[N, 3, 4, 4] x) => (float[N, 3, 4, 4] y) { y = Relu(x) }'
    assert profile(ir.from_onnx_text(text), images(1, 4), runs=1)
    assert not [path for path in tmp_path.iterdir() if "onnxcompress" in path.name or path.suffix == ".json"]


def test_a_profile_that_is_cut_off_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime writes nothing more where the disk is full, and does not say so."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(CompressError, match="a profile cannot be written there: is the disk full"):
            profile(wide_cnn(), images(2, 32), runs=3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert not [path for path in tmp_path.iterdir() if "onnxcompress" in path.name]
