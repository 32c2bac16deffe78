"""`verify`: is a result a sound stand-in for its original?"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxcompress.data import Data, ImageOptions, open_data
from onnxcompress.errors import ModelError, SignatureError
from onnxcompress.evaluation import EvaluateFunction, Metric, output_metrics
from onnxcompress.model_io import Source, check_file, load_model, saved_model
from onnxcompress.passes.lower import native_nodes
from onnxcompress.progress import Progress, silent
from onnxcompress.runtime.session import open_session
from onnxcompress.verification.clean import (
    DEFAULT_TOLERANCE,
    agreement_checks,
    failed_walk,
    score_check,
    walk,
)
from onnxcompress.verification.consistency import consistency_checks
from onnxcompress.verification.models import Pair, shared_outputs
from onnxcompress.verification.results import Check, Verification, skipped, stated
from onnxcompress.verification.robustness import robustness_checks
from onnxcompress.verification.sample import Sample
from onnxcompress.verification.sizes import size_checks
from onnxcompress.verification.structure import load_checks, structure_checks

if TYPE_CHECKING:
    from onnxcompress.signing import Trust

SAMPLED = 32
"""Feeds that are perturbed, at most (fewer large ones, see `Sample`)."""

DATA_SECTIONS = ("clean data", "robustness", "consistency")


def verify(
    original: Source | None,
    result: Source,
    *,
    data: Data | Sequence[str | Path] | None = None,
    evaluate: str | EvaluateFunction | None = None,
    max_drop: float = 0.01,
    tolerance: float | None = None,
    metric: Metric = "auto",
    signature: str | os.PathLike[str] | None = None,
    trust: Trust | None = None,
    images: ImageOptions | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Verification:
    """Check a compressed model: who signed it, its structure, and that it does what its original does.

    1. signature, with `trust`: of model and external data. Where it does not hold, nothing of the model is opened.
    2. structure: it is sound and valid, takes and gives what the original does, carries the function bodies of our
       operators, and was made from this original (where it says what it was made from).
    3. load: ONNX Runtime opens it with and without the library.
    4. clean data: agreement with the original as in `compress`, mean over all feeds, at least 1 - tolerance; relative
       error (norm of the difference over the norm, over all feeds) at most 1.5 sqrt(2 tolerance); with `evaluate` the
       score, at least the original's - max_drop * |original's|.
    5. robustness, on at most 32 of the feeds: both models get the same perturbed feeds. Noise of 0.05 to 0.5 standard
       deviations, blur of images, 5 to 50 % of ids replaced, 1.5 times the contrast: fails with an error over 0.3 that
       is also over three times the clean one. Extremes (all values at the data's limits, 4 or 16 times as large),
       constant inputs, empty and odd sizes: the result must run, and be finite, where the original does and is.
    6. consistency: a batch against its feeds one by one, and function bodies against the library, within twice the
       clean error; threads against one thread within float rounding (1e-4).

    Args:
        original: a path or a model; None: only what 1 to 3 tell of the result alone.
        result: likewise. A signature takes a path.
        data: feeds, see `open_data`; walked once, plus what `evaluate` does. None: 4 to 6 are skipped.
        evaluate: `FN(run) -> float`, higher is better. Agreement is shown then, and held to `tolerance` only where
            that is given: a pruned model may do its work well and give other numbers.
        tolerance: see 4; None: 0.02.
        metric: cosine, top1 or snr for all outputs; auto: as in `compress`.
        signature: `<result>.sig` when None.
        trust: whose signature counts; None: no signature is looked at.
        images: how a folder of images is read.
        seed: of the feeds that are perturbed, and of the noise.
        progress: called as work goes on.

    Raises:
        ValueError: arguments that do not go together.
        ModelError: the original cannot be read or opened (what is wrong with the result is a failed check).
        DataError: the data cannot be read, does not fit the original, or has no feeds.
        EvaluationError: the function fails, or gives something that is not a score.
    """
    _check_arguments(original, result, data, evaluate, tolerance, max_drop, signature, trust)
    checks: list[Check] = []
    if not isinstance(result, ir.Model):
        check_file(result)
    names = ["" if path is None or isinstance(path, ir.Model) else str(path) for path in (original, result)]
    counts = (0, 0)
    if trust is not None and not isinstance(result, ir.Model):
        checks.append(_signature(Path(result), signature, trust))
    if checks and checks[0].outcome == "fail":
        checks.append(skipped("structure", "reads", "the signature does not hold: nothing of the model was opened"))
    else:
        with contextlib.ExitStack() as stack:
            source = None if original is None else stack.enter_context(saved_model(original))
            path = stack.enter_context(saved_model(result))
            found, pair = _open(path, source, "" if isinstance(original, ir.Model) else names[0])
            checks += found
            if pair is not None and data is not None:
                held = DEFAULT_TOLERANCE if tolerance is None and evaluate is None else tolerance
                compared = _Comparison(pair, evaluate, max_drop, held, metric, seed, progress)
                checks += compared.checks(data, images)
                counts = compared.counts
            else:
                reason = "no data" if data is None else "the result cannot be run beside the original"
                checks += [skipped(section, "all", reason) for section in DATA_SECTIONS if original is not None]
    return Verification(names[0], names[1], tuple(checks), *counts, seed)


def _check_arguments(
    original: Source | None,
    result: Source,
    data: object,
    evaluate: object,
    tolerance: float | None,
    max_drop: float,
    signature: object,
    trust: Trust | None,
) -> None:
    if original is None and (data is not None or evaluate is not None):
        raise ValueError("data and an evaluation compare with an original: give it")
    if evaluate is not None and data is None:
        raise ValueError("an evaluation goes with data")
    if tolerance is not None and not 0 <= tolerance <= 1:
        raise ValueError("tolerance is a share between 0 and 1 (0.02 is 2 %)")
    if not 0 <= max_drop <= 1:
        raise ValueError("max_drop is a share between 0 and 1 (0.01 is 1 %)")
    if signature is not None and trust is None:
        raise ValueError("a signature is checked with a key: say whom to trust")
    if trust is not None and isinstance(result, ir.Model):
        raise ValueError("a signature is of a file: give the path of the result")


def _signature(path: Path, signature: str | os.PathLike[str] | None, trust: Trust) -> Check:
    from onnxcompress.signing import check_signature

    try:
        signed = check_signature(
            path, signature, public_key=trust.public_key, certificates=trust.certificates, identity=trust.identity,
            issuer=trust.issuer,
        )  # fmt: skip
    except (SignatureError, ModelError) as error:
        return stated("signature", "holds", str(error))
    return stated("signature", "holds", "", measured=trust.kind, note=f"covers {', '.join(signed.files)}")


def _open(path: Path, source: Path | None, original_name: str) -> tuple[list[Check], Pair | None]:
    """The checks that run nothing, and both models opened side by side, where the result can be."""
    model = None if source is None else load_model(source)
    try:
        result = load_model(path)
    except ModelError as error:
        return [stated("structure", "reads", str(error))], None
    original_file = source if original_name else None
    checks = list(structure_checks(result, path, model, original_file))
    loads, session = load_checks(path)
    checks += loads
    if model is None or source is None or session is None:
        return checks, None
    original = open_session(source)
    outputs = shared_outputs(model, (original, session))
    if not outputs or {i.name for i in session.get_inputs()} - {i.name for i in original.get_inputs()}:
        return checks, None
    return checks, Pair(original, session, source, path, model, outputs)


@dataclass
class _Comparison:
    """Sections 4 to 6.

    Attributes:
        tolerance: None: agreement is shown, and held to nothing.
        counts: feeds that were run, and those of them that were perturbed.
    """

    pair: Pair
    evaluate: str | EvaluateFunction | None
    max_drop: float
    tolerance: float | None
    metric: Metric
    seed: int
    progress: Progress
    counts: tuple[int, int] = (0, 0)

    def checks(self, data: Data | Sequence[str | Path], images: ImageOptions | None) -> Iterator[Check]:
        """Rows in the order of the table."""
        feeds = open_data(data, self.pair.model, images=images)
        metrics = output_metrics(self.pair.model, self.metric)
        clean = walk(self.pair, feeds, metrics, Sample(SAMPLED, self.seed), self.progress)
        self.counts = clean.sample.seen, len(clean.sample.feeds)
        if clean.failure:
            yield failed_walk(clean)
            return
        yield from agreement_checks(clean, self.tolerance)
        if self.evaluate is not None:
            self.progress("the evaluation", 0, None)
            yield score_check(self.pair, self.evaluate, self.max_drop)
        yield from robustness_checks(self.pair, clean, self.seed, self.progress)
        yield from size_checks(self.pair, clean, self.progress)
        native = bool(native_nodes(load_model(self.pair.path)))
        yield from consistency_checks(self.pair, clean, native, self.progress)
