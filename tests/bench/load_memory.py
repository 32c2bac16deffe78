"""Memory over 100,000 runs of a session, and over 1,000 sessions opened and closed, each in a process of its own.

Run as `python tests/bench/load_memory.py [--runs 100000] [--sessions 1000] [KIND ...]`; prints one JSON document, and
exits with 1 when something grows. Two things are measured after a warm-up, and a line is fitted to each: the bytes
that `malloc` has given and not got back, which moves by the byte where the C library tells it (glibc), and the
resident pages, which see other allocators too, in steps of 4096 bytes. `LEAKS` says what each line may rise;
`--leak 16` loses 16 bytes at each run, to show that it would be seen.

A kind ending in "-stock" is a float model in stock ONNX Runtime, without our library: what it grows is not ours.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import onnx_ir as ir

from onnxcompress.runtime import open_session
from onnxcompress.runtime.memory import present_memory
from tests.lowered import lowered, lowered_cnn, lowered_encoder
from tests.models import images, small_cnn, wide_cnn
from tests.passes.lower_transformer.encoders import sentence_encoder, sentences
from tests.zoo import ZOO

Array = np.ndarray[Any, Any]
Feed = dict[str, Array]

RUNS, SESSIONS, SAMPLES = 100_000, 1_000, 100

LEAKS = {"heap": 1.0, "resident": 8.0}
"""Bytes a run from which a line counts as a leak: `malloc` gives nothing smaller than 32 bytes for 16."""

SESSION_LEAKS = {"heap": 512.0, "resident": 4096.0}
"""The same for a session opened and closed, of which stock ONNX Runtime 1.31 keeps 65 to 370 bytes."""


SETTLED_SECONDS = 15
"""Some nine seconds after it began, stock ONNX Runtime 1.31 starts threads for a moment, and keeps 0.7 MB."""

STARTED = time.monotonic()


@dataclass(frozen=True)
class Kind:
    """A model and what it is fed.

    Attributes:
        model: the model.
        feeds: run in turn.
        native: with our library.
    """

    model: ir.Model
    feeds: Sequence[Feed]
    native: bool = True


@dataclass(frozen=True)
class Growth:
    """What a line fitted to memory rises.

    Attributes:
        slopes: bytes a step, by what was measured.
        rises: bytes from the first sample to the last.
        steps: over which.
    """

    slopes: dict[str, float]
    rises: dict[str, int]
    steps: int

    def leaks(self, allowed: dict[str, float]) -> list[str]:
        """What rises by more than it may."""
        return [name for name, slope in self.slopes.items() if slope > allowed[name]]


class _MallocInfo(ctypes.Structure):
    """`struct mallinfo2` of glibc 2.33 and later."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


@functools.cache
def _mallinfo() -> Any:
    """glibc's own account; None in other C libraries."""
    function = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if function is not None:
        function.restype = _MallocInfo
    return function


def heap_bytes() -> int | None:
    """Bytes that `malloc` has given and not got back, over all arenas; None where the C library does not tell."""
    mallinfo = _mallinfo()
    if mallinfo is None:
        return None
    info = mallinfo()
    return int(info.uordblks + info.hblkhd)


