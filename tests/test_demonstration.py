"""The model of the demo: trained here, once."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

import onnxcompress
from onnxcompress import demonstration
from onnxcompress.demonstration import EPOCHS, train_digits
from onnxcompress.errors import CompressError
from onnxcompress.runtime import open_session
from onnxcompress.runtime.session import run


@pytest.mark.parametrize(("epochs", "accuracy"), [(2, 0.9), pytest.param(EPOCHS, 0.97, marks=pytest.mark.slow)])
def test_training_exports_and_classifies(epochs: int, accuracy: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demonstration, "EPOCHS", epochs)
    seen: list[int] = []
    state = torch.random.get_rng_state()
    module, feeds, evaluate = train_digits(progress=lambda stage, done, total: seen.append(done))
    assert seen == list(range(epochs + 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not module.training
    assert 300_000 < sum(parameter.numel() for parameter in module.parameters()) < 1_000_000
    assert all(n % 16 == 0 for p in module.parameters() if p.ndim == 4 for n in p.shape[:1])
    assert len(feeds) == 256
    assert all(feed["image"].shape == (1, 1, 32, 32) and feed["image"].dtype == np.float32 for feed in feeds)
    assert all(0 <= feed["image"].min() <= feed["image"].max() <= 1 for feed in feeds)
    session = open_session(onnxcompress.export(module, {"image": torch.from_numpy(feeds[0]["image"])}))
    assert evaluate(lambda feed: run(session, feed)) >= accuracy
    assert evaluate(lambda feed: [np.eye(10)[:1]]) < 0.2


@pytest.mark.parametrize(("package", "message"), [
    ("torch", r"pip install 'onnxcompress\[torch\]'"),
    ("sklearn.datasets", "pip install scikit-learn"),
])  # fmt: skip
def test_missing_packages(package: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(CompressError, match=message):
        train_digits()
