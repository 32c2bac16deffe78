"""The state of a run in a folder, so that one that was killed goes on where it was."""

from __future__ import annotations

import contextlib
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from onnxcompress.errors import CompressError
from onnxcompress.files import publish

FILE = "distillation.pt"


@dataclass(frozen=True)
class Checkpoints:
    """One file in a folder, written whole or not at all.

    Attributes:
        file: None keeps nothing.
        key: tells this run (student, teacher, data, options) from others.
    """

    file: Path | None
    key: str

    @classmethod
    def open(cls, folder: str | os.PathLike[str] | None, key: str) -> Checkpoints:
        """Take up a folder, which is made if it is missing.

        Raises:
            CompressError: the folder cannot be made.
        """
        if folder is None:
            return cls(None, key)
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CompressError(f"--resume {folder}: cannot be made ({error.strerror or error})") from error
        return cls(Path(folder) / FILE, key)

    def load(self) -> dict[str, Any] | None:
        """The last state; None where there is none yet.

        Raises:
            CompressError: the file is damaged, or of another run.
        """
        if self.file is None or not self.file.is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(self.file, map_location="cpu", weights_only=True)
            key = state["key"]
        except (OSError, RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
            raise CompressError(f"--resume {self.file.parent}: {FILE} cannot be read; give an empty folder") from error
        if key != self.key:
            raise CompressError(
                f"--resume {self.file.parent}: holds a run of another student, teacher, data or options; "
                "give an empty folder"
            )
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Write a state beside the last one, then put it in its place.

        Raises:
            CompressError: it cannot be written.
        """
        if self.file is None:
            return
        new = self.file.with_name(f"{FILE}.new")
        try:
            with open(new, "wb") as stream:
                torch.save({**state, "key": self.key}, stream)
            publish(new, self.file)
        except (OSError, RuntimeError) as error:
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)
            raise CompressError(f"--resume {self.file.parent}: cannot be written ({error})") from error
