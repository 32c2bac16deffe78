"""Feeds run in a process of their own: on sizes that nobody tried, ONNX Runtime may end the process it runs in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnxcompress
from onnxcompress.data import Array, Feed
from onnxcompress.runtime.worker import read_feeds, write_feeds

Answer = list[Array] | str


def run_apart(model: Path, feeds: Sequence[Feed], outputs: Sequence[str]) -> list[Answer]:
    """Run a model on feeds in another process, and go on with the next feed in a new one where that ends.

    Returns:
        for every feed the outputs, or in one line why there are none.
    """
    answers: list[Answer] = []
    with tempfile.TemporaryDirectory(prefix="onnxcompress-verify-") as folder:
        while len(answers) < len(feeds):
            left = [{name: plain(array) for name, array in feed.items()} for feed in feeds[len(answers) :]]
            write_feeds(str(Path(folder) / "feeds.npz"), left)
            code = _run_worker(model, Path(folder), outputs)
            found = [answer for i in range(len(left)) if (answer := _taken(Path(folder), i, outputs)) is not None]
            answers += found
            if len(found) < len(left):
                answers.append(_ended(code))
    return answers


def plain(array: Array) -> Array:
    """Strings as an array that is kept without pickling; others as they are."""
    return array.astype(str) if array.dtype.hasobject else array


def _run_worker(model: Path, folder: Path, outputs: Sequence[str]) -> int:
    root = str(Path(onnxcompress.__file__).parent.parent)
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    # A session of its own: a Ctrl-C in the terminal reaches this process only, which then ends the other.
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "onnxcompress.verification.apart_worker", str(model), str(folder), *outputs],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path}, start_new_session=True,
    )  # fmt: skip
    try:
        return process.wait()
    finally:
        process.kill()
        process.wait()


def _taken(folder: Path, index: int, outputs: Sequence[str]) -> Answer | None:
    """What the worker left for a feed; it is taken away."""
    arrays, reason = folder / f"{index}.npz", folder / f"{index}.txt"
    if reason.exists():
        text = reason.read_text("utf-8")
        reason.unlink()
        return text
    if not arrays.exists():
        return None
    (found,) = read_feeds(str(arrays))
    arrays.unlink()
    return [found[str(i)] for i in range(len(outputs))]


def _ended(code: int) -> str:
    if code < 0 and -code in set(signal.Signals):
        return f"it ends the process ({signal.Signals(-code).name})"
    return f"it ends the process (exit code {code})"
