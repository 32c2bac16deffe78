"""Other sizes are run in this process, unless a test is about the process of their own: that takes a second each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from onnxcompress.data import Feed
from onnxcompress.errors import DataError
from onnxcompress.runtime.session import open_session, run
from onnxcompress.verification import sizes
from onnxcompress.verification.apart import Answer


def run_here(model: Path, feeds: Sequence[Feed], outputs: Sequence[str]) -> list[Answer]:
    session = open_session(model)
    answers: list[Answer] = []
    for feed in feeds:
        try:
            answers.append(run(session, feed, outputs))
        except DataError as error:
            answers.append(str(error))
    return answers


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setattr(sizes, "run_apart", run_here)
