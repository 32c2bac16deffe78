"""Scores: the user's evaluation function, or agreement with the original model."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from onnxcompress.data import DataSet
from onnxcompress.errors import CompressError, DataError, EvaluationError
from onnxcompress.functions import load_function
from onnxcompress.runtime.session import Feeds, run

Array = np.ndarray[Any, Any]
Metric = Literal["auto", "cosine", "top1", "snr"]
EvaluateFunction = Callable[[Callable[[Feeds], list[Array]]], float]

REFERENCE_BYTES = 256 << 20
"""The original's outputs are kept up to this size, and computed again beyond it."""

SAME_ARGMAX = {"Softmax", "LogSoftmax", "ArgMax"}
TRANSPARENT = {"Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Cast"}


class UnsteadyDataError(DataError):
    """The data gives other feeds every time, so that scores cannot be compared."""


@dataclass(frozen=True)
class Score:
    """A number, higher is better, and what it is: the user's function, or a measure of agreement and its output."""

    value: float
    name: str


class Evaluator(Protocol):
    """Scores sessions.

    Attributes:
        original: the original model's score.
        key: tells this evaluation, on this data and of this original, from others.
    """

    original: Score
    key: str

    def score(self, session: ort.InferenceSession) -> Score: ...


class UserEvaluator:
    """`FN(run) -> float` of the user, called for the original when this is made."""

    def __init__(self, evaluate: str | EvaluateFunction, original: ort.InferenceSession) -> None:
        """Find the function and score the original.

        Raises:
            EvaluationError: no such file or function, or as for `score`.
        """
        self.function, self.name = _user_function(evaluate)
        self.original = self.score(original)
        self.key = f"{self.name} {self.original.value!r}"

    def score(self, session: ort.InferenceSession) -> Score:
        """The function's value.

        Raises:
            EvaluationError: the function raises, or gives something that is not a finite number.
        """
        try:
            value = self.function(lambda feeds: run(session, feeds))
        except CompressError:
            raise
        except (Exception, SystemExit) as error:
            said = " ".join(str(error).split())[:400]
            raise EvaluationError(f"--eval {self.name} failed: {type(error).__name__}: {said}") from error
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise EvaluationError(f"--eval {self.name} gave {value!r:.80}, not a number") from None
        if not math.isfinite(number):
            raise EvaluationError(f"--eval {self.name} gave {number}, not a finite score")
        return Score(number, self.name)


def _user_function(evaluate: str | EvaluateFunction) -> tuple[EvaluateFunction, str]:
    if callable(evaluate):
        return evaluate, getattr(evaluate, "__name__", "score")
    try:
        return load_function(evaluate), evaluate.rpartition(":")[2]
    except ValueError as error:
        raise EvaluationError(f"--eval: {error}") from error


class Agreement:
    """How far a model's outputs agree with the original's on held-out feeds; 1 for the original itself.

    Per float output, by `metric`: `cosine`, the mean over feeds of the cosine similarity; `top1`, the share of
    equal argmax along the last axis, where that is at least 2 wide, else cosine; `snr`, 1 - noise power / signal
    power; `auto`, top1 for outputs that come from or are fed to a Softmax or an ArgMax along their last axis,
    cosine for the others. The lowest over outputs counts, and the score's name tells which that is.
    """

    def __init__(
        self, original: ort.InferenceSession, model: ir.Model, feeds: DataSet, metric: Metric = "auto"
    ) -> None:
        """Run the original over the feeds.

        Raises:
            EvaluationError: no float outputs, or no feeds.
        """
        self._metrics = output_metrics(model, metric)
        if not self._metrics:
            raise EvaluationError("the model has no float outputs to compare; give --eval")
        self._session: ort.InferenceSession | None = original
        self._feeds = feeds
        self._reference: list[list[Array]] | None = []
        self._digests: list[int] = []
        self._collect()
        digest = zlib.crc32(repr(self._digests).encode())
        self.key = f"{metric} {digest:08x}"
        self.original = Score(1.0, "agreement" if len(self._metrics) > 1 else self._label(next(iter(self._metrics))))

    @property
    def metric(self) -> Metric:
        """The one that all outputs are measured by; auto where they differ."""
        found = set(self._metrics.values())
        return cast(Metric, found.pop()) if len(found) == 1 else "auto"

    def score(self, session: ort.InferenceSession) -> Score:
        """The lowest agreement over the outputs, to nine decimals: what lies beyond is the rounding of float32.

        Raises:
            UnsteadyDataError: the data gives other feeds than the first time.
        """
        names = list(self._metrics)
        sums = dict.fromkeys(names, 0.0)
        count = 0
        for index, feed in enumerate(self._feeds):
            if index >= len(self._digests) or _digest(feed) != self._digests[index]:
                raise self._unsteady()
            for name, a, b in zip(names, self._wanted(index, feed), run(session, feed, names), strict=True):
                sums[name] += agreement(a, b, self._metrics[name])
            count += 1
        if count != len(self._digests):
            raise self._unsteady()
        worst = min(names, key=lambda name: sums[name])
        return Score(round(sums[worst] / count, 9), self._label(worst))

    def _wanted(self, index: int, feed: Feeds) -> list[Array]:
        if self._reference is not None:
            return self._reference[index]
        assert self._session is not None
        return run(self._session, feed, list(self._metrics))

    def _label(self, output: str) -> str:
        return f"{self._metrics[output]} of {output}"

    def _unsteady(self) -> UnsteadyDataError:
        return UnsteadyDataError(f"{self._feeds.name} gives other feeds every time: seed its random numbers")

    def _collect(self) -> None:
        names = list(self._metrics)
        held = 0
        for feed in self._feeds:
            self._digests.append(_digest(feed))
            if self._reference is None:
                continue
            outputs = run(self._session, feed, names)
            for name, array in zip(names, outputs, strict=True):
                if self._metrics[name] == "top1" and (array.ndim == 0 or array.shape[-1] < 2):
                    self._metrics[name] = "cosine"
            self._reference.append(outputs)
            held += sum(array.nbytes for array in outputs)
            if held > REFERENCE_BYTES:
                self._reference = None
        if self._reference is not None:
            self._session = None  # and its memory
        if not self._digests:
            raise EvaluationError(f"{self._feeds.name}: no feeds to measure on")


