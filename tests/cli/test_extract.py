"""`onnxcompress extract`."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import onnx.parser
import pytest
from click.testing import CliRunner, Result

from onnxcompress.cli import main

TEXT = """<ir_version: 10, opset_import: ["": 21]> g (float[N,2] x, float[N,2] z) => (float[N,2] y)
<float[2,2] w = {1,2,3,4}> { h = MatMul(x, w) r = Relu(h) s = Add(r, z) y = Neg(s) }"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.onnx"
    onnx.save(onnx.parser.parse_model(TEXT), path)
    return path


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["extract", *map(str, arguments)])


@pytest.mark.parametrize("inputs", [["--inputs", "h,z"], ["--inputs", "h", "--inputs", "z"]])
def test_writes_the_part(model: Path, tmp_path: Path, inputs: list[str]) -> None:
    result = invoke(model, "-o", tmp_path / "part.onnx", *inputs, "--outputs", "s", "--json")
    assert result.exit_code == 0
    assert json.loads(result.output)["nodes"] == 2
    part = onnx.load(tmp_path / "part.onnx")
    onnx.checker.check_model(part, full_check=True)
    assert [node.op_type for node in part.graph.node] == ["Relu", "Add"]


def test_shape_fixes_the_new_inputs(model: Path, tmp_path: Path) -> None:
    invoke(model, "-o", tmp_path / "part.onnx", "--inputs", "h", "--outputs", "r", "--shape", "x=5,2")
    (value,) = onnx.load(tmp_path / "part.onnx").graph.input
    assert [dim.dim_value for dim in value.type.tensor_type.shape.dim] == [5, 2]


def test_refusal_writes_nothing(model: Path, tmp_path: Path) -> None:
    result = invoke(model, "-o", tmp_path / "part.onnx", "--inputs", "h", "--outputs", "y")
    assert result.exit_code == 1
    assert result.output == "error: 'y' also needs 'z': add it to the inputs\n"
    assert not (tmp_path / "part.onnx").exists()


def test_outputs_are_required(model: Path, tmp_path: Path) -> None:
    assert invoke(model, "-o", tmp_path / "part.onnx", "--inputs", "h").exit_code == 2
