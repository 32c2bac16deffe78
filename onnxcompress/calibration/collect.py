"""Running a model over data and observing its tensors, one feed at a time."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort

from onnxcompress.calibration.channels import ChannelObserver, ChannelStatistics
from onnxcompress.calibration.checkpoints import Checkpoints
from onnxcompress.calibration.fingerprint import fingerprint
from onnxcompress.calibration.observers import DEFAULT_PERCENTILE, NonFiniteError, create_observer
from onnxcompress.calibration.plan import Plan, make_plan, no_feeds
from onnxcompress.calibration.ranges import Ranges
from onnxcompress.calibration.taps import computed_values, only_masks, select
from onnxcompress.data import Data, DataSet, Feed, open_data
from onnxcompress.errors import CalibrationError, DataError
from onnxcompress.model_io import Source, load_model
from onnxcompress.progress import Progress, silent
from onnxcompress.runtime.session import run

Array = np.ndarray[Any, Any]
Sources = Data | Sequence[str | Path]

MEMORY_BUDGET = 512 << 20
"""Bytes of activations held at a time, by default; beyond it the data is walked several times."""


class Observing(Protocol):
    """What `stream` hands arrays to: any observer of this package, or one of the caller's."""

    def observe(self, array: Array) -> None:
        """Take the values that one sample gave the tensor; not to be held on to."""


def calibrate(
    model: Source,
    data: Sources,
    *,
    method: str = "minmax",
    tensors: Iterable[str] | None = None,
    percentile: float = DEFAULT_PERCENTILE,
    threads: int = 0,
    memory_budget: int = MEMORY_BUDGET,
    leave_out_masks: bool | None = None,
    resume: str | os.PathLike[str] | None = None,
    progress: Progress = silent,
) -> Ranges:
    """Take the ranges of a model's activations.

    Args:
        model: a path, or a model, which is not changed.
        data: whatever `open_data` takes.
        method: minmax, percentile, entropy, mse or moving-average.
        tensors: names of float values of the main graph; None: all that depend on the inputs, graph inputs
            and outputs included. Values inside subgraphs and functions are not observed.
        percentile: of the method of that name: the share of values inside, in per cent.
        threads: of ONNX Runtime, within an operator; 0: its choice.
        memory_budget: bytes of activations held at a time, as estimated on the first feed. A model that has
            more is run in several passes over the data.
        leave_out_masks: minus infinity in an attention mask leaves that tensor out (`Ranges.left_out`) instead of
            being an error; None: when `tensors` is None.
        resume: a folder that keeps the state of the run: killed and started again, it goes on where it was, and ends
            with the same ranges.
        progress: called after every sample.

    Raises:
        CalibrationError: NaN or infinite activations (named, with the sample), no samples, a tensor that is
            not in the model, no such method; a folder to resume from that cannot be used, or is of another run, or
            of data that has changed since.
        DataError: a feed that does not fit the model's inputs.
        ModelError: a model that cannot be read or run.
    """
    model = load_model(model)
    create_observer(method, percentile)  # a wrong method or percentile is found before anything runs
    names = select(model, computed_values(model.graph) if tensors is None else tensors)
    feeds = open_data(data, model)
    plan = make_plan(model, feeds, names, threads=threads, memory_budget=memory_budget, floats_only=tensors is None)
    observers = {name: create_observer(method, percentile) for name in plan.names}
    if leave_out_masks is None:
        leave_out_masks = tensors is None
    values = computed_values(model.graph) if leave_out_masks else {}
    masks = {name for name, value in values.items() if name in observers and only_masks(value)}
    digest, parameter = fingerprint(model), percentile if method == "percentile" else None
    left_out: dict[str, str] = {}
    key = repr((digest, method, parameter, threads, sorted(masks), plan.passes))
    named = hashlib.sha256(key.encode()).hexdigest()
    checkpoints = Checkpoints.open(resume, named, observers, left_out, len(plan.passes))
    samples = _Collector(observers, masks, left_out, checkpoints).walk(plan, feeds, progress)
    kept = {name: observer for name, observer in observers.items() if name not in left_out}
    return Ranges(method, parameter, samples, digest, kept, left_out)


