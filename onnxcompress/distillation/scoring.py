"""The score of a student on the way: the model as it would be written, in ONNX Runtime."""

from __future__ import annotations

import time

import onnx_ir as ir

from onnxcompress.data import DataSet
from onnxcompress.evaluation import Agreement, EvaluateFunction, Evaluator, Metric, Score, UserEvaluator
from onnxcompress.runtime.session import open_session


class Scorer:
    """Scores models, and remembers how long that takes.

    Attributes:
        reference: the teacher's own score (with agreement: 1).
        seconds: that the last score took.
    """

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self.reference: Score = evaluator.original
        self.seconds = 0.0

    def __call__(self, model: ir.Model) -> Score:
        """Score a model.

        Raises:
            CompressError: ONNX Runtime refuses the model, or the evaluation fails.
        """
        started = time.monotonic()
        score = self._evaluator.score(open_session(model))
        self.seconds = time.monotonic() - started
        return score


def make_scorer(
    original: ir.Model, held_out: DataSet, evaluate: str | EvaluateFunction | None, metric: Metric
) -> Scorer:
    """Score by the user's function, or by agreement with the original on held-out feeds.

    Args:
        original: the teacher with the student's output names; the student itself where there is no teacher.

    Raises:
        EvaluationError: the function fails on the original, or there is nothing to measure on.
    """
    session = open_session(original)
    if evaluate is not None:
        return Scorer(UserEvaluator(evaluate, session))
    return Scorer(Agreement(session, original, held_out, metric))
