"""Ctrl-C and SIGTERM at every stage: a whole, verified result or nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from onnxcompress.interrupts import Interrupts
from onnxcompress.pipeline import compress
from tests.models import images

Array = np.ndarray[Any, Any]

pytestmark = pytest.mark.usefixtures("quick")


def output_of(path: Path, feed: dict[str, Array]) -> Array:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (out,) = session.run(None, feed)
    return np.asarray(out)


def test_ctrl_c_before_anything_is_verified_writes_nothing(source: Path, tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int | None) -> None:
        if stage.startswith("scoring optimized"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress(source, tmp_path / "o.onnx", data=images(4), progress=stop)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("last", ["calibrating", "timing native", "scoring native"])
def test_ctrl_c_gives_the_best_verified_so_far(last: str, wide: Path, tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int | None) -> None:
        if stage.startswith(last):
            raise KeyboardInterrupt

    found = compress(wide, tmp_path / "o.onnx", data=images(4, 32), progress=stop)
    assert found.recipe["mode"] in ("float", "original")
    feed = images(1, 32)[0]
    np.testing.assert_allclose(output_of(tmp_path / "o.onnx", feed), output_of(wide, feed), atol=1e-5)
    assert {path.name for path in tmp_path.iterdir()} == {"o.onnx", "o.onnx.recipe.toml"}


SCRIPT = """
import os, signal, sys, time
from onnxcompress import delivery, workbench
from onnxcompress.pipeline import compress
from tests.models import images, wide_cnn
workbench.RACE_SECONDS, delivery.SECONDS = 0.1, 0.2
stage, number, count = sys.argv[2], getattr(signal, sys.argv[3]), int(sys.argv[4])
sent = 0
def progress(now, done, total):
    global sent
    if now.startswith(stage) and not sent:
        sent = 1
        for _ in range(count):
            os.kill(os.getpid(), number)
            time.sleep(0.01)
try:
    result = compress(wide_cnn(), sys.argv[1], data=images(4, 32), progress=progress)
    print("interrupted" if result.interrupted else "finished")
except KeyboardInterrupt:
    print("nothing")
"""


@pytest.mark.parametrize(
    ("stage", "signal_name", "count", "outcome"),
    [
        ("scoring the original", "SIGINT", 1, "nothing"),
        ("scoring static", "SIGINT", 1, "interrupted"),
        ("scoring static", "SIGTERM", 1, "interrupted"),
        ("the last race", "SIGINT", 1, "interrupted"),
        ("the last race", "SIGINT", 2, "nothing"),
    ],
)
def test_signals(stage: str, signal_name: str, count: int, outcome: str, tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "o.onnx"), stage, signal_name, str(count)],
        capture_output=True, text=True, timeout=120,
        env={**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    assert done.stdout.strip() == outcome, done.stderr
    left = {path.name for path in tmp_path.iterdir()} - {"tmp"}
    assert left == (set() if outcome == "nothing" else {"o.onnx", "o.onnx.recipe.toml"})
    assert not [path for path in temporary.iterdir() if "onnxcompress" in path.name]
    if left:
        assert output_of(tmp_path / "o.onnx", images(1, 32)[0]).shape == (1, 10)


def test_handlers_are_put_back(source: Path, tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    compress(source, tmp_path / "o.onnx", data=images(2))
    assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


def test_nothing_raises_while_files_are_put_in_place() -> None:
    with Interrupts.handled() as handled:
        with handled.held():
            for _ in range(2):
                signal.raise_signal(signal.SIGINT)
        assert handled.count == 2
        handled.finishing()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
