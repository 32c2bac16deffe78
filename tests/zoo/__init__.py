"""The zoo: real models with their real feeds and their real metric.

`ZOO["minilm"].path()` fetches what is needed and gives the model; `.data` and `.evaluate` are what `--data`
and `--eval` take.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxcompress.functions import load_function

Feed = dict[str, np.ndarray[Any, Any]]
FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class ZooModel:
    """A model of the zoo.

    Attributes:
        name: its key in `ZOO`.
        file: the file of `tests/zoo` with its functions, whose names follow.
        model: gives the model's path.
        feeds_from: gives its calibration feeds.
        score: `score(run)` is its metric, higher is better; None: only agreement can be measured.
        metric: the metric's name, for tables.
        floor: what the float model reaches at least, on any machine.
        is_quantized: already quantized as it comes; left as it is by `quantize`.
        has_subgraphs: holds `If` or `Loop`.
        speed: gives the feed that is timed; None: the first calibration feed.
    """

    name: str
    file: str
    model: str
    feeds_from: str
    score: str | None = None
    metric: str | None = None
    floor: float | None = None
    is_quantized: bool = False
    has_subgraphs: bool = False
    speed: str | None = None

    @property
    def data(self) -> str:
        """For `--data`."""
        return f"{FOLDER / self.file}:{self.feeds_from}"

    @property
    def evaluate(self) -> str | None:
        """For `--eval`."""
        return None if self.score is None else f"{FOLDER / self.file}:{self.score}"

    def path(self) -> Path:
        """The model's file, fetched or exported into the cache when it is not there.

        Raises:
            ZooError: it could not be fetched, or is not what is pinned.
        """
        path: Path = self._function(self.model)()
        return path

    def feeds(self, count: int | None = None) -> list[Feed]:
        """The first `count` calibration feeds, or all."""
        return list(itertools.islice(self._function(self.feeds_from)(), count))

    def speed_feed(self) -> Feed:
        """The feed that is timed."""
        feed: Feed = next(iter(self._function(self.speed or self.feeds_from)()))
        return feed

    def measure(self, run: Callable[[Feed], list[np.ndarray[Any, Any]]]) -> float:
        """The metric of `run(feed) -> outputs`."""
        assert self.score is not None, f"{self.name} has no metric"
        return float(self._function(self.score)(run))

    def _function(self, name: str) -> Callable[..., Any]:
        return load_function(f"{FOLDER / self.file}:{name}")


MODELS = (
    ZooModel(
        "minilm", "minilm.py", "model", "calibration", "wordsim353", "WordSim-353 Spearman x 100",
        floor=72.5, speed="speed",
    ),
    ZooModel(
        "ppocr-rec", "ppocr.py", "recognizer", "line_feeds", "line_accuracy", "lines read right, %",
        floor=95.0,
    ),
    ZooModel(
        "ppocr-det", "ppocr.py", "detector", "page_feeds", "page_f1", "line boxes F1, %",
        floor=96.0,
    ),
    ZooModel(
        "ppocr-cls", "ppocr.py", "classifier", "turn_feeds", "turn_accuracy", "turns told right, %",
        floor=97.0,
    ),
    ZooModel(
        "ddddocr-det", "ddddocr.py", "detector", "picture_feeds", "picture_f1", "character boxes F1, %",
        floor=90.0,
    ),
    ZooModel(
        "ddddocr-old", "ddddocr.py", "old_reader", "captcha_feeds", "captcha_accuracy",
        "captchas read right, %", floor=93.0, is_quantized=True,
    ),
    ZooModel(
        "magika", "magika.py", "model", "file_feeds", "file_accuracy", "types told right, %",
        floor=93.0,
    ),
    ZooModel("silero", "silero.py", "both_rates", "feeds_both", has_subgraphs=True),
    ZooModel("silero-16k", "silero.py", "rate_16k", "feeds_16k", has_subgraphs=True),
)  # fmt: skip
ZOO = {model.name: model for model in MODELS}

SMALL = ("ppocr-cls", "magika", "silero-16k")
"""Names of models that are quick in everything: for tests of one thing on a few real graphs."""
