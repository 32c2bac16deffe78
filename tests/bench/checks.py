"""What the recovery benchmark measures with: CPU time, agreement with a teacher, races, and rows with targets."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from onnxcompress.model_io import Source
from onnxcompress.runtime import bench, open_session
from onnxcompress.runtime.session import run
from tests.zoo.minilm import Feed, Run

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Check:
    """A number beside what it must reach; without a target it is for information."""

    what: str
    value: float
    target: float | None = None
    at_most: bool = False

    @property
    def holds(self) -> bool:
        """Is the target reached?"""
        if self.target is None:
            return True
        return self.value <= self.target if self.at_most else self.value >= self.target

    def __str__(self) -> str:
        if self.target is None:
            return f"    {self.what:58s} {self.value:9.3f}"
        sign, verdict = "<=" if self.at_most else ">=", "ok" if self.holds else "MISSED"
        return f"    {self.what:58s} {self.value:9.3f}  {sign} {self.target:<8g} {verdict}"


@dataclass
class Work:
    """What a row works with.

    Attributes:
        folder: where models go.
        threads: of races.
        minutes: CPU-minutes of this process by stage.
    """

    folder: Path
    threads: int = 1
    minutes: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def cpu(self, stage: str) -> Iterator[None]:
        """Count the CPU time of a stage."""
        started = time.process_time()
        yield
        spent = (time.process_time() - started) / 60
        self.minutes[stage] = self.minutes.get(stage, 0.0) + spent
        print(f"    ... {stage}: {spent:.2f} CPU-minutes", flush=True)

    def spent(self) -> list[Check]:
        """Its minutes, as lines."""
        return [Check(f"CPU-minutes: {stage}", minutes) for stage, minutes in self.minutes.items()]

    def speedups(self, models: list[Source], feed: Feed) -> list[float]:
        """Of each model over the first, raced in processes of their own."""
        found = bench(models, data=[feed], threads=self.threads, rounds=9)
        return [result.latency.speedup_median for result in found]


def scored(model: Source, score: Callable[[Run], float]) -> float:
    """A model's metric in ONNX Runtime."""
    return score(partial(run, open_session(model)))


def same_answers(teacher: Source, feeds: Iterable[Feed]) -> Callable[[Run], float]:
    """An evaluation without labels: 1 minus the mean total variation between a model's softmax and the teacher's.

    It is smooth, so that a few hundred rows tell states of a training apart; equal argmax would not.
    """
    session, held = open_session(teacher), list(feeds)
    wanted = [_softmax(run(session, feed)[0]) for feed in held]

    def evaluate(run_model: Run) -> float:
        pairs = zip(held, wanted, strict=True)
        distances = [np.abs(_softmax(run_model(feed)[0]) - right).sum(-1) / 2 for feed, right in pairs]
        return 1 - float(np.mean(np.concatenate(distances)))

    return evaluate


def mean_cosine(teacher: Source, feeds: Iterable[Feed]) -> Callable[[Run], float]:
    """An evaluation without labels: the mean cosine between rows of the first output and the teacher's."""
    session, held = open_session(teacher), list(feeds)
    wanted = [_units(run(session, feed)[0]) for feed in held]

    def evaluate(run_model: Run) -> float:
        pairs = zip(held, wanted, strict=True)
        return float(np.mean(np.concatenate([(_units(run_model(feed)[0]) * unit).sum(-1) for feed, unit in pairs])))

    return evaluate


def _units(rows: Array) -> Array:
    units: Array = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return units


def _softmax(logits: Array) -> Array:
    exponents = np.exp(logits - logits.max(-1, keepdims=True))
    shares: Array = exponents / exponents.sum(-1, keepdims=True)
    return shares
