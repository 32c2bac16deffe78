"""Checkpoints: whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from onnxcompress.distillation.checkpoints import FILE, Checkpoints
from onnxcompress.errors import CompressError


def test_a_state_comes_back(tmp_path: Path) -> None:
    checkpoints = Checkpoints.open(tmp_path / "new", "key")
    assert checkpoints.load() is None
    for step in (1, 2):
        checkpoints.save({"step": step, "tensor": torch.arange(3), "best": None, "parts": [{"kl": 0.5}]})
    state = Checkpoints.open(tmp_path / "new", "key").load()
    assert state is not None and state["tensor"].tolist() == [0, 1, 2]
    wanted = {"step": 2, "best": None, "parts": [{"kl": 0.5}], "key": "key"}
    assert {name: state[name] for name in wanted} == wanted
    assert [path.name for path in (tmp_path / "new").iterdir()] == [FILE]


def test_without_a_folder_nothing_is_kept() -> None:
    checkpoints = Checkpoints.open(None, "key")
    checkpoints.save({"step": 1})
    assert checkpoints.load() is None


def test_what_fails_leaves_the_last_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints.open(tmp_path, "key")
    checkpoints.save({"step": 1})

    def full(state: object, stream: Any) -> None:
        stream.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CompressError, match=r"cannot be written \(no space left on device\)"):
        checkpoints.save({"step": 2})
    state = checkpoints.load()
    assert state is not None and state["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    checkpoints = Checkpoints.open(tmp_path / "gone", "key")
    (tmp_path / "gone").rmdir()
    with pytest.raises(CompressError, match="cannot be written"):
        checkpoints.save({"step": 1})


def test_code_in_a_checkpoint_does_not_run(tmp_path: Path) -> None:
    """The file is read as tensors, numbers and containers only."""
    torch.save({"key": "key", "path": Path("x")}, tmp_path / FILE)
    with pytest.raises(CompressError, match="cannot be read"):
        Checkpoints.open(tmp_path, "key").load()
