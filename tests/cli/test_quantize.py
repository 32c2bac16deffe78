"""`onnxcompress quantize` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from click.testing import Result

from onnxcompress.calibration import calibrate
from onnxcompress.model_io import save_model
from tests.cli import commands
from tests.cli.commands import assert_fails, save_two_layers
from tests.passes.quantize.models import execute, normal, ops, relative


def run(*arguments: object) -> Result:
    return commands.run("quantize", *arguments)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_two_layers(tmp_path / "m.onnx")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    for index in range(4):
        np.savez(tmp_path / "data" / f"{index}.npz", x=normal(5, 32, seed=index))
    return tmp_path / "data"


def difference(model: Path, output: Path) -> float:
    feed = {"x": normal(5, 32, seed=0)}
    return relative(execute(ir.load(output), feed, optimize=True)[0], execute(ir.load(model), feed)[0])


def test_static_prints_bytes_and_nodes(model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "q.onnx"
    result = run(model, "-o", out, "--data", data)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        f"bytes before    {model.stat().st_size:>16,}",
        f"bytes after     {out.stat().st_size:>16,}",
        f"quantized nodes {2:>16}",
        f"float nodes     {0:>16}",
    ]
    assert difference(model, out) < 0.05
    assert "MatMulIntegerToFloat" in ops(ir.load(out))


def test_explain_tells_each_node(model: Path, data: Path, tmp_path: Path) -> None:
    result = run(model, "-o", tmp_path / "q.onnx", "--data", data, "--explain", "--exclude", "sec*", "--portable")
    assert result.stdout.splitlines()[-2:] == [
        "first   MatMul  int8   int8",
        "second  MatMul  float  excluded by the user",
    ]
    assert "MatMulIntegerToFloat" not in ops(ir.load(tmp_path / "q.onnx"))


def test_json(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "q.onnx"
    result = run(model, "-o", out, "--mode", "weight-only", "--weights", "int4", "--block-size", 16, "--json")
    document = json.loads(result.stdout)
    assert document == {
        "output": str(out), "mode": "weight-only", "bytes_before": model.stat().st_size,
        "bytes_after": out.stat().st_size, "quantized": 2, "float": 0, "notes": [],
        "nodes": [
            {"name": name, "op": "MatMul", "quantized": True, "reason": "4 bits in blocks of 16 (MatMulNBits)"}
            for name in ("first", "second")
        ],
    }  # fmt: skip
    assert difference(model, out) < 0.2


def test_ranges_and_what_goes_with_data(model: Path, data: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "q.onnx", tmp_path / "d.onnx"
    feeds = [{"x": normal(5, 32, seed=index)} for index in range(4)]
    calibrate(model, feeds, method="mse").save(tmp_path / "r.json")
    assert run(model, "-o", out, "--ranges", tmp_path / "r.json").exit_code == 0
    assert run(model, "-o", other, "--data", data).exit_code == 0
    assert out.read_bytes() == other.read_bytes()
    options = ["--method", "minmax", "--activations", "u8", "--wide", "first", "--equalize", "--bias-correction"]
    result = run(model, "-o", out, "--data", data, *options, "--threads", 1)
    assert result.exit_code == 0, result.output
    assert "note: corrected the biases of 2 of 2 layers" in result.stderr
    assert difference(model, out) < 0.05
    assert run(model, "-o", out, "--mode", "dynamic").exit_code == 0
    assert difference(model, out) < 0.05
    assert run(model, "-o", out, "--mode", "dynamic", "--smooth", 0.5, "--data", data).exit_code == 0


def test_usage_errors(model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "q.onnx"
    assert_fails(run(model, "-o", out), "static quantization needs data to calibrate on, or ranges", 2)
    assert_fails(run(model, "--data", data), "give either -o PATH or --in-place", 2)
    assert_fails(run(model, "-o", out, "--mode", "dynamic", "--data", data), "takes no data", 2)
    four = ("--data", data, "--weights", "int4")
    assert_fails(run(model, "-o", out, *four, "--portable"), "an operator of ours, which portable leaves out", 2)
    assert_fails(run(model, "-o", out, "--data", data, "--activations", "s4"), "s4", 2)
    assert not out.exists()


def test_failures_are_one_line_and_write_nothing(model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "q.onnx"
    assert_fails(run(tmp_path / "no.onnx", "-o", out, "--data", data), "no such file")
    assert_fails(run(model, "-o", tmp_path / "no" / "q.onnx", "--data", data), "no such folder")
    assert_fails(run(model, "-o", out, "--data", tmp_path / "no.npz"), "no such file")
    assert_fails(run(model, "-o", out, "--ranges", model), "not a file of ranges")
    (tmp_path / "r.json").write_text("{}")
    assert_fails(run(model, "-o", tmp_path / "r.json", "--ranges", tmp_path / "r.json"), "is read as well")
    assert (tmp_path / "r.json").read_text() == "{}"
    assert_fails(run(model, "-o", out, "--data", data, "--exclude", "third"), "close to it: first")
    assert not out.exists()


def test_a_model_is_quantized_over_itself(model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.onnx"
    save_model(ir.load(model), copy, external_data=True)
    before = copy.read_bytes()
    assert_fails(run(copy, "-o", copy, "--mode", "weight-only"), "give another path, or --in-place to replace it")
    assert copy.read_bytes() == before
    assert_fails(run(copy, "-o", copy, "--in-place", "--mode", "weight-only"), "either -o PATH or --in-place", 2)
    (old,) = tmp_path.glob("copy.onnx.*.data")
    assert run(copy, "--in-place", "--mode", "weight-only").exit_code == 0
    assert copy.read_bytes() != before and not old.exists()
    assert difference(model, copy) < 0.02


def test_quantized_models_are_left_as_they_are(model: Path, tmp_path: Path) -> None:
    once, twice = tmp_path / "once.onnx", tmp_path / "twice.onnx"
    assert run(model, "-o", once, "--mode", "dynamic").exit_code == 0
    result = run(once, "-o", twice, "--mode", "weight-only")
    assert result.exit_code == 0 and "note: the model is quantized already" in result.stderr
    assert ops(ir.load(once)) == ops(ir.load(twice))


def test_gptq_takes_data(model: Path, data: Path, tmp_path: Path) -> None:
    arguments = [model, "-o", tmp_path / "q.onnx", "--mode", "weight-only", "--weights", "int4"]
    result = run(*arguments, "--gptq", "--data", data)
    assert result.exit_code == 0, result.output
    assert "note: rounded 2 weights by GPTQ" in result.stderr
    assert difference(model, tmp_path / "q.onnx") < 0.2
    assert_fails(run(*arguments, "--gptq"), "weight-only quantization with gptq needs data", 2)
    assert_fails(run(*arguments, "--data", data), "weight-only quantization takes no data (but with gptq)", 2)
