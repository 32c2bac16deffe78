"""Calibrating one part of a data set and merging it with the ranges of others: the `calibrate` command."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import reduce
from pathlib import Path

from onnxcompress.calibration.collect import calibrate
from onnxcompress.calibration.observers import create_observer
from onnxcompress.calibration.ranges import Ranges
from onnxcompress.data import ImageOptions, open_data
from onnxcompress.errors import CalibrationError
from onnxcompress.model_io import check_output, load_model
from onnxcompress.progress import Progress, silent


def calibrate_parts(
    model: str | Path,
    output: str | Path,
    *,
    data: Sequence[str | Path] = (),
    images: ImageOptions | None = None,
    method: str = "minmax",
    tensors: Iterable[str] | None = None,
    percentile: float = 99.99,
    merge: Sequence[str | Path] = (),
    threads: int = 0,
    resume: str | os.PathLike[str] | None = None,
    progress: Progress = silent,
) -> Ranges:
    """Calibrate on `data` (where given), merge in the files `merge`, and write the result to `output`.

    What can be refused is refused before the model is run. `resume` is a folder that keeps the state of the
    calibration, as for `calibrate`.

    Raises:
        CalibrationError: as for `calibrate` and `Ranges.merge`; a file to merge that is of another model.
        DataError, ModelError: as for `calibrate`.
    """
    check_output(model, output, others=data)
    loaded = load_model(model)
    parts = [Ranges.load(path) for path in merge]
    create_observer(method, percentile)
    wanted = (method, percentile if method == "percentile" else None)
    for path, part in zip(merge, parts, strict=True):
        try:
            part.check(loaded)
        except CalibrationError as error:
            raise CalibrationError(f"{path}: {error}") from error
        if data and (part.method, part.percentile) != wanted:
            raise CalibrationError(f"{path}: ranges by {part.method_text}, and --method asks for another")
    if data:
        feeds = open_data(data, loaded, images=images)
        parts.insert(
            0,
            calibrate(
                loaded,
                feeds,
                method=method,
                tensors=tensors,
                percentile=percentile,
                threads=threads,
                resume=resume,
                progress=progress,
            ),
        )
    ranges = reduce(Ranges.merge, parts)
    ranges.save(output)
    return ranges
