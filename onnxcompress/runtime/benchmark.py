"""Timing models in turn.

A shared machine drifts, so absolute times mean little: every round runs each model once more, and ratios
are taken within a round.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import onnxruntime as ort

from onnxcompress.runtime.session import Feeds


@dataclass(frozen=True)
class Latency:
    """Times of one model over a race, in milliseconds; `speedup_*` are the first model's times over its."""

    threads: int
    rounds: int
    runs: int
    median_ms: float
    least_ms: float
    speedup_median: float
    speedup_least: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def race(
    sessions: Sequence[ort.InferenceSession],
    feeds: Sequence[Feeds],
    *,
    threads: int,
    rounds: int = 5,
    runs: int = 10,
    enough: Callable[[], bool] = lambda: False,
) -> list[Latency]:
    """Time sessions in turn, round by round, on the same feeds.

    Args:
        sessions: the first is the baseline of the ratios.
        feeds: run one after another; a run is one feed.
        threads: what the sessions were opened with (recorded, not set here).
        rounds: times that each session gets its turn.
        runs: runs of a turn.
        enough: asked after every round; True ends the race.

    Returns:
        One latency a session. `median_ms`: median over rounds of the round's median; `least_ms`: least of all;
        speedups: median over rounds of the ratio to the first session's same round.
    """
    # A model's first runs allocate memory; they are not what a user waits for.
    for session in sessions:
        for feed in feeds[:2]:
            session.run(None, dict(feed))
    medians: list[list[float]] = [[] for _ in sessions]
    leasts: list[list[float]] = [[] for _ in sessions]
    for _ in range(rounds):
        for i, session in enumerate(sessions):
            session.run(None, dict(feeds[0]))  # the others' turns have emptied the caches
            times = []
            for k in range(runs):
                feed = dict(feeds[k % len(feeds)])
                start = time.perf_counter()
                session.run(None, feed)
                times.append(1e3 * (time.perf_counter() - start))
            medians[i].append(statistics.median(times))
            leasts[i].append(min(times))
        if enough():
            break
    return latencies(medians, leasts, threads, runs)


def run_seconds(session: ort.InferenceSession, feeds: Sequence[Feeds]) -> float:
    """Seconds of one run: the least of two, after one that allocates memory."""
    times = []
    for k in range(3):
        start = time.perf_counter()
        session.run(None, dict(feeds[k % len(feeds)]))
        times.append(time.perf_counter() - start)
    return min(times[1:])


def pace(seconds_a_run: float, seconds: float, rounds: int) -> int:
    """Runs a turn, so that a race takes about `seconds`: at least 3 and at most 1000.

    Args:
        seconds_a_run: of one run of every session, together.
        rounds: of the race.
    """
    return min(1000, max(3, round(seconds / (rounds * max(seconds_a_run, 1e-7))) - 1))


def latencies(
    medians: Sequence[Sequence[float]], leasts: Sequence[Sequence[float]], threads: int, runs: int
) -> list[Latency]:
    """Sum up a race from each model's median and least time of every round, in milliseconds."""
    return [
        Latency(
            threads,
            len(medians[0]),
            runs,
            statistics.median(medians[i]),
            min(leasts[i]),
            statistics.median(a / b for a, b in zip(medians[0], medians[i], strict=True)),
            statistics.median(a / b for a, b in zip(leasts[0], leasts[i], strict=True)),
        )
        for i in range(len(medians))
    ]
