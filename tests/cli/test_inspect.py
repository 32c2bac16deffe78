"""`onnxcompress inspect`."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from click.testing import CliRunner, Result

from onnxcompress.cli import main
from tests.lowered import lowered_cnn


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.onnx"
    text = """<ir_version: 10, opset_import: ["": 21]> g (float[N,2] x) => (float[N,2] y)
    <float[2,2] w = {1,0,3,4}> { h = MatMul(x, w) y = Relu(h) }"""
    onnx.save(onnx.parser.parse_model(text), path)
    return path


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["inspect", *map(str, arguments)])


def test_summary(model: Path) -> None:
    result = invoke(model, "--shape", "x=8,2")
    assert result.exit_code == 0
    assert "MACs         32" in result.output
    assert "25.0% of the elements" in result.output
    assert "0 of 1 compute nodes" in result.output


def test_nodes(model: Path) -> None:
    lines = invoke(model, "--shape", "x=8,2", "--nodes").output.splitlines()
    assert lines[0].split() == ["node", "op", "output", "MACs", "params", "runs"]
    assert lines[1].split()[:5] == ["MatMul_0", "MatMul", "8,2", "32", "4"]
    assert len(lines) == 3


def test_one_node(model: Path) -> None:
    output = invoke(model, "--node", "h").output
    assert "float[N,2]" in output
    assert "unknown" in output
    row = output.splitlines()[-1].split()
    assert row[0] == "w"
    assert [float(word) for word in row[1:]] == pytest.approx([0, 4, 2, 1.581], rel=1e-3)


def test_json(model: Path) -> None:
    document = json.loads(invoke(model, "--shape", "x=8,2", "--json").output)
    assert (document["macs"], document["parameters"], len(document["nodes"])) == (32, 4, 2)
    document = json.loads(invoke(model, "--node", "MatMul_0", "--json").output)
    assert document["nodes"][0]["statistics"][0]["maximum"] == 4


def test_a_lowered_model(tmp_path: Path) -> None:
    made = lowered_cnn()
    path = tmp_path / "lowered.onnx"
    ir.save(made.model, path)
    assert "operators of onnxcompress for" in invoke(path).output
    lines = invoke(path, "--nodes", "--shape", "x=1,3,16,16").output.splitlines()
    assert sum(", for " in line for line in lines) >= 4
    assert len(lines) == 1 + len(list(made.model.graph))
    name = next(d.name for d in made.decisions if d.op == "Conv")
    output = invoke(path, "--node", name).output
    assert "onnxcompress::QConv" in output
    assert "replaces" in output and name in output
    assert "weight int8, activations uint8 static" in output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--shape", "q=1,2"], 1, "no input is named 'q'"),
        (["--shape", "x"], 2, "is not NAME=1,3,224,224"),
        (["--node", "zzz"], 1, "no node is named 'zzz'"),
    ],
)
def test_errors_are_one_line(model: Path, arguments: list[str], code: int, message: str) -> None:
    result = invoke(model, *arguments)
    assert result.exit_code == code
    assert message in result.output
    if code == 1:
        assert len(result.output.splitlines()) == 1


def test_no_such_file(tmp_path: Path) -> None:
    result = invoke(tmp_path / "none.onnx")
    assert (result.exit_code, "no such file" in result.output) == (1, True)
