"""`onnxcompress demo` as the README runs it."""

from __future__ import annotations

import json
from pathlib import Path

import onnxruntime as ort
import pytest
from click.testing import CliRunner

from onnxcompress import demonstration
from onnxcompress.cli import main


def test_the_demo_trains_compresses_and_proves_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demonstration, "EPOCHS", 2)  # enough to classify; the README's command runs all of it
    found = CliRunner().invoke(main, ["demo", "-o", str(tmp_path / "new")])
    assert found.exit_code == 0, found.output
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        "digits.onnx", "digits.int8.onnx", "digits.int8.onnx.recipe.toml", "report.json",
    }  # fmt: skip
    report = json.loads((tmp_path / "new" / "report.json").read_text())
    assert report["within_bound"]
    assert report["original"]["metric"]["value"] >= 0.9
    assert report["result"]["bytes"] < 0.5 * report["original"]["bytes"]
    assert report["speedup"]["median"] > 1
    ort.InferenceSession(str(tmp_path / "new" / "digits.int8.onnx"), providers=["CPUExecutionProvider"])


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = CliRunner().invoke(main, ["demo", "-o", str(tmp_path / "file" / "inside")])
    assert found.exit_code == 1
    assert found.stderr.startswith("error: ") and "cannot be made" in found.stderr
