"""The result against itself: in a batch, with other numbers of threads, with and without the library."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnxruntime as ort

from onnxcompress.data import Array, Feed
from onnxcompress.environment import available_cores
from onnxcompress.errors import CompressError, DataError
from onnxcompress.progress import Progress
from onnxcompress.runtime.library import library_path
from onnxcompress.runtime.session import open_session, run
from onnxcompress.verification.axes import BATCH, joined, open_axes, stacked
from onnxcompress.verification.clean import Clean
from onnxcompress.verification.difference import Differences
from onnxcompress.verification.models import Pair
from onnxcompress.verification.results import Check, at_most, skipped, stated, worst

SECTION = "consistency"

STACKED, COMPARED = 4, 8
"""Feeds that make a batch, and that are run with other threads and without the library."""

ROUNDING = 1e-4
"""Of float32 sums in another order. Measured: 0 between threads in all of nine models, 4e-6 in batches."""

APART = 2.0
"""Two forms of the result, each as far from the original as the clean error, may be twice that apart: dynamic ranges
of a batch, and function bodies that round in other places (measured: 0.92 of the clean error in a transformer)."""


def consistency_checks(pair: Pair, clean: Clean, native: bool, progress: Progress) -> Iterator[Check]:
    """Rows for batches, threads and the library; `native`: the result has operators of ours."""
    progress("in a batch", 0, None)
    yield from _batch_checks(pair, clean)
    progress("with other threads", 0, None)
    yield from _thread_checks(pair, clean)
    progress("without the library", 0, None)
    yield _library_check(pair, clean, native)


def _limits(clean: Clean) -> dict[str, float]:
    return {output: max(ROUNDING, APART * error) for output, error in clean.errors.items()}


def _batch_checks(pair: Pair, clean: Clean) -> Iterator[Check]:
    """The original first: where a batch is something else to it than its parts, it is to the result."""
    axes = open_axes(pair.model)
    if not axes or axes[0].name != BATCH:
        yield skipped(SECTION, "batch against one by one", "the inputs leave no batch dimension open")
        return
    feeds, batch = stacked(clean.sample.feeds, axes, STACKED)
    if len(feeds) < 2:
        yield skipped(SECTION, "batch against one by one", "these feeds cannot be stacked")
        return
    name = f"batch of {len(feeds)} against one by one"
    try:
        own = _in_batch(pair.original, pair.outputs, feeds, batch)
    except DataError as error:
        yield skipped(SECTION, name, f"the original does not: {error}")
        return
    apart, output = worst(own.errors({}))
    if apart > ROUNDING:
        yield skipped(SECTION, name, f"the original's outputs depend on the batch ({apart:.2g} {output})".rstrip())
        return
    yield at_most(SECTION, f"original, {name}", apart, ROUNDING, output)
    try:
        yield _within(f"result, {name}", _in_batch(pair.result, pair.outputs, feeds, batch), clean, _limits(clean))
    except DataError as error:
        yield stated(SECTION, f"result, {name}", f"the original runs it: {error}")


def _in_batch(session: ort.InferenceSession, outputs: Sequence[str], feeds: Sequence[Feed], batch: Feed) -> Differences:
    """Outputs of the batch against those of its parts; outputs that cannot be put together have another shape."""
    wholes = run(session, batch, outputs)
    parts = [run(session, feed, outputs) for feed in feeds]
    differences = Differences(outputs)
    single: list[Array] = []
    for i, whole in enumerate(wholes):
        together = joined([part[i] for part in parts], whole)
        single.append(parts[0][i] if together is None else together)
    differences.add(single, wholes)
    return differences


def _thread_checks(pair: Pair, clean: Clean) -> Iterator[Check]:
    """One thread against two and against all cores; the same machine must give the same numbers."""
    feeds = clean.sample.feeds[:COMPARED]
    one = open_session(pair.path, threads=1)
    wanted = [run(one, feed, pair.outputs) for feed in feeds]
    for threads in sorted({2, max(2, available_cores())}):
        name = f"{threads} threads against 1"
        differences = _against(wanted, open_session(pair.path, threads=threads), pair.outputs, feeds)
        yield _within(name, differences, clean, dict.fromkeys(pair.outputs, ROUNDING))


def _library_check(pair: Pair, clean: Clean, native: bool) -> Check:
    name = "function bodies against the library"
    if not native:
        return skipped(SECTION, name, "no operators of the library in it")
    if library_path() is None:
        return skipped(SECTION, name, "this platform has no library")
    feeds = clean.sample.feeds[:COMPARED]
    wanted = [run(pair.result, feed, pair.outputs) for feed in feeds]
    try:
        session = open_session(pair.path, native=False)
        return _within(name, _against(wanted, session, pair.outputs, feeds), clean, _limits(clean))
    except CompressError as error:
        return stated(SECTION, name, str(error))


def _against(
    wanted: Sequence[list[Array]], session: ort.InferenceSession, outputs: Sequence[str], feeds: Sequence[Feed]
) -> Differences:
    differences = Differences(outputs)
    for expected, feed in zip(wanted, feeds, strict=True):
        differences.add(expected, run(session, feed, outputs))
    return differences


def _within(name: str, differences: Differences, clean: Clean, limits: dict[str, float]) -> Check:
    """The output that is furthest over its limit, or nearest to it."""
    errors = differences.errors(clean.differences.levels)
    output = max(errors, key=lambda o: errors[o] / limits[o])
    where = output if len(errors) > 1 else ""
    return at_most(SECTION, name, errors[output], limits[output], differences.told() or where)
