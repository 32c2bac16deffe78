"""`onnxcompress prune` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from click.testing import Result

from tests.cli import commands
from tests.cli.commands import assert_fails, save_two_layers
from tests.passes.quantize.models import execute, normal, relative


def run(*arguments: object) -> Result:
    return commands.run("prune", *arguments)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_two_layers(tmp_path / "m.onnx")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    mix = normal(32, 32, seed=7)
    for index in range(4):
        np.savez(tmp_path / "data" / f"{index}.npz", x=normal(50, 32, seed=index) @ mix)
    return tmp_path / "data"


def difference(model: Path, output: Path) -> float:
    feed = {"x": normal(50, 32, seed=99) @ normal(32, 32, seed=7)}
    return relative(execute(ir.load(output), feed)[0], execute(ir.load(model), feed)[0])


def test_masks_print_sizes(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.onnx"
    result = run(model, "-o", out, "--pattern", "block4x4", "--sparsity", "0.5", "--shape", "x=1,32")
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0] == ["before", "after"]
    assert lines[1][0] == "bytes" and lines[1][2] == f"{out.stat().st_size:,}"
    assert lines[2] == ["parameters", "4,096", "4,096"]
    assert lines[3] == ["non-zero", "100.0%", "50.0%"]
    assert lines[4] == ["MACs", "4,096", "4,096"]
    assert len(lines) == 5


def test_data_brings_compensation(model: Path, data: Path, tmp_path: Path) -> None:
    errors = []
    for flags in (["--compensate"], [], ["--no-compensate"], ["--solver", "obs"]):
        out = tmp_path / "p.onnx"
        result = run(model, "-o", out, "--pattern", "2:4", "--data", data, *flags)
        assert result.exit_code == 0, result.output
        errors.append(difference(model, out))
    assert errors[0] == errors[1] < errors[3] < errors[2]


def test_explain_and_notes(model: Path, data: Path, tmp_path: Path) -> None:
    arguments = [model, "-o", tmp_path / "p.onnx", "--pattern", "2:4", "--data", data]
    result = run(*arguments, "--exclude", "first", "--explain")
    assert "second  MatMul  50.0% zero  output error" in result.stdout
    assert "first   MatMul  stays       excluded" in result.stdout
    assert "MACs" in result.stdout and "unknown" not in result.stdout  # shapes come from the data
    unknown = run(model, "-o", tmp_path / "p.onnx", "--pattern", "2:4")
    assert unknown.stdout.splitlines()[4].split() == ["MACs", "unknown", "unknown"]
    nothing = run(model, "-o", tmp_path / "p.onnx", "--pattern", "2:4", "--exclude", "*")
    assert nothing.exit_code == 0 and "note: nothing was pruned" in nothing.stderr


def test_channels_as_json(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.onnx"
    result = run(model, "-o", out, "--pattern", "channels", "--macs", "0.5", "--shape", "x=1,32", "--json")
    document = json.loads(result.stdout)
    assert document["after"]["macs"] <= 0.5 * document["before"]["macs"]
    assert document["after"]["bytes"] == out.stat().st_size < document["before"]["bytes"]
    ((name, group),) = document["groups"].items()
    assert group == {"units": 64, "kept": 32}
    assert any(line.startswith(name) and "keeps 32 of 64" in line for line in document["explanation"])
    assert execute(ir.load(out), {"x": normal(3, 32)})[0].shape == (3, 32)


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["--pattern", "2:4", "--macs", "0.5"], "macs is for the pattern channels", 2),
        (["--pattern", "channels", "--sparsity", "0.5"], "sparsity is for masks", 2),
        (["--pattern", "channels"], "needs macs", 2),
        (["--pattern", "block4x4"], "needs a sparsity", 2),
        (["--pattern", "diagonal"], "Invalid value for '--pattern'", 2),
        (["--pattern", "2:4", "--saliency", "wanda"], "the saliency wanda needs data", 2),
        (["--pattern", "2:4", "--compensate"], "compensation needs data", 2),
        ([], "Missing option '--pattern'", 2),
        (["--pattern", "2:4", "--exclude", "third"], "exclude 'third' matches no node", 1),
        (["--pattern", "channels", "--macs", "0.001"], "cutting all that can be cut leaves", 1),
    ],
)
def test_what_does_not_go_together(model: Path, tmp_path: Path, arguments: list[str], message: str, code: int) -> None:
    assert_fails(run(model, "-o", tmp_path / "p.onnx", *arguments), message, code)
    assert not (tmp_path / "p.onnx").exists()


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    assert_fails(run(tmp_path / "absent.onnx", "-o", tmp_path / "p.onnx", "--pattern", "2:4"), "no such file")
