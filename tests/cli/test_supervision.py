"""The program as a process: crashes of native code, signals, exit statuses, and what is said of them."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere commands run in the first process")

WORK = """
import os, signal, sys, time
from onnxcompress.cli.supervision import supervised
def work():
    print("at work", flush=True)
    {work}
supervised(work)
"""


def start(work: str, **options: object) -> subprocess.Popen[str]:
    process: subprocess.Popen[str] = subprocess.Popen(
        [sys.executable, "-c", WORK.format(work=work)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,  # type: ignore[call-overload]
    )  # fmt: skip
    return process


@pytest.mark.parametrize(
    ("work", "code", "said"),
    [
        ("pass", 0, ""),
        ("sys.exit(0)", 0, ""),
        ("sys.exit(2)", 2, ""),
        ("sys.exit(130)", 130, ""),
        ("os.kill(os.getpid(), signal.SIGSEGV)", 1, "reached into memory that is not its own (SIGSEGV)"),
        ("os.abort()", 1, "gave up (SIGABRT)"),
        ("os.kill(os.getpid(), signal.SIGKILL)", 1, "was killed: memory ran out, or somebody did it (SIGKILL)"),
        ("os.kill(os.getpid(), signal.SIGFPE)", 1, "divided by zero (SIGFPE)"),
        ("os.kill(os.getpid(), signal.SIGTERM)", 128 + signal.SIGTERM, ""),
        ("os.kill(os.getpid(), signal.SIGUSR1)", 128 + signal.SIGUSR1, ""),
    ],
)
def test_how_the_work_ends_is_how_the_program_ends(work: str, code: int, said: str) -> None:
    process = start(work)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "at work\n")
    assert err.startswith(f"error: native code {said}: the model is probably malformed") if said else err == ""
    assert err.count("\n") == (1 if said else 0)


# One long sleep would not do: Python misses a signal that comes between its last look for one and the sleep itself.
CATCHES = """try:
        print("ready", flush=True)
        for _ in range(600):
            time.sleep(0.1)
    except KeyboardInterrupt:
        print("caught", flush=True)
        time.sleep(0.5)
        sys.exit(7)"""


def test_signals_are_handed_on(tmp_path: Path) -> None:
    process = start(CATCHES)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["at work\n", "ready\n"]
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (7, "caught\n", "")


def test_ctrl_c_on_a_terminal_comes_once() -> None:
    """The terminal sends it to both processes; the second would break off what the first lets finish."""
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-c", WORK.format(work=CATCHES)])
    said = b""
    while b"ready" not in said:
        said += os.read(terminal, 100)
    os.write(terminal, b"\x03")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    os.close(terminal)


def test_the_work_does_not_outlive_the_program() -> None:
    process = start("print(os.getpid(), flush=True); time.sleep(60)")
    assert process.stdout is not None
    process.stdout.readline()
    worker = int(process.stdout.readline())
    process.kill()
    process.communicate(timeout=60)
    for _ in range(100):
        if not _lives(worker):
            break
        time.sleep(0.05)
    assert not _lives(worker)


def _lives(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_the_program_is_supervised(tmp_path: Path) -> None:
    """A user's function stands for native code that crashes."""
    (tmp_path / "f.py").write_text("import os\ndef feeds():\n    os.abort()\n    yield {}\n")
    from onnxcompress.model_io import save_model
    from tests.models import small_cnn

    save_model(small_cnn(), tmp_path / "m.onnx")
    command = [sys.executable, "-m", "onnxcompress", "calibrate", "m.onnx", "-o", "r.json", "--data", "f.py:feeds"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("the model is probably malformed, or too large for this machine\n")
    assert not (tmp_path / "r.json").exists()
