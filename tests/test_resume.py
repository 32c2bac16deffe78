"""Scores kept in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxcompress.errors import CompressError
from onnxcompress.evaluation import Score
from onnxcompress.recipe import Recipe
from onnxcompress.resume import Resume


def never() -> Score:
    raise AssertionError("measured again")


def test_scores_outlive_the_process(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    first = Score(0.1 + 0.2, "cosine of y")
    assert Resume.open(folder).score(Recipe(), "key", lambda: first) == first
    assert Resume.open(folder).score(Recipe(), "key", never) == first


def test_other_recipes_and_other_evaluations_are_measured(tmp_path: Path) -> None:
    memory = Resume.open(tmp_path)
    memory.score(Recipe(), "key", lambda: Score(1.0, "s"))
    assert memory.score(Recipe(mode="dynamic"), "key", lambda: Score(2.0, "s")).value == 2.0
    assert memory.score(Recipe(), "other data", lambda: Score(3.0, "s")).value == 3.0


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Resume.open(None).score(Recipe(), "key", lambda: Score(1.0, "s")).value == 1.0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["{", "[]", '{"key": 3}', '{"key": {"r": 1}}', '{"key": {"r": ["x", "y"]}}'])
def test_a_damaged_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "scores.json").write_text(text)
    with pytest.raises(CompressError, match=r"cannot be used .* give an empty folder"):
        Resume.open(tmp_path)


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CompressError, match="--resume"):
        Resume.open(tmp_path / "file")
