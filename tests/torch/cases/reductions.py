"""Reductions and products."""

from __future__ import annotations

import numpy as np

from tests.torch.cases.case import Case, ints, real, whole

NAMES = (
    "ReduceSum", "ReduceMean", "ReduceProd", "ReduceMax", "ReduceMin", "ReduceSumSquare", "ReduceL1", "ReduceL2",
    "ReduceLogSum", "ReduceLogSumExp",
)  # fmt: skip


def _of(name: str) -> list[Case]:
    x = {"x": real(2, 3, 4, low=0.2, high=2.0)}
    since = 13 if name == "ReduceSum" else 18
    return [
        Case(f"y = {name} (x, axes)", x, {"axes": ints(0, -1)}),
        Case(f"y = {name} <keepdims = 0> (x, axes)", x, {"axes": ints(1)}),
        Case(f"y = {name} (x)", x),
        Case(f"y = {name} <axes = [1, 2], keepdims = 0> (x)", x, opset=since - 1),
    ]


REDUCTIONS = [
    *(case for name in NAMES for case in _of(name)),
    Case("y = ReduceSum <noop_with_empty_axes = 1> (x, axes)", {"x": real(2, 3)}, {"axes": ints()}),
    Case("y = ReduceL2 (x, axes)", {"x": real(2, 3)}, {"axes": ints(1)}),
    Case("y = ReduceMean (x, axes)", {"x": whole(3, 4, kind=np.int32)}, {"axes": ints(1)}),
    Case("y = ReduceMax (x, axes)", {"x": whole(3, 4)}, {"axes": ints(0)}),
    Case("y = ArgMax <axis = 1> (x)", {"x": real(3, 5)}, smooth=False),
    Case("y = ArgMin <axis = -1, keepdims = 0> (x)", {"x": real(3, 5)}, smooth=False),
    Case("y = ArgMax <axis = 1, select_last_index = 1> (x)", {"x": np.ones((2, 4), np.float32)}, smooth=False),
    Case("y = MatMul (a, b)", {"a": real(3, 4)}, {"b": real(4, 5)}),
    Case("y = MatMul (a, b)", {"a": real(2, 3, 4), "b": real(2, 4, 5)}),
    Case("y = MatMul (a, b)", {"a": real(4), "b": real(2, 4, 5)}),
    Case("z = MatMul (a, b)\ny = Add (z, c)", {"a": real(2, 3, 4)}, {"b": real(4, 5), "c": real(5)}),
    Case("z = MatMul (a, b)\ny = Add (c, z)", {"a": real(3, 4)}, {"b": real(4, 5), "c": real(5)}),
    Case("z = MatMul (a, b)\ny = Add (z, c)", {"a": real(3, 4)}, {"b": real(4, 5), "c": real(1)}),
    Case("z = MatMul (a, b)\ny = Add (z, z)", {"a": real(3, 4)}, {"b": real(4, 5)}),
    Case("y = Gemm (a, b, c)", {"a": real(3, 4)}, {"b": real(4, 5), "c": real(5)}),
    Case("y = Gemm <transA = 1, alpha = 0.5> (a, b)", {"a": real(4, 3)}, {"b": real(4, 5)}),
    Case(
        "y = Gemm <transB = 1, alpha = 0.5, beta = 0.3> (a, b, c)",
        {"a": real(3, 4)},
        {"b": real(5, 4), "c": real(3, 1)},
    ),
    Case('y = Einsum <equation = "bij, bjk -> bik"> (a, b)', {"a": real(2, 3, 4), "b": real(2, 4, 5)}),
    Case('y = Einsum <equation = "...ij->...ji"> (a)', {"a": real(2, 3, 4)}),
    Case('y = Einsum <equation = "ij,jk"> (a, b)', {"a": real(3, 4), "b": real(4, 2)}),
    Case("y = Det (x)", {"x": real(2, 3, 3)}),
    Case("y = com.microsoft.FusedMatMul <alpha = 0.5, transB = 1> (a, b)", {"a": real(3, 4), "b": real(5, 4)}),
    Case("y = com.microsoft.FusedMatMul <transA = 1> (a, b)", {"a": real(2, 4, 3), "b": real(2, 4, 5)}),
]
