"""Models with quantized weights, lowered to WeightOnlyLinear and compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcompress.passes.lower import LowerWeightOnly
from onnxcompress.passes.lower.functions import AttachFunctions
from onnxcompress.passes.quantize.roles import Decision
from onnxcompress.passes.quantize.weight_only import QuantizeWeights
from onnxcompress.runtime import open_session
from onnxcompress.runtime.session import run
from tests.passes.quantize.models import build, execute, normal, ops, relative

Array = np.ndarray[Any, Any]
Feed = dict[str, Array]

FLOATS = 1e-5
"""Relative tolerance between kernels that add the same numbers in another order."""


def lowered(model: ir.Model, standard: tuple[str, ...] = ()) -> tuple[ir.Model, list[Decision]]:
    """A copy with the pass done and the bodies attached; and its decisions."""
    copy = ir.from_proto(ir.to_proto(model))
    step = LowerWeightOnly(standard)
    modified = step(copy).modified
    assert modified == any(found.quantized for found in step.decisions)
    AttachFunctions()(copy)
    unused = [name for name, value in copy.graph.initializers.items() if not value.uses()]
    assert not unused, "weights were left in the file twice"
    return copy, step.decisions


def check(model: ir.Model, feed: Feed, expected: list[str], tolerance: float = FLOATS) -> list[Decision]:
    """The lowered model has these operators, and gives what the model gives: natively and by its bodies."""
    copy, decisions = lowered(model)
    assert ops(copy) == expected
    wanted = execute(model, feed)
    for outputs in (run(open_session(copy, native=True, threads=1), feed), execute(copy, feed)):
        for y, want in zip(outputs, wanted, strict=True):
            assert y.dtype == want.dtype and y.shape == want.shape
            assert relative(y, want) < tolerance
    return decisions


def quantized(text: str, weights: dict[str, Array], bits: Any = 4, **options: Any) -> ir.Model:
    model = build(text, weights)
    QuantizeWeights(bits, minimum_weights=1, **options)(model)
    return model


MATMUL = "g (float[2, M, 64] x) => (float[2, M, 48] y) { [m] y = MatMul (x, w) }"
X = {"x": normal(2, 3, 64, seed=9)}

GATED = """g (float[2, M, 64] x, float[2, M, 48] r) => (float[2, M, 48] y) {{
    [up] u = MatMul (x, wu)
    [gate] g = MatMul (x, wg)
    {between}
    [glu] y = {product}
}}"""
SILU = "s = Sigmoid (g) [silu] a = Mul (g, s)"
