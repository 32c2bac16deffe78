"""The process that times one model for `bench`: `python -m onnxcompress.runtime.worker`.

It reads one JSON object a line on standard input and answers each with one on standard output:

1. `{"model": path, "feeds": path of .npz, "threads": n}`: opens the model and runs every feed once; answers
   `{"milliseconds": of the slowest of the second runs}`.
2. `{"runs": n}`: one untimed run, then n timed ones; answers `{"times": [milliseconds], "memory": bytes}`.

Errors are answered as `{"error": line, "data": true where the feeds are at fault}`. It ends when standard
input does, so it never outlives its parent.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any

import numpy as np

from onnxcompress.errors import CompressError, DataError, first_line
from onnxcompress.runtime.memory import peak_memory, present_memory, reset_peak
from onnxcompress.runtime.session import Feeds, open_session, run


class Bench:
    """One model, its feeds, and the memory of this process before the model came."""

    def __init__(self, model: str, feeds: str, threads: int) -> None:
        self.feeds = read_feeds(feeds)
        reset_peak()
        self.baseline = present_memory()
        self.session = open_session(model, threads=threads)
        for feed in self.feeds:
            run(self.session, feed)

    def slowest(self) -> float:
        """Milliseconds of the slowest feed."""
        return max(self._time(feed) for feed in self.feeds[:4])

    def turn(self, runs: int) -> list[float]:
        """Milliseconds of each run, feeds taken one after another."""
        self._time(self.feeds[0])  # the other models' turns have emptied the caches
        return [self._time(self.feeds[k % len(self.feeds)]) for k in range(runs)]

    def memory(self) -> int | None:
        """Bytes at the peak, over those before the model was opened."""
        peak = peak_memory()
        return None if peak is None or self.baseline is None else max(0, peak - self.baseline)

    def _time(self, feed: Feeds) -> float:
        start = time.perf_counter()
        self.session.run(None, feed)
        return 1e3 * (time.perf_counter() - start)


def write_feeds(path: str, feeds: list[dict[str, Any]]) -> None:
    """Keep feeds in one .npz, under `<index>:<input>`."""
    np.savez(path, **{f"{i}:{name}": array for i, feed in enumerate(feeds) for name, array in feed.items()})


def read_feeds(path: str) -> list[dict[str, Any]]:
    """Read what `write_feeds` wrote."""
    feeds: dict[int, dict[str, Any]] = {}
    with np.load(path, allow_pickle=False) as arrays:
        for key in arrays.files:
            index, _, name = key.partition(":")
            feeds.setdefault(int(index), {})[name] = arrays[key]
    return [feeds[index] for index in sorted(feeds)]


def main() -> None:
    """Answer requests until standard input ends."""
    # A Ctrl-C in the terminal is the parent's to handle: it stops this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # ONNX Runtime may print; what it prints must not end up among the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    bench: Bench | None = None
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, Any]
        try:
            if bench is None:
                bench = Bench(**request)
                answer = {"milliseconds": bench.slowest()}
            else:
                answer = {"times": bench.turn(request["runs"]), "memory": bench.memory()}
        except CompressError as error:
            answer = {"error": str(error), "data": isinstance(error, DataError)}
        except Exception as error:  # whatever ONNX Runtime raises, the parent must have an answer
            answer = {"error": first_line(error)}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
