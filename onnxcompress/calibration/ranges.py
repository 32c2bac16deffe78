"""The result of a calibration: what was observed of each tensor, saved, loaded and merged."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxcompress.calibration.fingerprint import fingerprint
from onnxcompress.calibration.intervals import Interval
from onnxcompress.calibration.observers import (
    DEFAULT_PERCENTILE,
    HistogramObserver,
    MinMaxObserver,
    Observer,
    create_observer,
)
from onnxcompress.errors import CalibrationError, CompressError
from onnxcompress.files import check_folder, read_text, write_text

SCHEMA = 1

MOST_BYTES = 1 << 30
"""Of a file of ranges: one tensor's histogram takes some 20 KB."""

FORMAT = "onnxcompress ranges"


@dataclass(frozen=True)
class Ranges:
    """Ranges of a model's tensors.

    Attributes:
        method: minmax, percentile, entropy, mse or moving-average.
        percentile: of the percentile method, else None.
        samples: feeds observed.
        digest: `fingerprint` of the model.
        observers: by tensor name, in graph order.
        left_out: tensors that have no range, with the reason.
    """

    method: str
    percentile: float | None
    samples: int
    digest: str
    observers: Mapping[str, Observer]
    left_out: Mapping[str, str] = field(default_factory=dict)
    _intervals: dict[tuple[str, bool, int], Interval] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self.observers and not self.observers[name].empty

    @property
    def names(self) -> list[str]:
        """Tensors that have a range, in graph order (one whose value was empty in every sample has none)."""
        return [name for name in self.observers if name in self]

    def interval(self, name: str, *, symmetric: bool = False, levels: int = 256) -> Interval:
        """The range of a tensor as `(low, high)`; it need not contain zero.

        Args:
            name: of the tensor.
            symmetric: the same magnitude at both ends.
            levels: of the quantizer that will use it (256 for 8 bits); MSE and entropy choose by it.

        Raises:
            CalibrationError: the tensor was not observed.
        """
        if name not in self:
            reason = self.left_out.get(name, "it was not calibrated, or was empty in every sample")
            raise CalibrationError(f"tensor {name!r} has no range: {reason}")
        key = (name, symmetric, levels)
        if key not in self._intervals:
            self._intervals[key] = self.observers[name].range(symmetric=symmetric, levels=levels)
        return self._intervals[key]

    def by(self, method: str, percentile: float = DEFAULT_PERCENTILE) -> Ranges:
        """The ranges that another method gives on the same samples; all but the moving average have them.

        Raises:
            CalibrationError: these ranges were not taken with a method that keeps histograms, or there is no
                such method.
        """
        observers: dict[str, Observer] = {}
        for name, observer in self.observers.items():
            if not isinstance(observer, HistogramObserver) or method == "moving-average":
                raise CalibrationError(f"{self.method} ranges cannot be turned into {method} ones: calibrate again")
            made = create_observer(method, percentile)
            if isinstance(made, MinMaxObserver):
                made.low, made.high = observer.histogram.minimum, observer.histogram.maximum
            elif isinstance(made, HistogramObserver):
                made.histogram = observer.histogram
            observers[name] = made
        kept = percentile if method == "percentile" else None
        return Ranges(method, kept, self.samples, self.digest, observers, self.left_out)

    def merge(self, other: Ranges) -> Ranges:
        """The ranges of both parts of the data, as if they had been calibrated in one go.

        Raises:
            CalibrationError: another model, method or percentile, or other tensors.
        """
        if self.digest != other.digest:
            raise CalibrationError("ranges of different models cannot be merged")
        if (self.method, self.percentile) != (other.method, other.percentile):
            raise CalibrationError(
                f"ranges by {self.method_text} and by {other.method_text} cannot be merged: use one method"
            )
        left_out = {**self.left_out, **other.left_out}
        mine, theirs = ({**r.observers, **dict.fromkeys(r.left_out)} for r in (self, other))
        different = sorted(mine.keys() ^ theirs.keys())
        if different:
            raise CalibrationError(f"ranges of different tensors cannot be merged: {different[0]!r} is in one only")
        merged = {
            name: observer.merge(other.observers[name])
            for name, observer in self.observers.items()
            if name not in left_out
        }
        samples = self.samples + other.samples
        return Ranges(self.method, self.percentile, samples, self.digest, merged, left_out)

    def check(self, model: ir.Model) -> None:
        """Refuse another model than the one calibrated.

        Raises:
            CalibrationError: it is another one.
        """
        if fingerprint(model) != self.digest:
            raise CalibrationError("these ranges were taken from another model: calibrate this one")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON, whole or not at all.

        Raises:
            ModelError: the folder is missing or cannot be written.
        """
        check_folder(path)
        document = {
            "format": FORMAT,
            "schema": SCHEMA,
            "method": self.method,
            "percentile": self.percentile,
            "samples": self.samples,
            "model": self.digest,
            "tensors": {name: observer.state() for name, observer in self.observers.items()},
            "left_out": dict(self.left_out),
        }
        write_text(path, json.dumps(document, allow_nan=False))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Ranges:
        """Read what `save` wrote.

        Raises:
            CalibrationError: no such file, not a file of ranges, of another schema, or damaged.
        """
        path = Path(path)
        try:
            document = json.loads(read_text(path, kind="a file of ranges", most=MOST_BYTES))
        except CompressError as error:
            raise CalibrationError(str(error)) from error
        except (ValueError, RecursionError) as error:
            raise CalibrationError(f"{path}: not a file of ranges (not JSON)") from error
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise CalibrationError(f"{path}: not a file of ranges; `onnxcompress calibrate` writes them")
        if document.get("schema") != SCHEMA:
            raise CalibrationError(
                f"{path}: ranges of schema {document.get('schema')!r}, not {SCHEMA}: calibrate again"
            )
        try:
            return cls._from_document(document)
        except (CalibrationError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise CalibrationError(f"{path}: damaged ranges ({type(error).__name__}: {error})") from error

    @classmethod
    def _from_document(cls, document: Mapping[str, Any]) -> Ranges:
        method, percentile = document["method"], document["percentile"]
        observers: dict[str, Observer] = {}
        for name, state in document["tensors"].items():
            observers[name] = create_observer(method, DEFAULT_PERCENTILE if percentile is None else percentile)
            observers[name].restore(state)
        samples, digest = document["samples"], document["model"]
        if not isinstance(samples, int) or samples < 0 or not isinstance(digest, str):
            raise ValueError("samples or model is not what it should be")
        return cls(method, percentile, samples, digest, observers, dict(document["left_out"]))

    @property
    def method_text(self) -> str:
        """The method and its parameter, for messages."""
        return self.method if self.percentile is None else f"{self.method} {self.percentile:g}"
