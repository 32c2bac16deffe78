"""`onnxcompress doctor`."""

from __future__ import annotations

import dataclasses
import json

import pytest
from click.testing import CliRunner

from onnxcompress import environment as module
from onnxcompress.cli import main


def test_all_is_well() -> None:
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 0
    assert "CPUExecutionProvider works" in result.output
    assert "native library libonnxcompress" in result.output
    assert result.output.splitlines()[-1] == "all is well"


def test_broken_installation_exits_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = dataclasses.replace(module.environment(), errors=("onnxruntime cannot be imported: x",))
    monkeypatch.setattr(module, "environment", lambda: broken)
    result = CliRunner().invoke(main, ["doctor", "--json"])
    assert result.exit_code == 1
    assert json.loads(result.output)["errors"] == ["onnxruntime cannot be imported: x"]