def calibrate_channels(
    model: Source,
    data: Sources,
    tensors: Mapping[str, int],
    *,
    threads: int = 0,
    memory_budget: int = MEMORY_BUDGET,
    progress: Progress = silent,
) -> dict[str, ChannelStatistics]:
    """Take statistics per channel of a model's activations.

    Args:
        model, data, threads, memory_budget, progress: as for `calibrate`.
        tensors: from names of float values of the main graph to the axis that counts channels.

    Returns:
        by name, in graph order.

    Raises:
        CalibrationError: as for `calibrate`; also a tensor without that axis, with a varying number of
            channels, or without a single value.
    """
    observers = {name: ChannelObserver(axis) for name, axis in tensors.items()}
    stream(model, data, observers, threads=threads, memory_budget=memory_budget, progress=progress)
    statistics = {}
    for name in select(load_model(model), observers):
        try:
            statistics[name] = observers[name].statistics()
        except CalibrationError as error:
            raise CalibrationError(f"tensor {name!r}: {error}") from error
    return statistics


def stream(
    model: Source,
    data: Sources,
    observers: Mapping[str, Observing],
    *,
    threads: int = 0,
    memory_budget: int = MEMORY_BUDGET,
    progress: Progress = silent,
) -> int:
    """Run a model over data and hand each tensor's values to its observer; returns the number of samples.

    Args and errors are those of `calibrate`; the observers are changed in place.
    """
    model = load_model(model)
    names = select(model, observers)
    feeds = open_data(data, model)
    plan = make_plan(model, feeds, names, threads=threads, memory_budget=memory_budget, floats_only=False)
    return _Collector(observers).walk(plan, feeds, progress)


@dataclass
class _Collector:
    """Hands arrays to observers.

    Attributes:
        observers: by tensor.
        masks: tensors in which minus infinity is legal; one that holds it is left out from then on.
        left_out: those, with the reason.
        checkpoints: told of every feed.
    """

    observers: Mapping[str, Observing]
    masks: Set[str] = frozenset()
    left_out: dict[str, str] = field(default_factory=dict)
    checkpoints: Checkpoints = field(default_factory=Checkpoints)

    def walk(self, plan: Plan, data: DataSet, progress: Progress) -> int:
        """Make every pass that is left; returns the number of samples."""
        total = self.checkpoints.position.total
        for index in range(self.checkpoints.position.index, len(plan.passes)):
            samples = self._pass(plan, index, data, progress, total)
            if not samples:
                raise no_feeds(data)
            if index and samples != total:
                raise CalibrationError(
                    f"{data.name} gave {total} feeds and then {samples}: give the same ones every time"
                )
            self.checkpoints.end(samples, data.name)
            total = samples
        return total or 0

    def _pass(self, plan: Plan, index: int, data: DataSet, progress: Progress, total: int | None) -> int:
        stage = "calibrating"
        if len(plan.passes) > 1:
            stage += f", pass {index + 1} of {len(plan.passes)}"
        session, asked = plan.session(index)
        self.checkpoints.begin(index)
        samples = 0
        for feed in data:
            if not self.checkpoints.is_known(feed, data.name):
                for name, array in _arrays(session, asked, feed, plan.passes[index], samples):
                    if name not in self.left_out:
                        self._observe(name, array, samples)
                self.checkpoints.observed()
            samples += 1
            progress(stage, samples, total)
        return samples

    def _observe(self, name: str, array: Array, sample: int) -> None:
        try:
            self.observers[name].observe(array)
        except NonFiniteError as error:
            if error.kind == "-inf" and name in self.masks:
                self.left_out[name] = "it is an attention mask and holds minus infinity"
                return
            raise CalibrationError(
                f"tensor {name!r} holds {error.kind} at sample {sample} (counted from 0): "
                "look at that sample, or leave it out"
            ) from error
        except CalibrationError as error:
            raise CalibrationError(f"tensor {name!r} at sample {sample} (counted from 0): {error}") from error


def _arrays(
    session: ort.InferenceSession | None, asked: list[str], feed: Feed, names: list[str], sample: int
) -> Iterator[tuple[str, Array]]:
    """What one feed gives each tensor; an array is let go of before the next is given."""
    try:
        results = run(session, feed, asked) if session is not None else []
    except DataError as error:
        raise DataError(f"sample {sample}: {error}") from error
    results.reverse()
    for name in names:
        yield name, feed[name] if name in feed else results.pop()