def growth(step: Callable[[], object], steps: int, *, warm_up: int | None = None) -> Growth:
    """Take samples of memory while `step` is done over and over; a tenth of the steps comes before, as a warm-up, and
    as many as it takes to the time when ONNX Runtime has settled."""
    measures = {name: measure for name, measure in MEASURES.items() if measure() is not None}
    each = max(1, steps // SAMPLES)
    places = np.arange(0, steps + 1, each)
    # Kept where they need no memory of their own while it is measured.
    samples = {name: np.zeros(len(places), np.int64) for name in measures}

    def sample(index: int) -> None:
        gc.collect()
        for name, measure in measures.items():
            samples[name][index] = measure() or 0

    for _ in range(steps // 10 if warm_up is None else warm_up):
        step()
    while warm_up is None and time.monotonic() < STARTED + SETTLED_SECONDS:
        step()
    gc.collect()
    gc.freeze()  # what is there already need not be looked through for every sample
    try:
        for index in range(len(places)):  # so that taking them is warm too
            sample(index)
        for index in range(len(places)):
            for _ in range(each if index else 1):
                step()
            sample(index)
    finally:
        gc.unfreeze()
    slopes = {name: slope(places, values) for name, values in samples.items()}
    rises = {name: int(values[-1] - values[0]) for name, values in samples.items()}
    return Growth(slopes, rises, int(places[-1]))


def slope(x: Array, y: Array) -> float:
    """The rise of a line through samples: the median over all pairs (Theil 1950, Sen 1968).

    Unlike least squares it leaves out a single jump, as when Python's table of interned strings doubles by 1 MB.
    """
    first, second = np.triu_indices(len(x), 1)
    return float(np.median((y[second] - y[first]) / (x[second] - x[first])))


MEASURES: dict[str, Callable[[], int | None]] = {"heap": heap_bytes, "resident": present_memory}


def kinds() -> dict[str, Callable[[], Kind]]:
    """Models that run in a millisecond or less."""
    return {
        "cnn": lambda: Kind(lowered_cnn().model, images(4)),
        "encoder": lambda: Kind(lowered_encoder().model, sentences(1)),
        "sparse": _sparse,
        "dynamic": lambda: Kind(lowered_encoder().model, list(_of_many_shapes())),
        "dynamic-cnn": lambda: Kind(lowered_cnn().model, [_batch(n) for n in (1, 3, 2, 5, 1, 4)]),
        "bodies": lambda: Kind(lowered_cnn().model, images(4), native=False),
        "ppocr-cls": _turns,
        "cnn-stock": lambda: Kind(small_cnn(), images(4), native=False),
        "encoder-stock": lambda: Kind(sentence_encoder(), sentences(1), native=False),
        "dynamic-stock": lambda: Kind(sentence_encoder(), list(_of_many_shapes()), native=False),
    }


def _sparse() -> Kind:
    """A CNN most of whose weights are zero blocks, in block-sparse operators."""
    source = wide_cnn()
    rng = np.random.default_rng(0)
    for name, value in source.graph.initializers.items():
        assert value.const_value is not None
        weight = value.const_value.numpy()
        if weight.ndim == 4 and name != "w1":
            kept = np.kron(rng.random((weight.shape[0] // 4, weight.shape[1] // 4)) > 0.9, np.ones((4, 4)))
            value.const_value = ir.tensor((weight * kept[..., None, None]).astype(np.float32), name=name)
    model = lowered(source, images(2, size=32)).model
    assert any(node.op_type == "QSparseConv" for node in model.graph)
    return Kind(model, images(2, size=32))


def _turns() -> Kind:
    """The classifier of the zoo, on small pieces of its pictures."""
    source = ir.load(ZOO["ppocr-cls"].path())
    pieces = [{"x": np.ascontiguousarray(feed["x"][:1, :, :, :64])} for feed in ZOO["ppocr-cls"].feeds(8)]
    return Kind(lowered(source, pieces).model, pieces[:3])


def _of_many_shapes() -> Iterator[Feed]:
    """Batches of 1 to 4 and 2 to 15 words, in no order."""
    rng = np.random.default_rng(2)
    for _ in range(40):
        shape = (int(rng.integers(1, 5)), int(rng.integers(2, 16)))
        ids, types = rng.integers(0, 50, shape), rng.integers(0, 2, shape)
        yield {"ids": ids, "mask": np.ones(shape, np.int64), "type_ids": types}


def _batch(count: int) -> Feed:
    return {"x": np.concatenate([feed["x"] for feed in images(count)])}


def runs_of(kind: Kind, *, lost: int = 0) -> Callable[[], object]:
    """One run, of the next feed, in a session that stays; `lost` bytes are allocated at each and never freed."""
    session = open_session(kind.model, threads=1, native=kind.native)
    turn = 0
    malloc = ctypes.CDLL(None).malloc
    malloc.argtypes, malloc.restype = [ctypes.c_size_t], ctypes.c_void_p

    def step() -> None:
        nonlocal turn
        session.run(None, kind.feeds[turn % len(kind.feeds)])
        turn += 1
        if lost:
            malloc(lost)

    return step


def sessions_of(kind: Kind) -> Callable[[], object]:
    """One session opened, run and closed."""

    def step() -> None:
        open_session(kind.model, threads=1, native=kind.native).run(None, kind.feeds[0])

    return step


def measure(name: str, *, runs: int, sessions: int, lost: int) -> dict[str, Any]:
    """Both measurements of one kind, in this process."""
    kind = kinds()[name]()
    result: dict[str, Any] = {"kind": name}
    if runs:
        found = growth(runs_of(kind, lost=lost), runs)
        result["runs"] = asdict(found) | {"leaks": found.leaks(LEAKS)}
    if sessions:
        found = growth(sessions_of(kind), sessions)
        result["sessions"] = asdict(found) | {"leaks": found.leaks(SESSION_LEAKS)}
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(kinds()))
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--sessions", type=int, default=SESSIONS)
    parser.add_argument("--leak", type=int, default=0, help="Bytes to lose at each run.")
    parser.add_argument("--here", action="store_true", help="Measure one KIND in this process.")
    arguments = parser.parse_args()
    if arguments.here:
        counts = {"runs": arguments.runs, "sessions": arguments.sessions, "lost": arguments.leak}
        print(json.dumps(measure(arguments.kinds[0], **counts)))
        return 0
    results = []
    for name in arguments.kinds or kinds():
        options = ["--runs", str(arguments.runs), "--sessions", str(arguments.sessions), "--leak", str(arguments.leak)]
        command = [sys.executable, __file__, "--here", name, *options]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
        results.append(json.loads(done.stdout.splitlines()[-1]))
        print(json.dumps(results[-1]), file=sys.stderr)
    print(json.dumps({"results": results, "allowed": {"runs": LEAKS, "sessions": SESSION_LEAKS}}, indent=2))
    parts = [result[part] for result in results for part in ("runs", "sessions") if part in result]
    return int(any(part["leaks"] for part in parts))


if __name__ == "__main__":
    sys.exit(main())
