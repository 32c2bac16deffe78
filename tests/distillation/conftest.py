"""A trained digit reader, made once."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir
import pytest
import torch

from tests.distillation.networks import trained


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Small networks are faster so, and the same to the bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def _trained(_one_thread: None) -> ir.Model:
    return trained()


@pytest.fixture
def teacher(_trained: ir.Model) -> ir.Model:
    """Reads digits."""
    return _trained.clone()
