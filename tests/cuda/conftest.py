"""Fixtures of the tests of CUDA kernels on machines that have no GPU."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.cuda.emulated import Emulated, build
from tests.cuda.library import EMULATED, build_library, missing_tool

Emulate = Callable[[str, Sequence[str], str], Emulated]


@pytest.fixture(scope="session")
def emulate(tmp_path_factory: pytest.TempPathFactory) -> Emulate:
    """`emulate(family, sources, bindings)`: that family's library, built once in a session. See emulated.build."""
    built: dict[str, Emulated] = {}

    def get(family: str, sources: Sequence[str], bindings: str) -> Emulated:
        if shutil.which("g++") is None:
            pytest.skip("no g++")
        if family not in built:
            built[family] = Emulated(build(tmp_path_factory.mktemp(family), sources, bindings))
        return built[family]

    return get


@pytest.fixture(scope="session")
def emulated_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library with its CUDA operators emulated, built once in a session, or that which EMULATED names."""
    if given := os.environ.get(EMULATED):
        return Path(given)
    if tool := missing_tool("EMULATED"):
        pytest.skip(f"no {tool}")
    return build_library(tmp_path_factory.mktemp("emulated_library"), "EMULATED")


@pytest.fixture(params=["forward", "reversed"])
def order(request: pytest.FixtureRequest) -> Iterator[str]:
    """The order in which the threads of a block run; a test that takes this fixture runs in both."""
    Emulated.reversed = request.param == "reversed"
    yield request.param
    Emulated.reversed = False
