"""`onnxcompress optimize`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from onnxcompress.cli.optimize import command
from onnxcompress.model_io import load_model, save_model
from tests.passes.simplify.models import ops, parse


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "m.onnx"
    body = "g (float[n,4] x) => (float[n,4] y) { i = Identity(x)\n a = Relu(i)\n y = Relu(a) }"
    save_model(parse(body, opset=17, ir_version=8), path)
    return str(path)


def test_it_prints_before_and_after(model: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(command, [model, "-o", str(tmp_path / "o.onnx"), "-v"])
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[1].split() == ["nodes", "3", "1"]
    assert lines[2].split()[0] == "bytes"
    assert "1 x identity" in result.stderr and "1 x convert to opset 21" in result.stderr
    assert ops(load_model(tmp_path / "o.onnx")) == {"Relu": 1}


def test_json(model: str, tmp_path: Path) -> None:
    options = ["--json", "--opset", "18", "--portable", "--fix-shape", "x=2,4"]
    result = CliRunner().invoke(command, [model, "-o", str(tmp_path / "o.onnx"), *options])
    document = json.loads(result.stdout)
    assert (document["nodes_before"], document["nodes_after"]) == (3, 1)
    assert document["bytes_after"] == (tmp_path / "o.onnx").stat().st_size
    written = load_model(tmp_path / "o.onnx")
    assert written.graph.opset_imports[""] == 18
    assert list(written.graph.inputs[0].shape or ()) == [2, 4]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--opset", "99"], 2, "7<=x<=25"),
        (["--fix-shape", "x"], 2, "is not NAME=1,3,224,224"),
        (["--fix-shape", "z=1,4"], 1, "error: the model has no input 'z'"),
    ],
)
def test_wrong_options(model: str, tmp_path: Path, options: list[str], code: int, message: str) -> None:
    result = CliRunner().invoke(command, [model, "-o", str(tmp_path / "o.onnx"), *options])
    assert result.exit_code == code
    assert message in result.stderr
    assert not (tmp_path / "o.onnx").exists()


def test_no_such_model(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, [str(tmp_path / "no.onnx"), "-o", str(tmp_path / "o.onnx")])
    assert result.exit_code == 1 and "no such file" in result.stderr
