"""Exceptions that nobody foresaw, names that would steer the terminal, and errors in the user's own code."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from onnxcompress import optimizer
from onnxcompress.errors import CompressError
from onnxcompress.model_io import save_model
from tests.cli.commands import run
from tests.hostile.operators import written
from tests.models import small_cnn


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_model(small_cnn(), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_a_mistake_of_ours_is_owned_up_to(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise IndexError("list index\nout of range")

    monkeypatch.setattr(optimizer, "optimize", broken)
    result = run("optimize", model, "-o", model.with_name("o.onnx"))
    assert result.exit_code == 1
    assert result.stderr == (
        "error: a mistake of onnxcompress (IndexError: list index): please report it; -vv shows where it happened\n"
    )
    assert isinstance(run("optimize", model, "-o", model.with_name("o.onnx"), "-vv").exception, IndexError)


def test_a_model_that_breaks_a_rule_is_blamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise IndexError

    path = written("Conv", ["x"], {}, tmp_path)
    monkeypatch.setattr(optimizer, "optimize", broken)
    result = run("optimize", path, "-o", tmp_path / "o.onnx")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {path}: not a valid ONNX model: ")
    assert len(result.stderr.splitlines()) == 1


def test_what_is_to_be_overwritten_is_not_blamed(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise IndexError

    monkeypatch.setattr(optimizer, "optimize", broken)
    old = model.with_name("o.onnx")
    old.write_bytes(b"no model")
    assert "a mistake of onnxcompress" in run("optimize", model, "-o", old).stderr


@pytest.mark.parametrize(
    ("error", "said"), [(MemoryError(), "memory ran out"), (RecursionError("deep"), "nested too deeply")]
)
def test_memory_and_nesting(model: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, said: str) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(optimizer, "optimize", broken)
    result = run("optimize", model, "-o", model.with_name("o.onnx"))
    assert result.exit_code == 1 and said in result.stderr and result.stderr.count("\n") == 1


def test_names_do_not_steer_the_terminal(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 21], producer_name: "p">
        g (float[2] x) => (float[2] y) { y = Relu (x) }
    """)
    proto.graph.node[0].name = "\x1b]0;owned\x07\x1b[2J"
    proto.producer_name = "a\x1b[31mb"
    path = tmp_path / "m.onnx"
    onnx.save(proto, path)
    result = run("inspect", path, "--nodes")
    assert result.exit_code == 0
    assert "\x1b" not in result.output and "\x07" not in result.output
    assert r"\x1b]0;owned\x07" in result.output
    assert str(CompressError("a\nb\x1b[2J\x9b")) == r"a b\x1b[2J\x9b"


def test_an_error_in_the_users_code_is_shown_with_its_place(model: Path, tmp_path: Path) -> None:
    (tmp_path / "deep.py").write_text("def dig(n):\n    return 1 / n if n < 1 else dig(n - 1)\n")
    (tmp_path / "f.py").write_text(
        "import sys\nfrom deep import dig\ndef feeds():\n    yield {'x': dig(2)}\n"
        "def leave():\n    sys.exit('left')\n    yield\n"
    )
    result = run("calibrate", model, "-o", tmp_path / "r.json", "--data", f"{tmp_path}/f.py:feeds")
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert lines[0] == "raised in your code:"
    assert lines[1] == f'  File "{tmp_path}/f.py", line 4, in feeds'
    assert f'  File "{tmp_path}/deep.py", line 2, in dig' in lines
    assert lines[-2:] == [
        "ZeroDivisionError: division by zero",
        f"error: {tmp_path}/f.py:feeds failed: ZeroDivisionError: division by zero",
    ]
    assert "onnxcompress/" not in result.stderr.replace(str(tmp_path), "")
    result = run("calibrate", model, "-o", tmp_path / "r.json", "--data", f"{tmp_path}/f.py:leave")
    assert result.exit_code == 1 and result.stderr.endswith(f"error: {tmp_path}/f.py:leave failed: SystemExit: left\n")


def test_a_file_that_ends_the_program_when_it_is_read(model: Path, tmp_path: Path) -> None:
    (tmp_path / "g.py").write_text("raise SystemExit(0)\n")
    result = run("calibrate", model, "-o", tmp_path / "r.json", "--data", f"{tmp_path}/g.py:feeds")
    assert result.exit_code == 1 and "g.py fails when it is run: SystemExit" in result.stderr
