"""The state of a calibration in a folder, so that one that was killed goes on where it was.

What is kept is small and exact: where the walk over the data is, and the states of the observers. The data is walked
again up to there, which is cheap next to running the model, and is compared with what was seen by a digest.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from onnxcompress.calibration.observers import Observer
from onnxcompress.data import Feed
from onnxcompress.errors import CalibrationError, CompressError
from onnxcompress.files import check_folder, read_text, write_text

FILE = "calibration.json"
FORMAT = "onnxcompress calibration"

MOST_BYTES = 1 << 30
"""Of a state: one tensor's histogram takes some 20 KB."""

SECONDS = 2.0
"""Between two states at least."""

SHARE = 0.05
"""Of the time at most that goes into writing states: with many tensors they are written less often."""


@dataclass
class Position:
    """Where the walks over the data are.

    Attributes:
        index: of the pass.
        feeds: observed in it.
        digest: SHA-256 of them, each chained to those before it.
        total: feeds of a whole pass; None in the first.
        whole: the digest of a whole pass; None in the first.
    """

    index: int = 0
    feeds: int = 0
    digest: str = ""
    total: int | None = None
    whole: str | None = None


@dataclass
class Checkpoints:
    """Keeps a calibration's state, now and then; without a file, nothing.

    Attributes:
        file: None keeps nothing.
        key: tells this run (model, method, options) from others.
        observers, left_out: by tensor; `open` fills them with what the file holds.
        passes: over the data, in all.
        position: of what the observers hold.
    """

    file: Path | None = None
    key: str = ""
    observers: Mapping[str, Observer] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    passes: int = 1
    position: Position = field(default_factory=Position)

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str] | None,
        key: str,
        observers: Mapping[str, Observer],
        left_out: dict[str, str],
        passes: int,
    ) -> Checkpoints:
        """Take up a folder, which is made if it is missing, and the state in it; None keeps nothing.

        Raises:
            CalibrationError: the folder cannot be made or written to; its state is damaged, or of another run.
        """
        if folder is None:
            return cls()
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            check_folder(Path(folder) / FILE)
        except (CompressError, OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise CalibrationError(f"--resume {folder}: cannot be used ({reason})") from error
        checkpoints = cls(Path(folder) / FILE, key, observers, left_out, passes)
        checkpoints._load()
        return checkpoints

    def __post_init__(self) -> None:
        self._walked = Position()
        self._due = time.monotonic() + SECONDS

    # -- the walk ---------------------------------------------------------------------------------------------

    def begin(self, index: int) -> None:
        """A pass over the data begins."""
        if index != self.position.index:
            self.position = Position(index, total=self.position.total, whole=self.position.whole)
        self._walked = Position(index)

    def is_known(self, feed: Feed, data: str) -> bool:
        """Was the next feed of the pass observed before the process was killed?

        Raises:
            CalibrationError: the feeds up to here are not those that were; `data` names them.
        """
        if self.file is None:
            return False
        self._walked.feeds += 1
        self._walked.digest = chained(self._walked.digest, feed)
        if self._walked.feeds > self.position.feeds:
            return False
        if self._walked.feeds == self.position.feeds and self._walked.digest != self.position.digest:
            raise self._other(data, f"the first {self.position.feeds} are others")
        return True

    def observed(self) -> None:
        """The feed that was asked for last has been observed."""
        if self.file is None:
            return
        self.position.feeds, self.position.digest = self._walked.feeds, self._walked.digest
        if time.monotonic() >= self._due:
            self._save()

    def end(self, samples: int, data: str) -> None:
        """A pass over the data ended after so many feeds.

        Raises:
            CalibrationError: there were fewer than those observed, or others than in the first pass.
        """
        if self.file is None:
            return
        if samples < self.position.feeds:
            raise self._other(data, f"there are {samples}, and {self.position.feeds} were observed")
        if self.position.index == 0:
            self.position.total, self.position.whole = samples, self.position.digest
        elif self.position.digest != self.position.whole:
            raise self._other(data, "this pass gave others than the first")
        self._save()

    def _other(self, data: str, how: str) -> CalibrationError:
        folder = self.file.parent if self.file else ""
        return CalibrationError(
            f"--resume {folder}: the feeds of {data} have changed ({how}): give the same ones every time, with random "
            "numbers seeded, or an empty folder"
        )

    # -- the file ---------------------------------------------------------------------------------------------

    def _save(self) -> None:
        assert self.file is not None
        started = time.monotonic()
        document = {
            "format": FORMAT,
            "key": self.key,
            "position": vars(self.position),
            "tensors": {name: observer.state() for name, observer in self.observers.items()},
            "left_out": self.left_out,
        }
        try:
            write_text(self.file, json.dumps(document, allow_nan=False))
        except CompressError as error:
            raise CalibrationError(f"--resume {self.file.parent}: {error}") from error
        ended = time.monotonic()
        self._due = ended + max(SECONDS, (ended - started) / SHARE)

    def _load(self) -> None:
        assert self.file is not None
        if not self.file.exists():
            return
        try:
            document = json.loads(read_text(self.file, kind="a state of a calibration", most=MOST_BYTES))
            if document["format"] != FORMAT:
                raise ValueError("it is something else")
            key = document["key"]
        except (CompressError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise self._damaged(error) from error
        if key != self.key:
            raise CalibrationError(
                f"--resume {self.file.parent}: holds a calibration of another model or data, or by another method or "
                "options; give an empty folder"
            )
        try:
            self._restore(document)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise self._damaged(error) from error

    def _restore(self, document: Mapping[str, Any]) -> None:
        position = Position(**document["position"])
        counts = (position.index, position.feeds, position.total or 0)
        if not all(isinstance(count, int) and count >= 0 for count in counts) or position.index >= self.passes:
            raise ValueError("its position is none")
        if document["tensors"].keys() != self.observers.keys():
            raise ValueError("its tensors are others")
        for name, observer in self.observers.items():
            observer.restore(document["tensors"][name])
        self.left_out.update(document["left_out"])
        self.position = position

    def _damaged(self, error: Exception) -> CalibrationError:
        folder = self.file.parent if self.file else ""
        return CalibrationError(
            f"--resume {folder}: {FILE} is damaged ({type(error).__name__}: {error}); give an empty folder"
        )


def chained(digest: str, feed: Feed) -> str:
    """The digest of feeds, one of which comes after those of `digest`: names, types, shapes and bytes."""
    total = hashlib.sha256(digest.encode())
    for name, array in sorted(feed.items()):
        held = np.ascontiguousarray(array)
        total.update(repr((name, held.dtype.str, held.shape)).encode())
        total.update(repr(held.tolist()).encode() if held.dtype.hasobject else held.tobytes())
    return total.hexdigest()
