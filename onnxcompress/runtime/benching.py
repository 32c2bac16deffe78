"""`bench`: models timed in turn, each in a process of its own.

A process for each keeps the memory of one out of the count of another, and lets no model's threads or
allocations disturb the next one.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import onnx_ir as ir

import onnxcompress
from onnxcompress.data import Data, Feed, ImageOptions, open_data, random_feed
from onnxcompress.errors import DataError, ModelError
from onnxcompress.model_io import Source, file_bytes, load_model, saved_model
from onnxcompress.progress import Progress, silent
from onnxcompress.runtime.benchmark import Latency, latencies
from onnxcompress.runtime.worker import write_feeds

FEEDS = 16
"""Feeds of a data set that are timed: the first ones."""

TURN_MS = 200.0
RUNS = range(3, 1001)


@dataclass(frozen=True)
class BenchResult:
    """What was measured of one model.

    Attributes:
        path: of its file; empty for a model in memory.
        bytes: on disk, external data included.
        memory: bytes resident at the peak, over those before the model was opened; None where the operating
            system does not tell.
        latency: times, and speedups over the first model.
    """

    path: str
    bytes: int
    memory: int | None
    latency: Latency

    def as_dict(self) -> dict[str, Any]:
        times = self.latency.as_dict()
        speedup = {"median": times.pop("speedup_median"), "least": times.pop("speedup_least")}
        return {
            "path": self.path, "bytes": self.bytes, "memory": self.memory, "latency": times, "speedup": speedup,
        }  # fmt: skip


def bench(
    models: Sequence[Source],
    *,
    data: Data | Sequence[str | Path] | None = None,
    images: ImageOptions | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    threads: int = 1,
    rounds: int = 5,
    runs: int | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> list[BenchResult]:
    """Time models in turn, round by round, each in a process of its own.

    Args:
        models: paths or models; the first is the baseline of the ratios.
        data: its first 16 feeds are run one after another; None: one feed of random numbers.
        images: how a folder of images is read.
        shapes: without data, shapes of inputs with dynamic dimensions.
        threads: within an operator; 0: ONNX Runtime's choice.
        rounds: turns of each model.
        runs: runs of a turn, after one that is not timed; None: as many as take the slowest model 0.2 s, 3 to
            1000.
        seed: of the random feed.
        progress: called after every turn.

    Raises:
        ModelError: a model does not open or its process ends; no other is timed then.
        DataError: the feeds do not fit a model.
    """
    if not models:
        raise ModelError("bench needs at least one model")
    if rounds < 1 or threads < 0 or (runs is not None and runs < 1):
        raise ModelError("bench needs at least one round and one run, and 0 or more threads")
    if data is not None and shapes:
        raise DataError("shapes are for random feeds; with data the feeds have their own")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="onnxcompress-bench-")))
        paths = [stack.enter_context(saved_model(model)) for model in models]
        workers = []
        feeds = _feeds(paths, data, images, shapes or {}, seed)
        for i, (path, own) in enumerate(zip(paths, feeds, strict=True)):
            write_feeds(str(folder / f"{i}.npz"), own)
            workers.append(stack.enter_context(Worker(path, folder / f"{i}.npz", threads)))
        # One after another: opening a model takes all the processor it can get.
        slowest = max(worker.open() for worker in workers)
        if runs is None:
            runs = min(max(int(TURN_MS / max(slowest, 1e-3)), RUNS.start), RUNS.stop - 1)
        times, memory = _race(workers, rounds, runs, progress)
        sums = latencies(
            [[statistics.median(turn) for turn in turns] for turns in times],
            [[min(turn) for turn in turns] for turns in times], threads, runs,
        )  # fmt: skip
        names = ["" if isinstance(model, ir.Model) else str(model) for model in models]
        return [
            BenchResult(name, file_bytes(path), peak, latency)
            for name, path, peak, latency in zip(names, paths, memory, sums, strict=True)
        ]


class Worker:
    """A process that times one model; it is ended when the context is left, however that happens."""

    def __init__(self, model: Path, feeds: Path, threads: int) -> None:
        self.model, self.feeds, self.threads = model, feeds, threads

    def __enter__(self) -> Self:
        root = str(Path(onnxcompress.__file__).parent.parent)
        others = os.environ.get("PYTHONPATH")
        path = os.pathsep.join([root, *([others] if others else [])])
        # A session of its own: a Ctrl-C in the terminal reaches this process only, which then ends the others.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "onnxcompress.runtime.worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, env={**os.environ, "PYTHONPATH": path}, start_new_session=True,
        )  # fmt: skip
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                _stream(stream).close()

    def open(self) -> float:
        """Open the model and warm it up; gives the milliseconds of its slowest feed."""
        answer = self._ask({"model": str(self.model), "feeds": str(self.feeds), "threads": self.threads})
        return float(answer["milliseconds"])

    def turn(self, runs: int) -> tuple[list[float], int | None]:
        """Milliseconds of each run, and the peak of memory in bytes so far."""
        answer = self._ask({"runs": runs})
        return answer["times"], answer["memory"]

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        try:
            stream = _stream(self.process.stdin)
            stream.write(json.dumps(request) + "\n")
            stream.flush()
            line = _stream(self.process.stdout).readline()
        except OSError:
            line = ""
        if not line:
            code = self.process.wait()
            raise ModelError(f"{self.model}: the process that ran it ended with code {code} (out of memory?)")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            reason = str(answer["error"]).removeprefix(f"{self.model}: ")
            raise (DataError if answer.get("data") else ModelError)(f"{self.model}: {reason}")
        return answer


def _race(
    workers: Sequence[Worker], rounds: int, runs: int, progress: Progress
) -> tuple[list[list[list[float]]], list[int | None]]:
    times: list[list[list[float]]] = [[] for _ in workers]
    memory: list[int | None] = [None] * len(workers)
    for done, (_, i) in enumerate(itertools.product(range(rounds), range(len(workers)))):
        progress("timing", done, rounds * len(workers))
        turn, memory[i] = workers[i].turn(runs)
        times[i].append(turn)
    progress("timing", rounds * len(workers), rounds * len(workers))
    return times, memory


def _feeds(
    paths: Sequence[Path],
    data: Data | Sequence[str | Path] | None,
    images: ImageOptions | None,
    shapes: Mapping[str, Sequence[int]],
    seed: int,
) -> Iterator[list[Feed]]:
    """The feeds of each model: the same data for all, or random numbers from the same seed."""
    models = [load_model(path) for path in paths]
    inputs = [{str(value.name) for value in model.graph.inputs} for model in models]
    unknown = sorted(set(shapes) - set().union(*inputs))
    if unknown:
        raise DataError(f"--shape names {unknown[0]!r}; the models' inputs are {', '.join(sorted(inputs[0]))}")
    for path, model, names in zip(paths, models, inputs, strict=True):
        if data is None:
            yield [random_feed(model, {name: shape for name, shape in shapes.items() if name in names}, seed)]
            continue
        feeds = list(open_data(data, model, images=images).take(0, FEEDS))
        if not feeds:
            raise DataError(f"the data holds no feeds to time {path} with")
        yield feeds


def _stream(stream: IO[str] | None) -> IO[str]:
    assert stream is not None, "the process was started with pipes"
    return stream
