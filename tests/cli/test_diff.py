"""`onnxcompress diff`."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import onnx.parser
import pytest
from click.testing import CliRunner, Result

from onnxcompress.cli import main

TEXT = """<ir_version: 10, opset_import: ["": 21]> g (float[N,2] x) => (float[N,2] y)
<float[2,2] w = {1,2,3,4}> { h = MatMul(x, w) y = Relu(h) }"""


@pytest.fixture
def models(tmp_path: Path) -> tuple[Path, Path]:
    a, b = tmp_path / "a.onnx", tmp_path / "b.onnx"
    onnx.save(onnx.parser.parse_model(TEXT), a)
    onnx.save(onnx.parser.parse_model(TEXT.replace("{1,2,3,4}", "{1,2,3,4.5}").replace("Relu", "Elu")), b)
    (tmp_path / "data.py").write_text(
        "import numpy as np\n\n\ndef feeds():\n    for k in range(3):\n"
        "        yield {'x': np.full((2, 2), k + 1, np.float32)}\n"
    )
    return a, b


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["diff", *map(str, arguments)])


def test_structure(models: tuple[Path, Path]) -> None:
    result = invoke(*models)
    assert result.exit_code == 0
    assert "w  float[2,2] (values)" in result.output
    assert ["Relu", "1", "0"] in [line.split() for line in result.output.splitlines()]
    assert "SNR" not in result.output


def test_layers(models: tuple[Path, Path]) -> None:
    data = f"{models[0].parent / 'data.py'}:feeds"
    document = json.loads(invoke(*models, "--data", data, "--json").output)
    assert document["samples"] == 3
    assert {layer["name"] for layer in document["layers"]} == {"h", "y"}
    # x is k in both columns: h is k * (4, 6), and k * (4, 6.5) in B.
    assert document["layers"][0]["max_abs_error"] == pytest.approx(1.5, rel=1e-5)
    assert "over 3 feeds, worst first" in invoke(*models, "--data", data).output


def test_same(models: tuple[Path, Path]) -> None:
    assert "the same operators" in invoke(models[0], models[0]).output


def test_bad_data(models: tuple[Path, Path]) -> None:
    result = invoke(*models, "--data", "nothing.npz")
    assert (result.exit_code, result.output.count("\n")) == (1, 1)
