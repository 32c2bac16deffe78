"""The bench command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from click.testing import CliRunner, Result

from onnxcompress.cli import main
from onnxcompress.progress import Progress
from onnxcompress.runtime import library, operators
from onnxcompress.runtime.operators import OperatorTimes


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    text = '<ir_version: 10, opset_import: ["": 21]> g (float[n, 4] x) => (float[n, 4] y) { y = Relu(x) }'
    onnx.save(onnx.parser.parse_model(text), path)
    return path


def bench(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["bench", *map(str, arguments)])


def test_table(model: Path) -> None:
    result = bench(model, model, "--shape", "x=2,4", "--rounds", 1, "--runs", 3)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0].split("  ")[-1] == "file MB"
    assert lines[0].split()[:3] == ["model", "median", "ms"]
    assert [line.split()[0] for line in lines[2:4]] == ["model.onnx", "model.onnx"]
    assert lines[2].split()[3] == "1.00x"
    assert len({len(line) for line in lines[:4]}) == 1
    assert lines[4] == "1 thread, 1 round in turn of 3 runs"


def test_json_and_data(model: Path) -> None:
    np.savez(model.with_name("feed.npz"), x=np.ones((3, 4), np.float32))
    result = bench(
        model, "--data", model.with_name("feed.npz"), "--json", "--threads", 2, "--rounds", 2, "--runs", 3
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    document = json.loads(result.output)
    assert document["schema"] == 1
    (entry,) = document["models"]
    assert entry["path"] == str(model)
    assert entry["bytes"] == model.stat().st_size
    assert entry["speedup"] == {"median": 1.0, "least": 1.0}
    assert entry["latency"].keys() == {"threads", "rounds", "runs", "median_ms", "least_ms"}
    assert (entry["latency"]["threads"], entry["latency"]["rounds"], entry["latency"]["runs"]) == (2, 2, 3)
    assert 0 < entry["latency"]["least_ms"] <= entry["latency"]["median_ms"]


def test_a_model_that_does_not_open(model: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    result = bench(model, tmp_path / "broken.onnx", "--shape", "x=2,4")
    assert result.exit_code == 1
    assert result.output.startswith(f"error: {tmp_path}/broken.onnx: ")
    assert result.output.count("\n") == 1


@pytest.mark.parametrize(("options", "code"), [
    ([], 1),
    (["--shape", "z=2,4"], 1),
    (["--data", "absent.npz"], 1),
    (["--rounds", "0"], 2),
    (["--runs", "0"], 2),
    (["--threads", "-1"], 2),
    (["--shape", "x"], 2),
])  # fmt: skip
def test_failures(model: Path, options: list[str], code: int) -> None:
    assert bench(model, *options).exit_code == code


def test_no_model_is_a_usage_error() -> None:
    assert bench().exit_code == 2


def test_a_model_with_ops_is_a_usage_error(model: Path) -> None:
    result = bench("--ops", model)
    assert result.exit_code == 2
    assert "--ops times operators, no MODEL" in result.output


TIMES = OperatorTimes("QLinear", "1x2x3", 0.0, 0.4, 0.2, 0.1, 12.0, 0.5)


def test_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def timed(threads: int, progress: Progress) -> list[OperatorTimes]:
        asked.append(threads)
        return [TIMES]

    monkeypatch.setattr(operators, "bench_operators", timed)
    result = bench("--ops", "--threads", 2)
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[2].split()[:2] == ["QLinear", "1x2x3"]
    document = json.loads(bench("--ops", "--json", "--threads", 0).output)
    assert document == {"schema": 1, "operators": [TIMES.as_dict()]}
    assert document["operators"][0]["speedup_over_float"] == 4.0
    assert asked == [2, 1]


def test_operators_without_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "library_path", lambda: None)
    result = bench("--ops")
    assert (result.exit_code, result.output.count("\n")) == (1, 1)
    assert result.output.startswith("error: there are no native operators to time")
