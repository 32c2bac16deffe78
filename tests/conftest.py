"""Fixtures that all tests share."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir
import pytest

# `from tests.zoo import ...` must work however pytest was started; last, so that it hides nothing installed.
sys.path.append(str(Path(__file__).parents[1]))

# Whatever starts a program in the background makes it deaf to Ctrl-C, and all that it starts: tests send Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from tests.models import small_cnn, wide_cnn
from tests.zoo import ZOO, ZooModel


@pytest.fixture(scope="session", autouse=True)
def times_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Times that tests measure stay out of the user's cache."""
    os.environ["ONNXCOMPRESS_CACHE"] = str(tmp_path_factory.mktemp("times"))


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


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short races: here it does not matter who wins."""
    from onnxcompress import delivery, workbench

    monkeypatch.setattr(workbench, "RACE_SECONDS", 0.1)
    monkeypatch.setattr(delivery, "SECONDS", 0.2)


@pytest.fixture
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that runs in microseconds."""
    path = tmp_path_factory.mktemp("source") / "small.onnx"
    ir.save(small_cnn(), path)
    return path


@pytest.fixture
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that int8 speeds up."""
    path = tmp_path_factory.mktemp("source") / "wide.onnx"
    ir.save(wide_cnn(), path)
    return path
