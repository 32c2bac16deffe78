"""The data contract: where feeds come from, and what a feed must be.

A feed is a dict from input name to array. A data set is an iterable of feeds that can be walked many times
and is never held in memory whole.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcompress.errors import DataError, first_line
from onnxcompress.functions import load_function
from onnxcompress.npz import read_npz

Array = np.ndarray[Any, Any]
Feed = dict[str, Array]

HELD_OUT_SHARE = 0.2
HELD_OUT_LEAST = 16

MOST_RANDOM_BYTES = 1 << 32
"""Of an input that is filled with random numbers."""
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif"}


@dataclass(frozen=True)
class DataSet:
    """Feeds that can be walked again and again.

    Attributes:
        make: gives a new iterator over the feeds.
        name: for messages.
    """

    make: Callable[[], Iterable[Mapping[str, Array]]]
    name: str = "data"

    def __iter__(self) -> Iterator[Feed]:
        for index, feed in enumerate(self.make()):
            if not isinstance(feed, Mapping):
                kind = type(feed).__name__
                raise DataError(f"{self.name}, feed {index}: a {kind}, not a dict from input name to array")
            yield dict(feed)

    def take(self, start: int, stop: int | None) -> DataSet:
        """The feeds from `start` up to `stop`."""
        return DataSet(lambda: itertools.islice(iter(self), start, stop), self.name)


@dataclass(frozen=True)
class ImageOptions:
    """How a folder of images becomes feeds; `size` None: the model's own fixed height and width."""

    size: tuple[int, int] | None = None
    resize: str = "stretch"
    color: str = "rgb"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (255.0,)
    layout: str = "nchw"


Data = DataSet | Iterable[Mapping[str, Array]] | Callable[[], Iterable[Mapping[str, Array]]] | str | Path


def open_data(
    data: Data | Sequence[str | Path],
    model: ir.Model,
    *,
    images: ImageOptions | None = None,
    labels: Sequence[str] = (),
) -> DataSet:
    """Make a checked data set of whatever names one.

    Args:
        data: `FILE.py:FN`, a `.npz` (one feed), a folder of `.npz` or of images; several are chained; or, from
            Python, a function that returns an iterable of feeds, or a list of feeds.
        model: every feed is checked against its inputs when it is read.
        images: how a folder of images is read.
        labels: entries that each feed must have besides the inputs; handed on as they are.

    Raises:
        DataError: now, if a source cannot be found; while reading, if a feed does not fit the model.
    """
    if isinstance(data, (str, Path)):
        sources = [_open_source(data, model, images, labels)]
    elif isinstance(data, DataSet):
        sources = [data]
    elif callable(data):
        sources = [DataSet(data, getattr(data, "__name__", "data"))]
    elif isinstance(data, Sequence) and data and all(isinstance(part, (str, Path)) for part in data):
        sources = [_open_source(part, model, images, labels) for part in data]
    elif isinstance(data, Iterator):
        raise DataError("data is an iterator, which can be walked once only; give a list or a function")
    else:
        held: Any = data
        sources = [DataSet(lambda: held)]
    inputs = _input_types(model)
    name = " + ".join(source.name for source in sources)
    return DataSet(lambda: _checked(itertools.chain.from_iterable(sources), inputs, labels, name), name)


def split(data: DataSet) -> tuple[DataSet, DataSet, int, str]:
    """Hold out the last 20 % (at least 16 feeds, or all if there are fewer) for measuring.

    Returns:
        the part to calibrate on, the part held out, the number of feeds in all, and a note for the user
        (empty when there is nothing to say).
    """
    total = sum(1 for _ in data)
    if total == 0:
        raise DataError(f"{data.name}: no feeds; calibration needs at least one, better 100 or more")
    if total <= HELD_OUT_LEAST:
        note = f"only {total} feeds: the same ones are used to calibrate and to measure"
        return data, data, total, note
    held = max(HELD_OUT_LEAST, round(total * HELD_OUT_SHARE))
    return data.take(0, total - held), data.take(total - held, None), total, ""


