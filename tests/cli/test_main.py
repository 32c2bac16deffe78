"""The group that all commands are in: how it starts, lists, refuses and completes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from onnxcompress import __version__
from onnxcompress.cli import COMMANDS, main

ROOT = Path(__file__).parents[2]


def start(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`python -m onnxcompress` in a new process."""
    return subprocess.run(
        [sys.executable, "-m", "onnxcompress", *arguments], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
    )  # fmt: skip


def loaded(name: str) -> click.Command:
    found = main.get_command(click.Context(main), name)
    assert found is not None
    return found


def complete(*words: str) -> list[str]:
    """What bash would be offered for the last word."""
    line = " ".join(("onnxcompress", *words))
    result = start(COMP_WORDS=line, COMP_CWORD=str(len(words)), _ONNXCOMPRESS_COMPLETE="bash_complete")
    assert result.returncode == 0, result.stderr
    return [entry.partition(",")[2] for entry in result.stdout.splitlines() if entry]


def test_version() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert (result.exit_code, result.output) == (0, f"onnxcompress, version {__version__}\n")


def test_started_as_a_module_it_has_its_own_name() -> None:
    result = start("--version")
    assert (result.returncode, result.stdout) == (0, f"onnxcompress, version {__version__}\n")
    assert start("--help").stdout.startswith("Usage: onnxcompress [OPTIONS] COMMAND")


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_lists_every_command(option: str) -> None:
    result = CliRunner().invoke(main, [option])
    assert result.exit_code == 0
    rows = [line.split()[0] for line in result.output.partition("Commands:")[2].splitlines() if line.startswith("  ")]
    assert [row for row in rows if row in COMMANDS] == list(COMMANDS)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("comprss", " Did you mean compress?"), ("quantise", " Did you mean quantize?"), ("zzz", ""), ("table", "")],
)
def test_unknown_command(name: str, hint: str) -> None:
    """Exit code 2, and a name that is close; a module of the folder that is no command is none."""
    result = CliRunner().invoke(main, [name], prog_name="onnxcompress")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == f"Error: No such command '{name}'.{hint}"


def test_unknown_option() -> None:
    result = CliRunner().invoke(main, ["--verion"])
    assert (result.exit_code, "No such option" in result.stderr) == (2, True)


def test_the_table_is_the_folder() -> None:
    folder = ROOT / "onnxcompress" / "cli"
    others = {"__init__", "common", "supervision", "table", "unexpected"}
    assert {path.stem for path in folder.glob("*.py")} - others == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_the_standard_options(name: str) -> None:
    command = loaded(name)
    options = {option for parameter in command.params for option in parameter.opts}
    assert {"--json", "-q", "--quiet", "-v", "--verbose", "--seed"} <= options
    assert command.name in (name, "command")
    assert command.help and command.help.splitlines()[0].endswith(".")
    assert all(parameter.help for parameter in command.params if parameter.name in ("as_json", "quiet", "seed"))


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_every_command_has_help(name: str, option: str) -> None:
    result = CliRunner().invoke(main, [name, option], prog_name="onnxcompress")
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: onnxcompress {name} [OPTIONS]")


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("demo", "doctor")])
def test_no_arguments_is_a_usage_error(name: str) -> None:
    result = CliRunner().invoke(main, [name])
    assert (result.exit_code, "Missing argument" in result.stderr) == (2, True)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("demo", "doctor", "export")])
def test_a_missing_model_is_one_clear_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 1, and nothing is written."""
    extra = {
        "compress": ["-o", "out", "--data", "feeds.py:feeds"],
        "optimize": ["-o", "out"],
        "quantize": ["-o", "out", "--mode", "dynamic"],
        "calibrate": ["-o", "out", "--data", "feeds.py:feeds"],
        "diff": ["absent.onnx"],
        "distill": ["-o", "out", "--data", "feeds.py:feeds", "--teacher", "absent.onnx"],
        "extract": ["-o", "out", "--inputs", "a", "--outputs", "b"],
        "prune": ["-o", "out", "--pattern", "2:4"],
        "sign": ["--private-key", "absent.pem"],
        "verify": ["absent.onnx", "--data", "feeds.py:feeds"],
    }
    monkeypatch.chdir(tmp_path)
    Path("feeds.py").write_text("def feeds():\n    return []\n", "utf-8")
    result = CliRunner().invoke(main, [name, "absent.onnx", *extra.get(name, [])])
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == ["feeds.py"]
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines() == ["error: absent.onnx: no such file"]


@pytest.mark.parametrize(("shell", "mark"), [("bash", "complete -o"), ("zsh", "#compdef"), ("fish", "complete --no")])
def test_completion_script(shell: str, mark: str) -> None:
    result = start(_ONNXCOMPRESS_COMPLETE=f"{shell}_source")
    assert result.returncode == 0
    assert mark in result.stdout and f"_ONNXCOMPRESS_COMPLETE={shell}_complete" in result.stdout


def test_completion_of_commands_and_of_their_options() -> None:
    """Commands are loaded for it one by one."""
    assert complete("") == list(COMMANDS)
    assert complete("in") == ["inspect"]
    assert complete("quantize", "--mod") == ["--mode"]
    assert complete("quantize", "--mode", "d") == ["dynamic"]
    assert complete("nothing", "--m") == []
