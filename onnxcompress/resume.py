"""Scores kept in a folder, so that an interrupted search goes on where it stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from onnxcompress.errors import CompressError
from onnxcompress.evaluation import Score
from onnxcompress.files import read_text, write_text
from onnxcompress.recipe import Recipe


@dataclass
class Resume:
    """Scores by evaluation (`Evaluator.key`) and recipe; written after each new one."""

    file: Path | None = None
    scores: dict[str, dict[str, tuple[float, str]]] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: str | os.PathLike[str] | None) -> Resume:
        """Take up a folder, which is made if it is missing; None keeps nothing.

        Raises:
            CompressError: the folder cannot be made, or its file is damaged.
        """
        if folder is None:
            return cls()
        file = Path(folder) / "scores.json"
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            document = json.loads(read_text(file)) if file.is_file() else {}
            scores = {
                evaluation: {recipe: (float(value), str(name)) for recipe, (value, name) in found.items()}
                for evaluation, found in document.items()
            }
        except (CompressError, OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise CompressError(f"--resume {folder}: cannot be used ({error}); give an empty folder") from error
        return cls(file, scores)

    def score(self, recipe: Recipe, evaluation: str, measure: Callable[[], Score]) -> Score:
        """The score of a recipe by an evaluation, measured if it was not yet."""
        found = self.scores.setdefault(evaluation, {})
        key = recipe.digest()
        if key not in found:
            score = measure()
            found[key] = (score.value, score.name)
            if self.file is not None:
                write_text(self.file, json.dumps(self.scores, indent=2) + "\n")
        return Score(*found[key])
