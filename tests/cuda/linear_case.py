"""Random layers for the kernels of linear.cu and sparse24.cu, run and held to the numpy reference of QLinear."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnxcompress.ops.qlinear import QLINEAR
from tests.cuda.emulated import Emulated
from tests.cuda.epilogue import Epilogue, activation_number

Array = np.ndarray[Any, Any]


class Linear(ctypes.Structure):
    """Of csrc/cuda/linear.hpp."""

    _fields_ = (
        ("x", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
        ("m", ctypes.c_int64),
        ("n", ctypes.c_int),
        ("k", ctypes.c_int),
        ("multiprocessors", ctypes.c_int),
        ("scratch", ctypes.c_void_p),
        ("epilogue", Epilogue),
    )


@dataclass(frozen=True)
class Case:
    """A layer; `processors` decides about tiles and slices."""

    m: int
    n: int
    k: int
    processors: int = 1
    activation: str = ""
    bias: bool = True
    residual: bool = False
    floats: bool = False
    rows: bool = False  # x is quantized row by row
    table: bool = False
    y_vector: bool = False
    seed: int = 0


@dataclass
class Layer:
    """Arrays of a case."""

    case: Case
    x: Array
    w: Array
    x_scale: Array
    x_zero: Array
    w_scale: Array
    bias: Array | None
    residual: Array | None
    y_scale: Array = field(default_factory=lambda: np.ones((), np.float32))
    y_zero: int = 7
    table: Array | None = None

    def reference(self, quantized: bool) -> Array:
        """y without its table, or y_float."""
        inputs = [self.x, self.x_scale, self.x_zero, self.w, self.w_scale, self.bias, self.residual]
        inputs += [self.y_scale, np.asarray(self.y_zero, np.uint8), None] if quantized else [None, None, None]
        outputs = QLINEAR.reference({"activation": self.case.activation, "dynamic": 0}, *inputs)
        result = outputs[0 if quantized else 1]
        assert result is not None
        return result


def random_layer(case: Case, w: Array | None = None) -> Layer:
    """Results that fill the range of y, some beyond it."""
    rng = np.random.default_rng(case.seed + 1000 * case.m + 10 * case.n + case.k)
    weights = rng.integers(-128, 128, (case.n, case.k)).astype(np.int8) if w is None else w
    per_row = (case.m, 1) if case.rows else ()
    layer = Layer(
        case,
        x=rng.integers(0, 256, (case.m, case.k)).astype(np.uint8),
        w=weights,
        x_scale=np.asarray(rng.uniform(0.01, 0.03, per_row), np.float32),
        x_zero=np.asarray(rng.integers(100, 150, per_row), np.uint8),
        w_scale=rng.uniform(0.5, 2, case.n).astype(np.float32) * np.float32(0.02 / np.sqrt(case.k)),
        bias=rng.uniform(-1, 1, case.n).astype(np.float32) if case.bias else None,
        residual=rng.uniform(-2, 2, (case.m, case.n)).astype(np.float32) if case.residual else None,
        table=rng.integers(0, 256, 256).astype(np.uint8) if case.table else None,
    )
    spread = float(np.abs(layer.reference(False)).max(initial=0.1))
    scale = np.float32(spread / 200)
    layer.y_scale = rng.uniform(0.7, 1.4, case.n).astype(np.float32) * scale if case.y_vector else np.asarray(scale)
    return layer


def run(library: Emulated, function: str, layer: Layer) -> tuple[Array, tuple[int, int]]:
    """y or y_float as the kernel computes it, and the plan: kernel and slices."""
    case = layer.case
    shape = (case.m, case.n)
    weight_sums, plan = np.full(case.n, 99, np.int32), np.zeros(2, np.int32)
    fields: dict[str, Any] = {
        "columns": case.n, "weight_sums": weight_sums, "activation": activation_number(case.activation)
    }  # fmt: skip
    if case.rows:
        fields |= {"scale": layer.w_scale, "row_scale": layer.x_scale.ravel(), "row_zero": layer.x_zero.ravel()}
    else:
        fields |= {"scale": (layer.x_scale * layer.w_scale).astype(np.float32), "x_zero": int(layer.x_zero)}
    if layer.bias is not None:
        fields["bias"] = layer.bias
    if layer.residual is not None:
        fields["residual_float"] = layer.residual
    y: Array
    if case.floats:
        y = fields["y_float"] = np.full(shape, np.nan, np.float32)
    else:
        y = fields["y"] = np.full(shape, 255, np.uint8)
        fields["y_zero"] = layer.y_zero
        if case.y_vector:
            fields["y_inverse_vector"] = (1 / layer.y_scale).astype(np.float32)
        else:
            fields["y_inverse"] = float(np.float32(1) / layer.y_scale)
        if layer.table is not None:
            fields["table"] = layer.table
    epilogue = library.structure(Epilogue, **fields)
    arguments = library.structure(
        Linear, x=layer.x, m=case.m, n=case.n, k=case.k, multiprocessors=case.processors, epilogue=epilogue
    )
    library.call(function, layer.w, arguments, weight_sums, plan)
    return y, (int(plan[0]), int(plan[1]))


def check(layer: Layer, y: Array) -> None:
    """Floats to single precision; bytes exactly, but for one step in a few where the real result is near a tie."""
    case = layer.case
    expected = layer.reference(not case.floats)
    if case.floats:
        np.testing.assert_allclose(y, expected, rtol=0, atol=3e-6 * max(1.0, float(np.abs(expected).max(initial=0))))
        return
    steps = expected.astype(int)[..., None] + np.array([0, -1, 1])
    allowed = np.clip(steps, 0, 255)
    if layer.table is not None:
        allowed = layer.table[allowed]
    wrong = ~(y[..., None] == allowed).any(-1)
    assert not wrong.any(), f"{wrong.sum()} of {y.size} wrong, the first at {np.argwhere(wrong)[0]}"
    assert (y != allowed[..., 0]).mean() < 2e-3 + 2 / max(1, y.size)


def check_layer(library: Emulated, function: str, case: Case, w: Array | None = None) -> tuple[int, int]:
    """Runs a random layer of this case, compares, and returns the plan."""
    layer = random_layer(case, w)
    y, plan = run(library, function, layer)
    check(layer, y)
    return plan
