"""Feeds that are run in a process of their own."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from onnxcompress.data import Feed
from onnxcompress.model_io import save_model
from onnxcompress.verification.apart import run_apart
from tests.passes.quantize.models import build
from tests.verification.broken import single_only, vectors

DIES = """
import os, signal
replace = os.replace
def fatal(source, target):
    if str(target).endswith("1.npz") and not os.path.exists("{marker}"):
        open("{marker}", "w").close()
        {death}
    replace(source, target)
os.replace = fatal
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    save_model(single_only(), path)
    return path


def rows(*counts: int) -> list[Feed]:
    return [{"x": np.ones((count, 32), np.float32)} for count in counts]


def test_what_is_run_and_what_is_refused(model: Path) -> None:
    first, second, third = run_apart(model, rows(1, 2, 1), ["y"])
    assert isinstance(first, list) and isinstance(third, list)
    np.testing.assert_array_equal(first[0], third[0])
    assert isinstance(second, str) and second.startswith("the model cannot run this feed")


@pytest.mark.parametrize(("death", "told"), [
    ("os.kill(os.getpid(), signal.SIGABRT)", "it ends the process (SIGABRT)"),
    ("os._exit(7)", "it ends the process (exit code 7)"),
])  # fmt: skip
def test_where_the_process_ends_the_next_one_goes_on(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, death: str, told: str
) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(DIES.format(marker=tmp_path / "died", death=death))
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    found = run_apart(model, vectors(4), ["y"])
    assert found[1] == told
    assert [isinstance(answer, list) for answer in found] == [True, False, True, True]


def test_strings(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    save_model(build("agraph (string[n] x) => (string[n] y) { y = Identity (x) }"), path)
    (found,) = run_apart(path, [{"x": np.array(["a", "bc"], dtype=object)}], ["y"])
    assert isinstance(found, list)
    assert found[0].tolist() == ["a", "bc"]
