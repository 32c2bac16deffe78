"""Fixtures that all tests share."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# `from tests.zoo import ...` must work however pytest was started; last, so that it hides nothing installed.
sys.path.append(str(Path(__file__).parents[1]))

from tests.zoo import ZOO, ZooModel


@pytest.fixture(scope="session")
def zoo() -> Callable[[str], ZooModel]:
    """`zoo(name)` is a model of the zoo, its file in the cache.

    A download that fails fails the test; with ONNXCOMPRESS_NO_ZOO=1 the test is skipped instead.
    """

    def get(name: str) -> ZooModel:
        if os.environ.get("ONNXCOMPRESS_NO_ZOO") == "1":
            pytest.skip("ONNXCOMPRESS_NO_ZOO=1: no zoo models")
        ZOO[name].path()
        return ZOO[name]

    return get


@pytest.fixture(params=list(ZOO))
def zoo_model(request: pytest.FixtureRequest, zoo: Callable[[str], ZooModel]) -> ZooModel:
    """Every model of the zoo in turn."""
    return zoo(request.param)


@pytest.fixture(autouse=True)
def _own_search_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading a user's file puts its folder on `sys.path`: not beyond the test that does it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