def random_feed(model: ir.Model, shapes: Mapping[str, Sequence[int]], seed: int = 0) -> Feed:
    """One feed of random numbers (floats normal, integers 0 or 1) with the shapes given or the model's own.

    Raises:
        DataError: an input has an unknown dimension that `shapes` does not give.
    """
    rng = np.random.default_rng(seed)
    feed: Feed = {}
    for name, (dtype, dims) in _input_types(model).items():
        shape = tuple(shapes[name]) if name in shapes else dims
        if any(d is None for d in shape):
            raise DataError(f"input {name!r} has dynamic dimensions {dims}: give them with --shape {name}=...")
        size = tuple(int(d) for d in shape if d is not None)
        if math.prod(size) * dtype.itemsize > MOST_RANDOM_BYTES:
            raise DataError(f"input {name!r} is {size}, more than {MOST_RANDOM_BYTES >> 30} GiB: give --data")
        if dtype.kind == "f":
            feed[name] = rng.standard_normal(size).astype(dtype)
        else:
            feed[name] = rng.integers(0, 2, size).astype(dtype)
    unknown = sorted(set(shapes) - set(feed))
    if unknown:
        raise DataError(f"--shape names {unknown[0]!r}; the model's inputs are {', '.join(feed)}")
    return feed


InputTypes = dict[str, tuple[np.dtype[Any], tuple[int | None, ...]]]


def _input_types(model: ir.Model) -> InputTypes:
    types: InputTypes = {}
    for value in model.graph.inputs:
        if value.name in model.graph.initializers or value.name is None:
            continue
        if value.dtype is None:
            raise DataError(f"input {value.name!r} has no type in the model")
        rank = () if value.shape is None else tuple(d if isinstance(d, int) and d >= 0 else None for d in value.shape)
        types[value.name] = (value.dtype.numpy(), rank)
    return types


def _checked(
    feeds: Iterable[Mapping[str, Array]], inputs: InputTypes, labels: Sequence[str], name: str
) -> Iterator[Feed]:
    for index, feed in enumerate(feeds):
        where = f"{name}, feed {index}"
        missing = [n for n in (*inputs, *labels) if n not in feed]
        if missing:
            kind = "input" if missing[0] in inputs else "label"
            raise DataError(f"{where}: {kind} {missing[0]!r} is missing (it has {', '.join(feed) or 'nothing'})")
        fitting = {n: _fit(np.asarray(feed[n]), n, *inputs[n], where) for n in inputs}
        yield fitting | {n: np.asarray(feed[n]) for n in labels}


def _fit(array: Array, name: str, dtype: np.dtype[Any], dims: tuple[int | None, ...], where: str) -> Array:
    if array.dtype != dtype:
        raise DataError(f"{where}: input {name!r} is {array.dtype}, the model takes {dtype}")
    if dims and (len(dims) != array.ndim or any(d not in (None, s) for d, s in zip(dims, array.shape, strict=True))):
        wanted = "x".join("?" if d is None else str(d) for d in dims)
        raise DataError(f"{where}: input {name!r} has shape {array.shape}, the model takes {wanted}")
    return array


def _open_source(source: str | Path, model: ir.Model, images: ImageOptions | None, labels: Sequence[str]) -> DataSet:
    text = str(source)
    path = Path(source)
    wanted = {*_input_types(model), *labels}
    if os.path.isdir(path):  # where the name is too long, Path.is_dir raises
        return _open_folder(path, model, images or ImageOptions(), wanted)
    if path.suffix == ".npz":
        if not os.path.isfile(path):
            raise DataError(f"{path}: no such file")
        return DataSet(lambda: [read_npz(path, wanted)], path.name)
    if ":" in text:
        try:
            return DataSet(_called(load_function(text), text), text)
        except ValueError as error:
            raise DataError(f"--data: {error}") from error
    raise DataError(f"{text}: not data; give FILE.py:FUNCTION, a .npz file, or a folder of .npz or images")


def _called(function: Callable[[], Iterable[Feed]], name: str) -> Callable[[], Iterable[Feed]]:
    def make() -> Iterable[Feed]:
        try:
            yield from function()
        except DataError:
            raise
        except (Exception, SystemExit) as error:
            raise DataError(f"{name} failed: {type(error).__name__}: {first_line(error)}") from error

    return make


def _open_folder(path: Path, model: ir.Model, images: ImageOptions, wanted: Set[str]) -> DataSet:
    arrays = sorted(path.glob("*.npz"))
    if arrays:
        return DataSet(lambda: (read_npz(file, wanted) for file in arrays), path.name)
    pictures = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    if not pictures:
        raise DataError(f"{path}: holds neither .npz files nor images")
    from onnxcompress.images import ImageReader

    reader = ImageReader(_input_types(model), images)
    return DataSet(lambda: (reader.read(file) for file in pictures), path.name)
