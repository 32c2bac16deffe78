"""Products of matrices."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from onnxcompress.torch.standard.operator import Call, Function, Operator, Table, plain


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """x * weight + bias: float [..., K], [K, N], [N]. One product with its sum, faster than the two in turn."""
    return F.linear(x, weight.t(), bias)


def gemm(call: Call) -> Function:
    a_turned, b_turned = bool(call.get("transA", 0)), bool(call.get("transB", 0))
    alpha, beta = call.get("alpha", 1.0), call.get("beta", 1.0)

    def product(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
        a, b = a.t() if a_turned else a, b.t() if b_turned else b
        if c is None or not beta:
            return a @ b if alpha == 1.0 else alpha * (a @ b)
        if a.is_floating_point():
            return torch.addmm(c, a, b, beta=beta, alpha=alpha)
        return int(alpha) * (a @ b) + int(beta) * c

    return product


def einsum(call: Call) -> Function:
    """The equation as torch takes it: an output that is left out is the sorted names that stand once."""
    equation = call.attributes["equation"].replace(" ", "")
    return lambda *inputs: torch.einsum(equation, *_same_type(inputs))


def _same_type(inputs: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
    kinds = {x.dtype for x in inputs}
    return inputs if len(kinds) == 1 else [x.to(torch.promote_types(*kinds)) for x in inputs]


PRODUCTS: Table = {
    "MatMul": plain(torch.matmul, weights=(0, 1)),
    "Gemm": Operator(gemm, weights=(0, 1, 2)),
    "Einsum": Operator(einsum),
    "Det": plain(torch.linalg.det),
}
