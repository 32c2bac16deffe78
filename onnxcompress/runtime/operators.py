"""Timing the native operators by shape and sparsity: against float, against standard int8, and the processor's peak."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from onnxcompress.errors import ModelError
from onnxcompress.progress import Progress, silent
from onnxcompress.runtime import library
from onnxcompress.runtime.benchmark import pace, race, run_seconds
from onnxcompress.runtime.session import open_session
from onnxcompress.runtime.workloads import Workload, float_model, native_model, workloads

SECONDS, ROUNDS = 0.6, 5


@dataclass(frozen=True)
class OperatorTimes:
    """What was measured of a workload: least milliseconds.

    Attributes:
        gops: 10^9 operations a second of the dense operator (two a multiply-accumulate), in the native kernel.
        share_of_peak: of one core's peak times the threads; above 1 where zero blocks are skipped.
    """

    op: str
    label: str
    sparsity: float
    float_ms: float
    standard_ms: float
    native_ms: float
    gops: float
    share_of_peak: float
    speedup_over_float: float = field(init=False)
    speedup_over_standard: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "speedup_over_float", self.float_ms / self.native_ms)
        object.__setattr__(self, "speedup_over_standard", self.standard_ms / self.native_ms)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def bench_operators(threads: int = 1, progress: Progress = silent) -> list[OperatorTimes]:
    """Time every workload: float, the standard int8 function body, the native kernel, in turn.

    Raises:
        ModelError: there is no library.
    """
    if library.library_path() is None:
        raise ModelError("there are no native operators to time: this installation carries no library of kernels")
    peak = library.peak() * max(1, threads)
    found = []
    loads = workloads()
    for i, make in enumerate(loads):
        load = make()
        progress(f"timing {load.op} {load.label}", i, len(loads))
        found.append(_measure(load, threads, peak))
    return found


def _measure(load: Workload, threads: int, peak: float) -> OperatorTimes:
    model, feed = native_model(load)
    real, float_feed = float_model(load), {"x": load.float_x}
    sessions = [
        (open_session(real, threads=threads), float_feed),
        (open_session(model, threads=threads, native=False), feed),
        (open_session(model, threads=threads), feed),
    ]
    once = sum(run_seconds(session, [given]) for session, given in sessions)
    runs = pace(once, SECONDS, ROUNDS)
    best = [math.inf] * len(sessions)
    for _ in range(ROUNDS):
        for i, (session, given) in enumerate(sessions):
            found = race([session], [given], threads=threads, rounds=1, runs=runs)[0]
            best[i] = min(best[i], found.least_ms)
    gops = 2e-6 * load.macs / best[2]
    return OperatorTimes(load.op, load.label, load.sparsity, best[0], best[1], best[2], gops, gops / peak)
