"""How far two results are apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from onnxcompress.runtime.session import open_session, run

Array = np.ndarray[Any, Any]


def distance(a: torch.Tensor | Array, b: torch.Tensor | Array) -> float:
    """The norm of the difference over the norm of b."""
    first, second = (np.asarray(x.detach().numpy() if isinstance(x, torch.Tensor) else x, np.float64) for x in (a, b))
    return float(np.linalg.norm(first - second)) / max(float(np.linalg.norm(second)), 1e-30)


def in_runtime(model: ir.Model, feed: dict[str, Array]) -> list[Array]:
    """The outputs of the graph as it is written: what ONNX Runtime fuses may round differently."""
    return run(open_session(model, threads=1, optimize=False), feed)
