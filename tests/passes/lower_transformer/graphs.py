"""QDQ graphs as text, with constants by name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcompress.ops import DOMAIN
from onnxcompress.passes.lower.functions import AttachFunctions
from onnxcompress.passes.lower.transformer.lowering import Lowering
from onnxcompress.passes.simplify import InferShapes
from onnxcompress.runtime import open_session
from tests.models import with_initializers

Array = np.ndarray[Any, Any]
K, N = 8, 6


def constants() -> dict[str, Array]:
    """x_s, x_z: of activations; w: int8 [K, N] and its transpose w_t; and more, by name."""
    rng = np.random.default_rng(5)
    w = rng.integers(-127, 128, (K, N)).astype(np.int8)
    square = rng.integers(-127, 128, (K, K)).astype(np.int8)
    floats = {
        "x_s": 0.02, "y_s": 0.05, "w_s": rng.uniform(0.002, 0.01, N), "s_s": rng.uniform(0.002, 0.01, K),
        "one_s": 0.004, "k_s": rng.uniform(0.002, 0.01, K), "bias": rng.normal(0, 0.3, N), "wide": rng.normal(size=K),
        "gamma": rng.uniform(0.5, 1.5, K), "beta": rng.normal(0, 0.2, K), "smooth": rng.uniform(0.5, 2, K),
        "mixed": rng.normal(size=K), "row": rng.normal(size=(1, N)), "full": rng.normal(size=(4, N)),
        "wide2": rng.normal(size=(K, K)), "half": 0.5,
        "b_s": rng.uniform(1e-4, 2e-4, N), "table": rng.normal(size=(20, K)), "types": rng.normal(size=(2, K)),
        "narrow": rng.normal(size=(20, 4)), "least": 1e-9, "tiny": 1e-12, "minus": -1e-9,
    }  # fmt: skip
    arrays = {name: np.asarray(value, np.float32) for name, value in floats.items()}
    return arrays | {
        "x_z": np.array(120, np.uint8), "y_z": np.array(3, np.uint8), "s_z": np.array(0, np.int8), "w": w,
        "w_t": np.ascontiguousarray(w.T), "w_z": np.zeros(N, np.int8), "odd_z": np.ones(N, np.int8),
        "b": rng.integers(-9000, 9000, N).astype(np.int32), "square": square, "k_z": np.zeros(K, np.int8),
        "i0": np.array([0], np.int64), "i1": np.array([1], np.int64), "last": np.array([-1], np.int64),
        "order": np.arange(3, dtype=np.int64), "two": np.array([2], np.int64),
        "flat_rows": np.array([-1, K], np.int64),
    }  # fmt: skip


def graph(inputs: str, outputs: str, body: str) -> ir.Model:
    """A model of opset 21; names that nothing makes are those of `constants`."""
    text = f"""<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>
    g ({inputs}) => ({outputs}) {{ {body} }}"""
    read, made_here = set(re.findall(r"(\w+)\s*[,)]", body)), set(re.findall(r"(\w+) =", body))
    used = {name: array for name, array in constants().items() if name in read - made_here}
    made = with_initializers(ir.from_onnx_text(text), used)
    InferShapes()(made)
    return made


def applied(step: Lowering, made: ir.Model) -> ir.Model:
    """A copy of a model after a pass, with function bodies."""
    copy = made.clone()
    step(copy)
    AttachFunctions()(copy)
    return copy


def ran(made: ir.Model, feed: dict[str, Array], *, native: bool = False) -> list[Array]:
    """All outputs, of the graph as it is written (ONNX Runtime's own fusions round otherwise)."""
    return [np.asarray(y) for y in open_session(made, native=native, optimize=False).run(None, feed)]


def ops(made: ir.Model) -> list[str]:
    """Types of the nodes of our domain."""
    return [node.op_type for node in made.graph if node.domain == DOMAIN]


def reasons(step: Lowering) -> list[str]:
    """Why nodes stayed."""
    return [d.reason for d in step.decisions if not d.quantized]


def names(nodes: Iterable[ir.Value | None]) -> list[str]:
    """Of values."""
    return [value.name or "" for value in nodes if value is not None]
