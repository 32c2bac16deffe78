"""`onnxcompress compress`: output clean, errors of one line, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import onnx_ir as ir
import pytest
from click.testing import CliRunner, Result

from onnxcompress.cli import main
from tests.models import small_cnn, wide_cnn

pytestmark = pytest.mark.usefixtures("quick")

FUNCTIONS = """
import numpy as np
def feeds():
    rng = np.random.default_rng(0)
    for _ in range(4):
        yield {"x": rng.normal(size=(1, 3, 32, 32)).astype(np.float32)}
def loud(run):
    print("LOUD")
    return float(run(next(feeds()))[0].sum())
def broken(run):
    raise ValueError("first line\\nsecond line")
def none(run):
    pass
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ir.save(wide_cnn(), tmp_path / "m.onnx")
    (tmp_path / "f.py").write_text(FUNCTIONS)
    return tmp_path


def invoke(folder: Path, *arguments: str) -> Result:
    command = ["compress", f"{folder}/m.onnx", "-o", f"{folder}/o.onnx", "--data", f"{folder}/f.py:feeds", *arguments]
    return CliRunner().invoke(main, command)


def test_the_table_tells_before_and_after(folder: Path) -> None:
    found = invoke(folder)
    assert found.exit_code == 0, found.output
    lines = found.stdout.splitlines()
    assert lines[0].split() == ["original", "result"]
    assert [line.split("  ")[0] for line in lines[1:4]] == ["size", "latency, 1 thread", "top1 of probabilities"]
    assert "(bound -1.00%)" in lines[3]
    assert "compute nodes run in int8" in found.stdout
    assert lines[-1].startswith(f"written to {folder}/o.onnx in ")
    assert "note: " not in found.stdout


def test_json_alone_is_on_stdout_whatever_the_users_functions_print(folder: Path) -> None:
    found = invoke(folder, "--json", "--eval", f"{folder}/f.py:loud", "--report", f"{folder}/r.json")
    document = json.loads(found.stdout, parse_constant=pytest.fail)
    assert document == json.loads((folder / "r.json").read_text())
    assert document["result"]["metric"]["name"] == "loud"
    assert "LOUD" in found.stderr


def test_quiet_is_quiet(folder: Path) -> None:
    assert invoke(folder, "-q").stderr == ""


def test_a_result_out_of_bounds_is_warned_of(folder: Path) -> None:
    (folder / "r.toml").write_text('schema = 1\nmode = "dynamic"\n')
    found = invoke(folder, "--recipe", f"{folder}/r.toml", "--metric", "cosine", "--max-drop", "0")
    assert found.exit_code == 0
    assert "warning: the result is below the accuracy bound" in found.stderr
    assert "(bound -0.00%)" in found.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--eval", "{0}/f.py:broken"], "error: --eval broken failed: ValueError: first line second line"),
        (["--eval", "{0}/f.py:none"], "error: --eval none gave None, not a number"),
        (["--eval", "{0}/missing.py:f"], "error: --eval: {0}/missing.py: no such file"),
        (["--data", "{0}/f.py:missing"], "error: --data: {0}/f.py has no function 'missing'"),
        (["--exclude", "nowhere"], "error: --exclude nowhere: no such node; see onnxcompress inspect --nodes"),
        (["--report", "{0}/none/r.json"], "error: {0}/none: no such folder; make it first"),
        (
            ["-o", "{0}/m.onnx"],
            "error: {0}/m.onnx: is the original model; give another path, or --in-place to replace it",
        ),
    ],
)
def test_failures_are_one_line_and_exit_1(folder: Path, arguments: list[str], message: str) -> None:
    found = invoke(folder, *[text.format(folder) for text in arguments])
    own, _, line = found.stderr.rstrip("\n").rpartition("\n")
    assert (found.exit_code, found.stdout, line) == (1, "", message.format(folder))
    assert (own == "") == ("--eval broken failed" not in message)
    assert not (folder / "o.onnx").exists()


@pytest.mark.parametrize("content", [b"", b"hello " * 40, "half"], ids=["empty", "text", "cut off"])
def test_files_that_are_no_models(folder: Path, content: bytes | str) -> None:
    whole = (folder / "m.onnx").read_bytes()
    (folder / "m.onnx").write_bytes(content if isinstance(content, bytes) else whole[: len(whole) // 2])
    found = invoke(folder)
    assert found.exit_code == 1
    assert found.stderr.count("\n") == 1 and f"{folder}/m.onnx: not a" in found.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--max-drop", "1.5"], ["--max-drop", "-0.1"], ["--threads", "0"], ["--budget", "0"], ["--metric", "accuracy"],
        ["--recipe", "none.toml"], ["--target", "tpu"],
    ],
)  # fmt: skip
def test_wrong_usage_exits_2(folder: Path, arguments: list[str]) -> None:
    assert invoke(folder, *arguments).exit_code == 2


def test_a_recipe_takes_no_exclusions(folder: Path) -> None:
    (folder / "r.toml").write_text('schema = 1\nmode = "float"\n')
    found = invoke(folder, "--recipe", f"{folder}/r.toml", "--exclude", "c1")
    assert found.exit_code == 2
    assert "--recipe holds its own exclusions" in found.stderr


def test_slower_and_unchanged_results_are_not_called_faster(folder: Path) -> None:
    ir.save(small_cnn(), folder / "m.onnx")
    (folder / "f.py").write_text(FUNCTIONS.replace("32, 32", "16, 16"))
    (folder / "r.toml").write_text('schema = 1\nmode = "original"\n')
    found = invoke(folder, "--recipe", f"{folder}/r.toml")
    assert "as fast" in found.stdout and "faster" not in found.stdout
