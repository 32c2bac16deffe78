"""Weights with zero blocks become block-sparse operators with the same results."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxcompress.passes.lower.functions import AttachFunctions
from onnxcompress.passes.lower.sparse import UseSparseWeights
from onnxcompress.runtime import open_session
from tests.ops import forms
from tests.ops.cases import ALL
from tests.ops.cases.case import Case

Array = np.ndarray[Any, Any]


def sparse(w: Array, rows: int, share: float) -> Array:
    """w with a share of its blocks of rows x 4 set to zero."""
    rng = np.random.default_rng(0)
    flat = w.reshape(w.shape[0], -1)
    keep = rng.random((-(-flat.shape[0] // rows), -(-flat.shape[1] // 4))) >= share
    mask = np.kron(keep, np.ones((rows, 4), bool))[: flat.shape[0], : flat.shape[1]]
    return np.where(mask, np.where(flat == 0, 1, flat), 0).astype(np.int8).reshape(w.shape)


def lowered(case: Case, w: Array) -> tuple[ir.Model, ir.Model, list[str]]:
    """The case's model with this weight, dense and after the pass; and what the pass says."""
    inputs = [w if i == 3 else x for i, x in enumerate(case.inputs)]
    changed = replace(case, inputs=inputs)
    dense = ir.from_proto(forms.model(changed))
    model = ir.from_proto(forms.model(changed))
    step = UseSparseWeights()
    step(model)
    AttachFunctions()(model)
    return dense, model, [decision.reason for decision in step.decisions]


def case_of(op: str, size: int = 32, **attributes: Any) -> Case:
    """The first case of an operator whose weight is at least `size` outputs by `size` inputs."""
    for case in ALL:
        w = case.inputs[3] if len(case.inputs) > 3 else None
        plain = all(case.attributes.get(name, value) == value for name, value in attributes.items())
        if case.op == op and w is not None and w.size and w.shape[0] >= size and w[0].size >= size and plain:
            return case
    raise AssertionError(f"no case of {op}")


@pytest.mark.parametrize(
    ("op", "becomes"),
    [
        ("QLinear", "QSparseLinear"),
        ("QLinearLayerNorm", "QSparseLinearLayerNorm"),
        ("QConv", "QSparseConv"),
    ],
)
@pytest.mark.parametrize("rows", [4, 1])
def test_same_results(op: str, becomes: str, rows: int) -> None:
    case = case_of(op, 16, group=1, x_layout="NHWC", y_layout="NHWC", residual_after=0)
    if op == "QConv":
        case = replace(case, inputs=case.inputs[:9])
    weight = case.inputs[3]
    assert weight is not None
    dense, model, reasons = lowered(case, sparse(weight, rows, 0.9))
    assert [node.op_type for node in model.graph] == [becomes]
    assert reasons == [f"sparse, blocks of {rows} x 4"]
    unused = [name for name, value in model.graph.initializers.items() if not value.uses()]
    assert not unused, "the dense weight was left in the file"
    feeds = {f"i{i}": x for i, x in enumerate(case.inputs) if x is not None and f"i{i}" in _names(dense)}
    for native in (True, False):
        want = open_session(dense, native=True).run(None, feeds)
        got = open_session(model, native=native).run(None, feeds)
        for one, other in zip(want, got, strict=True):
            steps = 0 if native and op != "QLinearLayerNorm" else 1
            if one.dtype == np.uint8:
                assert np.abs(one.astype(int) - other.astype(int)).max(initial=0) <= steps
            else:
                np.testing.assert_allclose(other, one, atol=1e-4 * np.abs(one).max())


def test_dense_weights_stay() -> None:
    case = case_of("QLinear")
    weight = case.inputs[3]
    assert weight is not None
    for share in (0.0, 0.2):
        _, model, reasons = lowered(case, sparse(weight, 4, share))
        assert [node.op_type for node in model.graph] == ["QLinear"] and not reasons


def _names(model: ir.Model) -> set[str]:
    return {value.name or "" for value in model.graph.inputs}


def test_nodes_that_are_named_stay_dense() -> None:
    case = case_of("QLinear")
    changed = replace(
        case, inputs=[sparse(x, 4, 0.8) if i == 3 and x is not None else x for i, x in enumerate(case.inputs)]
    )
    model = ir.from_proto(forms.model(changed))
    (name,) = [node.name or "" for node in model.graph if node.op_type == "QLinear"]
    step = UseSparseWeights({name})
    assert not step(model).modified and not step.decisions
    assert UseSparseWeights()(model).modified
