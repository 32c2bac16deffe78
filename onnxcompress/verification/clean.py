"""Agreement with the original on the data as it is: one walk over all feeds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from onnxcompress.data import DataSet
from onnxcompress.errors import DataError
from onnxcompress.evaluation import EvaluateFunction, UserEvaluator, agreement, lower_bound
from onnxcompress.progress import Progress
from onnxcompress.verification.difference import Differences
from onnxcompress.verification.models import OriginalRefusesError, Pair
from onnxcompress.verification.results import Check, at_least, at_most, skipped, stated
from onnxcompress.verification.sample import Sample

SECTION = "clean data"

DEFAULT_TOLERANCE = 0.02
"""Twice what `compress` gives away by default: it measures on a fifth of the data, this on all of it. Measured on the
project's real models: what `compress` accepts reaches 0.988 and more here, what it refuses (a text recogniser in plain
static int8) 0.976."""

NORM_SHARE = 1.5


def error_limit(tolerance: float) -> float:
    """The limit of an output's relative error where its agreement may fall short of 1 by `tolerance`.

    Vectors of one length whose cosine is 1 - t differ by sqrt(2 t) of it; half as much again leaves room for another
    length. 0.3 for 0.02: models that `compress` accepts reach 0.16.
    """
    return NORM_SHARE * math.sqrt(2 * tolerance)


@dataclass
class Clean:
    """What the walk over the data found.

    Attributes:
        sample: feeds to perturb.
        differences: of every output, over all feeds.
        means, least: agreement by output: its mean over feeds, and the least.
    """

    sample: Sample
    differences: Differences
    metrics: dict[str, str]
    means: dict[str, float] = field(default_factory=dict)
    least: dict[str, float] = field(default_factory=dict)
    failure: str = ""

    @property
    def errors(self) -> dict[str, float]:
        return self.differences.errors({})


def walk(pair: Pair, feeds: DataSet, metrics: dict[str, str], sample: Sample, progress: Progress) -> Clean:
    """Run both models over all feeds; nothing is kept of a feed but what the sample keeps.

    Raises:
        DataError: the original does not run a feed, or there is none.
    """
    clean = Clean(sample, Differences(pair.outputs), {name: metrics[name] for name in pair.outputs if name in metrics})
    sums = dict.fromkeys(clean.metrics, 0.0)
    for feed in feeds:
        progress("clean data", sample.seen, None)
        try:
            wanted, found = pair.run(feed)
        except OriginalRefusesError:
            raise
        except DataError as error:
            clean.failure = f"feed {sample.seen}: {error}; the original runs it"
            return clean
        sample.add(feed)
        clean.differences.add(wanted, found)
        for name, a, b in zip(pair.outputs, wanted, found, strict=True):
            if name not in clean.metrics:
                continue
            if clean.metrics[name] == "top1" and (a.ndim == 0 or a.shape[-1] < 2):
                clean.metrics[name] = "cosine"
            score = agreement(a, b, clean.metrics[name])
            sums[name] += score
            clean.least[name] = min(score, clean.least.get(name, score))
    if not sample.seen:
        raise DataError(f"{feeds.name}: no feeds to verify with")
    clean.means = {name: total / sample.seen for name, total in sums.items()}
    return clean


def agreement_checks(clean: Clean, tolerance: float | None) -> Iterator[Check]:
    """Agreement and relative error of every output; `tolerance` None: shown, and held to nothing."""
    free = "--eval decides; give --tolerance to hold it to one"
    for name, mean in clean.means.items():
        title = f"{clean.metrics[name]} of {name}"
        note = f"lowest of a feed {clean.least[name]:.4g}"
        if tolerance is None:
            yield skipped(SECTION, title, f"{note}; {free}", mean)
        else:
            yield at_least(SECTION, title, mean, 1 - tolerance, note)
    for name, error in clean.errors.items():
        title = f"error of {name}" if name in clean.metrics else f"share of {name} that differs"
        told = clean.differences.outputs[name].told()
        if tolerance is None and math.isfinite(error):
            yield skipped(SECTION, title, "; ".join(filter(None, (told, free))), error)
        else:
            limit = error_limit(tolerance or DEFAULT_TOLERANCE) if name in clean.metrics else tolerance or 0.0
            yield at_most(SECTION, title, error, limit, told)


def score_check(pair: Pair, evaluate: str | EvaluateFunction, max_drop: float) -> Check:
    """The user's score of both models.

    Raises:
        EvaluationError: the function fails, or gives something that is not a score.
    """
    evaluator = UserEvaluator(evaluate, pair.original)
    original = evaluator.original.value
    found = evaluator.score(pair.result)
    drop = f"the original's is {original:.6g}, at most {max_drop:.2%} may be lost"
    return at_least(SECTION, f"score {found.name}", found.value, lower_bound(original, max_drop), drop)


def failed_walk(clean: Clean) -> Check:
    """The row for a result that does not run a feed of the data."""
    return stated(SECTION, "runs", clean.failure)
