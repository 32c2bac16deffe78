"""`load` from many threads and processes at once, over many runs and many sessions."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from onnxcompress import load
from onnxcompress.model_io import save_model
from onnxcompress.runtime import library_path
from onnxcompress.runtime.library import register
from tests.bench.load_memory import LEAKS, SESSION_LEAKS, Kind, growth, heap_bytes, kinds, runs_of, sessions_of

Outputs = list[np.ndarray[Any, Any]]

THREADS, PROCESSES, TURNS = 8, 4, 200

MODELS = ["cnn-stock", "cnn", "encoder", "dynamic", "sparse"]

CHILD = """
import sys
import numpy as np
from onnxcompress import load
session = load(sys.argv[1])
given = np.load(sys.argv[2])
feeds = [{name: given[f"{turn} {name}"] for name in (i.name for i in session.get_inputs())} for turn in range(2)]
for turn in range(int(sys.argv[3])):
    np.testing.assert_array_equal(session.run(None, feeds[turn % 2])[0], given[f"{turn % 2} expected"])
print("equal")
"""


def saved(name: str, folder: Path) -> tuple[Path, Kind]:
    kind = kinds()[name]()
    path = folder / "model.onnx"
    save_model(kind.model, path)
    return path, kind


def options(threads: int = 1) -> ort.SessionOptions:
    made = ort.SessionOptions()
    made.intra_op_num_threads = threads
    return made


def run_all(session: ort.InferenceSession, feeds: Sequence[dict[str, np.ndarray[Any, Any]]]) -> Outputs:
    return [session.run(None, feed)[0] for feed in feeds]


def at_once(count: int, work: Callable[[int], object]) -> None:
    """Threads that all start when the last one is there; the first error is raised."""
    barrier = Barrier(count)

    def start(number: int) -> None:
        barrier.wait()
        work(number)

    with ThreadPoolExecutor(count) as pool:
        for future in [pool.submit(start, number) for number in range(count)]:
            future.result()


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", MODELS)
def test_one_session_from_eight_threads(name: str, threads: int, tmp_path: Path) -> None:
    """To the bit what one thread gets, each thread at another place in the feeds."""
    path, kind = saved(name, tmp_path)
    expected = run_all(load(path, sess_options=options()), kind.feeds)
    assert len({output.tobytes() for output in expected}) > 1 or len(kind.feeds) == 1
    session = load(path, sess_options=options(threads))

    def work(number: int) -> None:
        for turn in range(number, number + TURNS):
            index = turn % len(kind.feeds)
            np.testing.assert_array_equal(session.run(None, kind.feeds[index])[0], expected[index])

    at_once(THREADS, work)


class Counting(ort.SessionOptions):  # type: ignore[misc]
    """Options that count what is registered on them."""

    count = 0

    def register_custom_ops_library(self, path: str) -> None:
        self.count += 1
        super().register_custom_ops_library(path)


@pytest.mark.skipif(library_path() is None, reason="no library here")
def test_eight_threads_register_the_library_once() -> None:
    """ONNX Runtime refuses every model on options that have it twice."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(50):
            shared = Counting()
            at_once(THREADS, lambda _, shared=shared: register(shared))  # type: ignore[misc]
            assert shared.count == 1
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_eight_threads_open_sessions(name: str, tmp_path: Path) -> None:
    """On options of their own, and on options that all share."""
    path, kind = saved(name, tmp_path)
    expected = run_all(load(path, sess_options=options()), kind.feeds[:4])
    shared = options()

    def work(number: int) -> None:
        for turn in range(10):
            session = load(path, sess_options=shared if turn % 2 else options())
            for output, wanted in zip(run_all(session, kind.feeds[:4]), expected, strict=True):
                np.testing.assert_array_equal(output, wanted)

    at_once(THREADS, work)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_four_processes(name: str, tmp_path: Path) -> None:
    path, kind = saved(name, tmp_path)
    feeds = [kind.feeds[0], kind.feeds[-1]]
    given: dict[str, Any] = {f"{turn} {key}": array for turn, feed in enumerate(feeds) for key, array in feed.items()}
    for turn, output in enumerate(run_all(load(path), feeds)):
        given[f"{turn} expected"] = output
    np.savez(tmp_path / "given.npz", **given)
    command = [sys.executable, "-c", CHILD, str(path), str(tmp_path / "given.npz"), str(TURNS)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(PROCESSES)]
    for process in running:
        said, errors = process.communicate(timeout=120)
        assert (process.returncode, said.strip()) == (0, b"equal"), errors.decode()


@pytest.mark.skipif(heap_bytes() is None, reason="needs glibc's account of its heap")
@pytest.mark.parametrize("lost", [0, 16])
def test_a_leak_of_16_bytes_a_run_is_seen(lost: int) -> None:
    """By the heap at once, in a thousandth of the runs; resident pages see it over all of them."""
    malloc = ctypes.CDLL(None).malloc
    malloc.argtypes, malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    found = growth(lambda: malloc(lost) if lost else None, 2_000, warm_up=500)
    assert ("heap" in found.leaks(LEAKS)) == bool(lost), found


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in kinds() if not name.endswith("stock")])
def test_memory_does_not_grow_over_runs(name: str) -> None:
    """20,000 here; tests/bench/load_memory.py does 100,000, and resident pages, which take longer to settle."""
    found = growth(runs_of(kinds()[name]()), 20_000)
    assert "heap" not in found.leaks(LEAKS), found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cnn", "encoder", "sparse"])
def test_memory_does_not_grow_over_sessions(name: str) -> None:
    found = growth(sessions_of(kinds()[name]()), 200)
    assert "heap" not in found.leaks(SESSION_LEAKS), found
