"""What a model was pruned to and how long it was tuned, as plain data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from onnxcompress.evaluation import Metric
from onnxcompress.passes.prune import checked_sparsity
from onnxcompress.pruning.options import Options, Pattern

BY_USER = "eval"
"""In the place of a metric: the user's own evaluation."""


@dataclass(frozen=True)
class Slim:
    """A pruned and distilled float model.

    Attributes:
        pattern: of what is removed: channels (whole ones, with neurons and heads), or one of the patterns of masks.
        sparsity: share of the weights removed; of masks.
        macs: share of the multiply-accumulates kept; of channels.
        steps: of distillation afterwards.
        seed: of the order of the data in it.
        metric: what the best state in it was chosen by: a metric of `compress`, or BY_USER; empty: not distilled, or
            by a version that did not say.

    Raises:
        ValueError: what does not go together.
    """

    pattern: Pattern
    sparsity: float | None = None
    macs: float | None = None
    steps: int = 0
    seed: int = 0
    metric: str = ""

    def __post_init__(self) -> None:
        Options(self.pattern, self.sparsity, self.macs)

    def as_table(self) -> dict[str, str | float]:
        """For a recipe."""
        return {key: value for key, value in dataclasses.asdict(self).items() if value not in (None, "")}

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> Slim:
        """What `as_table` was made of."""
        return cls(**table)

    @classmethod
    def fits(cls, table: Mapping[str, Any]) -> bool:
        """Is this what `as_table` gives?"""
        kinds = {"pattern": str, "sparsity": float, "macs": float, "steps": int, "seed": int, "metric": str}
        if any(type(value) is not kinds.get(key) for key, value in table.items()):
            return False
        if not all(math.isfinite(value) for value in table.values() if isinstance(value, float)):
            return False
        if table.get("metric", BY_USER) not in (*get_args(Metric), BY_USER):
            return False
        try:
            return cls.of(table).steps >= 0
        except (TypeError, ValueError):
            return False

    def describe(self) -> str:
        """A few words for people."""
        if self.macs is not None:
            words = f"channels pruned to {self.macs:.0%} of the work"
        else:
            words = f"{checked_sparsity(self.pattern, self.sparsity):.0%} pruned ({self.pattern})"
        return f"{words}, distilled for {self.steps} steps" if self.steps else words
