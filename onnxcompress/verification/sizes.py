"""Feeds of other sizes, where the model leaves its sizes open: empty, single, halved, and less by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from onnxcompress.data import Feed
from onnxcompress.progress import Progress
from onnxcompress.verification.apart import Answer, run_apart
from onnxcompress.verification.axes import Axis, open_axes
from onnxcompress.verification.clean import Clean
from onnxcompress.verification.difference import Differences
from onnxcompress.verification.models import Pair
from onnxcompress.verification.results import Check, skipped, stated, worst
from onnxcompress.verification.sample import Values

SECTION = "robustness"

MOST_AXES = 4


@dataclass(frozen=True)
class Cut:
    """A feed of the data, cut."""

    name: str
    feed: Feed


def size_checks(pair: Pair, clean: Clean, progress: Progress) -> Iterator[Check]:
    """A row for every size: where the original runs it, the result must too, with outputs of the same shape."""
    progress("other sizes", 0, None)
    feed = clean.sample.feeds[0]
    cuts = [cut for axis in open_axes(pair.model)[:MOST_AXES] for cut in _cuts(axis, feed, clean.sample.values)]
    if not cuts:
        yield skipped(SECTION, "other sizes", "the inputs leave no dimension open")
        return
    wanted = run_apart(pair.source, [cut.feed for cut in cuts], pair.outputs)
    asked = [i for i, answer in enumerate(wanted) if not isinstance(answer, str)]
    found = dict(zip(asked, run_apart(pair.path, [cuts[i].feed for i in asked], pair.outputs), strict=True))
    for i, cut in enumerate(cuts):
        yield _judged(cut.name, wanted[i], found.get(i, ""), clean)


def _cuts(axis: Axis, feed: Feed, values: Mapping[str, Values]) -> Iterator[Cut]:
    """Sizes that the feed can be cut to; the sides of images are halved where others become 1."""
    size = min(axis.sizes(feed))
    is_side = any(values[name].kind == "image" and place in values[name].axes for name, place in axis.places.items())
    for other in sorted({0, size // 2 | 1 if is_side else 1, size - 1}):
        if 0 <= other < size:
            yield Cut(f"size {other} of {axis.name}", axis.cut(feed, other))


def _judged(name: str, wanted: Answer, found: Answer, clean: Clean) -> Check:
    if isinstance(wanted, str):
        return skipped(SECTION, name, f"the original does not run it: {wanted}")
    if isinstance(found, str):
        return stated(SECTION, name, f"does not run what the original runs: {found}")
    differences = Differences(clean.differences.names)
    differences.add(wanted, found)
    error = worst(differences.errors(clean.differences.levels))[0]
    return stated(SECTION, name, differences.told(), error, "must run, in the original's shape")
