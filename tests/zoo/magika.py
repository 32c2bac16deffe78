"""magika, a classifier of file types from their bytes; the files are made here, so their types are known."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .file_samples import BINARY, TEXT, excerpt
from .packages import MAGIKA, unpacked

Feed = dict[str, np.ndarray[Any, Any]]
Run = Callable[[Feed], list[np.ndarray[Any, Any]]]

BLOCK, END, PADDING = 4096, 1024, 256


def model() -> Path:
    """`bytes` int32 0..256 `[batch, 2048]` to the probabilities of 214 types."""
    return _folder() / "model.onnx"


def file_feeds() -> Iterator[Feed]:
    """156 files, four of each type."""
    for feed, _ in _files(seed=1, count=4):
        yield feed


def file_accuracy(run: Run) -> float:
    """Percent of 390 files, ten of each type, whose type is told right."""
    names = _labels()
    results = [names[int(run(feed)[0][0].argmax())] == label for feed, label in _files(seed=2, count=10)]
    return 100 * sum(results) / len(results)


def _files(seed: int, count: int) -> Iterator[tuple[Feed, str]]:
    """Files of every type in turn; every other text is an excerpt."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        for label, make in TEXT.items():
            content = make(rng)
            yield {"bytes": _features(excerpt(rng, content) if index % 2 else content)}, label
        for label, make in BINARY.items():
            yield {"bytes": _features(make(rng))}, label


def _features(content: bytes) -> np.ndarray[Any, Any]:
    """The first and the last 1024 bytes of a file without the white space around it, padded: `[1, 2048]`."""
    first = content[:BLOCK].lstrip()[:END]
    last = content[-BLOCK:].rstrip()[-END:]
    features = np.full((1, 2 * END), PADDING, np.int32)
    features[0, : len(first)] = list(first)
    features[0, 2 * END - len(last) :] = list(last)
    return features


@functools.cache
def _labels() -> list[str]:
    names: list[str] = json.loads((_folder() / "config.min.json").read_text("utf-8"))["target_labels_space"]
    return names


def _folder() -> Path:
    return unpacked(MAGIKA) / "magika/models/standard_v3_3"
