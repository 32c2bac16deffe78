"""`onnxcompress calibrate` from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from click.testing import Result

from onnxcompress.calibration import Ranges, calibrate
from tests.calibration.models import MLP, feeds, parse
from tests.cli import commands
from tests.cli.commands import assert_fails


def run(*arguments: object) -> Result:
    return commands.run("calibrate", *arguments)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    ir.save(parse(MLP), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def folder(parent: Path, name: str, data: list[dict[str, Any]]) -> Path:
    (parent / name).mkdir()
    for index, feed in enumerate(data):
        np.savez(parent / name / f"{index:03}.npz", **feed)
    return parent / name


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy", "mse", "moving-average"])
def test_ranges_are_written_and_shown(method: str, model: Path, tmp_path: Path) -> None:
    data = feeds(5)
    result = run(model, "-o", tmp_path / "r.json", "--data", folder(tmp_path, "d", data), "--method", method)
    assert result.exit_code == 0, result.output
    assert Ranges.load(tmp_path / "r.json") == calibrate(parse(MLP), data, method=method)
    assert result.stdout.startswith(f"5 tensors over 5 samples ({method})")
    lines = result.stdout.splitlines()
    assert lines[2].split()[0] == "y"  # three times what comes before it: the widest


def test_json(model: Path, tmp_path: Path) -> None:
    data = folder(tmp_path, "d", feeds(5))
    result = run(model, "-o", tmp_path / "r.json", "--data", data, "--json", "--tensor", "h", "--tensor", "x")
    document = json.loads(result.stdout)
    ranges = Ranges.load(tmp_path / "r.json")
    assert document["samples"] == 5
    assert document["tensors"] == {name: list(ranges.interval(name)) for name in ("x", "h")}


def test_parts_are_merged(model: Path, tmp_path: Path) -> None:
    data = feeds(9)
    parts = [folder(tmp_path, f"d{i}", part) for i, part in enumerate((data[:2], data[2:6], data[6:]))]
    files = [tmp_path / f"{i}.json" for i in range(3)]
    options = ["--method", "percentile", "--percentile", "99"]
    assert run(model, "-o", files[0], "--data", parts[0], *options).exit_code == 0
    assert run(model, "-o", files[1], "--data", parts[1], *options).exit_code == 0
    merged = run(model, "-o", files[2], "--data", parts[2], *options, "--merge", files[0], "--merge", files[1])
    assert merged.exit_code == 0, merged.output
    whole = calibrate(parse(MLP), data, method="percentile", percentile=99)
    assert Ranges.load(files[2]) == whole


def test_files_alone_are_merged(model: Path, tmp_path: Path) -> None:
    data = feeds(4)
    for index in (0, 1):
        calibrate(model, data[2 * index : 2 * index + 2], method="mse").save(tmp_path / f"{index}.json")
    result = run(model, "-o", tmp_path / "r.json", "--merge", tmp_path / "0.json", "--merge", tmp_path / "1.json")
    assert result.exit_code == 0, result.output
    assert Ranges.load(tmp_path / "r.json") == calibrate(model, data, method="mse")


def test_usage_errors(model: Path, tmp_path: Path) -> None:
    assert_fails(run(model, "-o", tmp_path / "r.json"), "give --data, or --merge, or both", 2)
    assert_fails(run(model, "--data", "x.npz"), "Missing option '-o'", 2)
    assert_fails(run(model, "-o", tmp_path / "r.json", "--data", "x.npz", "--method", "median"), "median", 2)


def test_failures_are_one_line_and_write_nothing(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    data = folder(tmp_path, "d", feeds(2))
    bad = folder(tmp_path, "bad", [*feeds(1), {"x": np.full((1, 4), np.nan, np.float32)}])
    assert_fails(run(model, "-o", out, "--data", bad), "tensor 'x' holds NaN at sample 1")
    assert_fails(run(model, "-o", tmp_path / "no" / "r.json", "--data", data), "no such folder")
    assert_fails(run(model, "-o", out, "--data", data, "--tensor", "none"), "'none' is not in the model")
    assert_fails(run(model, "-o", out, "--data", data, "--merge", model), "m.onnx: not a file of ranges")
    assert_fails(run(model, "-o", out, "--data", data, "--method", "percentile", "--percentile", "3"), "percentile 3")
    assert_fails(run(tmp_path / "no.onnx", "-o", out, "--data", data), "no such file")
    assert not out.exists()


def test_what_cannot_be_merged_is_found_before_the_model_runs(model: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    source = tmp_path / "feeds.py"
    source.write_text(f"def make():\n    open({str(marker)!r}, 'w').close()\n    return []\n")
    other = parse(MLP.replace("0.1, -0.2", "0.1, -0.3"))
    calibrate(other, feeds(2)).save(tmp_path / "other.json")
    calibrate(model, feeds(2)).save(tmp_path / "minmax.json")
    arguments = [model, "-o", tmp_path / "r.json", "--data", f"{source}:make"]
    assert_fails(
        run(*arguments, "--merge", tmp_path / "other.json"),
        "other.json: these ranges were taken from another",
    )
    assert_fails(
        run(*arguments, "--merge", tmp_path / "minmax.json", "--method", "mse"),
        "minmax.json: ranges by minmax",
    )
    assert not marker.exists()
    assert_fails(run(*arguments), "no feeds")
    assert marker.exists()
