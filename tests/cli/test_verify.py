"""`onnxcompress verify`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import onnxcompress
from onnxcompress.model_io import save_model
from onnxcompress.verification import sizes
from tests.cli.commands import assert_fails, run
from tests.keys import pair
from tests.verification import broken
from tests.verification.conftest import run_here

FUNCTIONS = """
import numpy as np

def feeds():
    print("a word of the user's")
    rng = np.random.default_rng(0)
    return [{"x": rng.normal(size=(1, 32)).astype(np.float32)} for _ in range(6)]

def score(run):
    return 100 - float(np.abs(run(feeds()[0])[0]).sum())

def interrupted():
    raise KeyboardInterrupt
"""


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """An original, and a result whose outputs are half as large again."""
    monkeypatch.setattr(sizes, "run_apart", run_here)
    made = broken.too_loud()
    save_model(made.original, tmp_path / "original.onnx")
    save_model(made.result, tmp_path / "result.onnx")
    (tmp_path / "mine.py").write_text(FUNCTIONS)
    return tmp_path / "original.onnx", tmp_path / "result.onnx"


def data(models: tuple[Path, Path]) -> str:
    return f"{models[0].parent / 'mine.py'}:feeds"


def test_a_sound_result(models: tuple[Path, Path]) -> None:
    result = run("verify", models[0], models[0], "--data", data(models))
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["check", "measured", "limit", "outcome"]
    assert [line for line in lines[2:-1] if line and not line.startswith(" ")] == [
        "structure", "load", "clean data", "robustness", "consistency",
    ]  # fmt: skip
    assert lines[-1].startswith("verified (") and "0 failed" in lines[-1] and "6 feeds" in lines[-1]
    assert any(line.split()[:5] == ["cosine", "of", "y", "1", ">="] for line in lines)


def test_a_broken_result(models: tuple[Path, Path]) -> None:
    result = run("verify", *models, "--data", data(models))
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1].startswith("not verified: error of y (")
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("  error of y")]
    assert line.split() == ["error", "of", "y", "0.5", "<=", "0.3", "FAIL"]


def test_json(models: tuple[Path, Path]) -> None:
    result = run("verify", *models, "--data", data(models), "--json", "--seed", 5)
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert (document["schema"], document["passed"], document["seed"]) == (1, False, 5)
    assert (document["original"], document["result"]) == tuple(map(str, models))
    assert (document["feeds"], document["sampled"]) == (6, 6)
    (check,) = [check for check in document["checks"] if check["name"] == "error of y"]
    assert check["measured"] == pytest.approx(0.5, abs=1e-6)
    assert (check["section"], check["outcome"], check["bound"]) == ("clean data", "fail", "at most")
    assert check["limit"] == pytest.approx(0.3)
    assert {check["outcome"] for check in document["checks"]} == {"pass", "fail", "skipped"}


def test_a_score_and_its_bound(models: tuple[Path, Path]) -> None:
    arguments = [*models, "--data", data(models), "--eval", f"{models[0].parent / 'mine.py'}:score"]
    loose, strict = (run("verify", *arguments, "--max-drop", drop) for drop in ("0.5", "0"))
    assert "score score" in loose.stdout
    assert strict.exit_code == 1 and "not verified: score score" in strict.stdout


def test_tolerance(models: tuple[Path, Path]) -> None:
    result = run("verify", *models, "--data", data(models), "--tolerance", 0.1)
    assert ">= 0.9" in result.stdout and "<= 0.6708" in result.stdout


def test_notes_of_what_passes_are_told_on_demand(models: tuple[Path, Path]) -> None:
    arguments = ["verify", models[0], models[0], "--data", data(models)]
    assert "onnx.checker" not in run(*map(str, arguments)).stdout
    assert "onnx.checker" in run(*map(str, arguments), "-v").stdout


def test_signatures(models: tuple[Path, Path], tmp_path: Path) -> None:
    keys, others = pair(tmp_path, "key"), pair(tmp_path, "other")
    onnxcompress.sign(models[0], private_key=keys.private)
    signature = Path(f"{models[0]}.sig")
    assert run("verify", models[0], "--public-key", keys.public).exit_code == 0
    result = run("verify", models[0], "--signature", signature, "--public-key", keys.public)
    assert result.exit_code == 0 and result.stdout.splitlines()[2] == "signature"
    both = run("verify", models[0], models[0], "--data", data(models), "--public-key", keys.public)
    assert both.exit_code == 0, both.output
    wrong = run("verify", models[0], "--public-key", others.public)
    assert wrong.exit_code == 1 and "not verified: holds" in wrong.stdout
    unsigned = run("verify", models[1], "--public-key", keys.public)
    assert unsigned.exit_code == 1 and "result.onnx.sig" in unsigned.stdout


@pytest.mark.parametrize(("arguments", "message"), [
    ([], "give ORIGINAL RESULT --data DATA"),
    (["a", "b", "c"], "give ORIGINAL RESULT --data DATA"),
    (["a", "b"], "give --data"),
    (["a", "--data", "d"], "compare two models"),
    (["a", "--eval", "e.py:f", "--public-key", "k"], "compare two models"),
    (["a"], "--public-key"),
    (["a", "--signature", "s"], "--public-key"),
    (["a", "b", "--data", "d", "--signature", "s"], "--public-key"),
    (["a", "--public-key", "k", "--certificate", "c"], "whom to trust"),
    (["a", "--identity", "i"], "issuer"),
    (["a", "b", "--data", "d", "--tolerance", "2"], "--tolerance"),
    (["a", "b", "--data", "d", "--max-drop", "-1"], "--max-drop"),
])  # fmt: skip
def test_usage(arguments: list[str], message: str) -> None:
    assert_fails(run("verify", *arguments), message, code=2)


def test_errors_are_one_line(models: tuple[Path, Path], tmp_path: Path) -> None:
    assert_fails(
        run("verify", models[0], tmp_path / "absent.onnx", "--data", data(models)), "absent.onnx: no such file"
    )
    np.savez(tmp_path / "wrong.npz", y=np.zeros(3))
    assert_fails(run("verify", *models, "--data", tmp_path / "wrong.npz"), "wrong.npz")


def test_ctrl_c(models: tuple[Path, Path]) -> None:
    result = run("verify", *models, "--data", f"{models[0].parent / 'mine.py'}:interrupted")
    assert (result.exit_code, result.stderr.strip().splitlines()[-1]) == (130, "interrupted")
    assert result.stdout == ""