def output_metrics(model: ir.Model, metric: Metric = "auto") -> dict[str, str]:
    """What agreement is measured by, cosine, top1 or snr, for each float output of a model, as in `Agreement`."""
    opset = model.graph.opset_imports.get("", 1)
    return {value.name or "": _metric_of(value, metric, opset) for value in model.graph.outputs if _is_float(value)}


def agreement(wanted: Array, found: Array, metric: str) -> float:
    """Agreement of two arrays, 1 when equal; 0 when shapes differ, or other elements are not finite.

    `metric` is cosine, top1 or snr, as in `Agreement`; elements that are not finite in both (a mask's minus
    infinity) are left out of cosine and snr. Two arrays of zeros agree.
    """
    if wanted.shape != found.shape:
        return 0.0
    if wanted.size == 0:
        return 1.0
    finite = np.isfinite(wanted)
    if not np.array_equal(finite, np.isfinite(found)):
        return 0.0
    if metric == "top1":
        return float(np.mean(wanted.argmax(-1) == found.argmax(-1)))
    a, b = wanted[finite].astype(np.float64), found[finite].astype(np.float64)
    largest = max(np.max(np.abs(a), initial=0.0), np.max(np.abs(b), initial=0.0))
    if largest == 0:
        return 1.0
    a, b = a / largest, b / largest  # so that squares of float64 do not overflow
    power = float(a @ a)
    if metric == "snr":
        noise = float(np.sum((a - b) ** 2))
        return 1.0 - noise / power if power > 0 else 0.0
    product = math.sqrt(power * float(b @ b))
    return float(a @ b) / product if product > 0 else 0.0


def _digest(feed: Feeds) -> int:
    """A checksum of a feed's arrays."""
    total = 0
    for name, array in feed.items():
        data = repr(array.tolist()).encode() if array.dtype.hasobject else array.tobytes()
        total = zlib.crc32(data, zlib.crc32(name.encode(), total))
    return total


def relative_error(wanted: Sequence[Array], found: Sequence[Array]) -> float:
    """Norm of the difference over the norm, the largest over the float outputs; infinite if shapes differ."""
    worst = 0.0
    for a, b in zip(wanted, found, strict=True):
        if a.shape != b.shape:
            return math.inf
        if a.dtype.kind != "f" or a.size == 0:
            continue
        difference = float(np.linalg.norm(a.astype(np.float64) - b.astype(np.float64)))
        norm = float(np.linalg.norm(a.astype(np.float64)))
        error = difference / norm if norm > 0 else difference
        worst = max(worst, error if math.isfinite(error) else math.inf)
    return worst


def lower_bound(original: float, max_drop: float) -> float:
    """The least score that is accepted: original - max_drop * |original|."""
    return original - max_drop * abs(original)


def _is_float(value: ir.Value) -> bool:
    """A tensor of floats; maps and sequences, which classifiers made by other tools give, are not compared."""
    floats = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE)
    return isinstance(value.type, ir.TensorType) and value.type.dtype in floats


def _metric_of(value: ir.Value, metric: Metric, opset: int) -> str:
    if metric != "auto":
        return metric
    rank = None if value.shape is None else len(value.shape)
    node = value.producer()
    while node is not None and node.op_type in TRANSPARENT and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    near = [node, *value.consumers()]
    return "top1" if any(n is not None and _picks_along_last(n, rank, opset) for n in near) else "cosine"


def _picks_along_last(node: ir.Node, rank: int | None, opset: int) -> bool:
    """Is this a Softmax or an ArgMax along the last axis?"""
    if node.op_type not in SAME_ARGMAX:
        return False
    default = 0 if node.op_type == "ArgMax" else -1 if opset >= 13 else 1
    axis = node.attributes.get_int("axis", default)
    return axis == -1 or rank is None or axis == rank - 1
