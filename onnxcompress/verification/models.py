"""The two models, opened side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
import onnxruntime as ort

from onnxcompress.data import Array, Feed
from onnxcompress.errors import DataError
from onnxcompress.runtime.session import run


@dataclass(frozen=True)
class Pair:
    """Sessions of the original and of the result, and the outputs that both have.

    Attributes:
        source, path: files of the original and of the result.
        model: the original.
        outputs: names of its outputs that are tensors.
    """

    original: ort.InferenceSession
    result: ort.InferenceSession
    source: Path
    path: Path
    model: ir.Model
    outputs: tuple[str, ...]

    def run(self, feed: Feed) -> tuple[list[Array], list[Array]]:
        """Outputs of both.

        Raises:
            OriginalRefusesError: the original does not run this feed.
            DataError: only the result does not.
        """
        try:
            wanted = run(self.original, feed, self.outputs)
        except DataError as error:
            raise OriginalRefusesError(str(error)) from error
        return wanted, run(self.result, feed, self.outputs)


class OriginalRefusesError(DataError):
    """The original model itself does not run a feed."""


def shared_outputs(model: ir.Model, sessions: Sequence[ort.InferenceSession]) -> tuple[str, ...]:
    """Outputs of the model that are tensors (not maps or sequences) and that all sessions have."""
    names = [str(value.name) for value in model.graph.outputs if isinstance(value.type, ir.TensorType)]
    there = [{output.name for output in session.get_outputs()} for session in sessions]
    return tuple(name for name in names if all(name in known for known in there))
