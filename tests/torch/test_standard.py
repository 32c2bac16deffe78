"""Every operator of the table against ONNX Runtime, and its gradients against differences."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch

from onnxcompress.torch import OnnxModule
from onnxcompress.torch.standard import OPERATORS
from onnxcompress.torch.standard.native import NATIVE
from tests.torch.cases import ALL, Case

NOT_IN_RUNTIME = {("", "Swish")}
"""Standard operators that ONNX Runtime has no kernel of; compared with numpy elsewhere."""


def identifiers() -> list[str]:
    return [f"{i}-{case}" for i, case in enumerate(ALL)]


def session_of(case: Case) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1  # DynamicQuantizeLSTM takes the range of each thread's share of the batch
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(case.model().SerializeToString(), options)


@pytest.mark.parametrize("case", ALL, ids=identifiers())
def test_equals_onnx_runtime(case: Case) -> None:
    session = session_of(case)
    expected = session.run(None, case.inputs)
    results = OnnxModule(ir.from_proto(case.model()))(case.inputs)
    assert len(results) == len(expected)
    for result, reference in zip(results, expected, strict=True):
        actual = result.detach().numpy()
        assert actual.shape == reference.shape
        assert actual.dtype == reference.dtype or reference.dtype in (np.uint16, np.uint32, np.uint64)
        if reference.dtype.kind in "biu":
            np.testing.assert_array_equal(actual, reference)
        else:
            error = np.linalg.norm(actual.astype(np.float64) - reference)
            assert error <= case.tolerance * np.linalg.norm(reference) + 1e-12


def smooth() -> Iterator[object]:
    for i, case in enumerate(ALL):
        arrays = [*case.inputs.values(), *case.constants.values()]
        if case.smooth and any(array.dtype == np.float32 for array in arrays):
            yield pytest.param(case, id=f"{i}-{case}")


@pytest.mark.parametrize("case", list(smooth()))
def test_gradients_equal_differences(case: Case) -> None:
    """In double precision, to the inputs and to the weights together."""
    module = OnnxModule(ir.from_proto(case.model())).double()
    floats = {
        name: torch.from_numpy(array).double().requires_grad_()
        for name, array in case.inputs.items()
        if array.dtype == np.float32
    }
    others = {name: array for name, array in case.inputs.items() if name not in floats}
    weights = [module.parameter_of(name) for name in module.weight_names]

    def outputs(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        results = module({**others, **dict(zip(floats, tensors, strict=False))})
        return tuple(result for result in results if result.is_floating_point() and result.requires_grad)

    inputs = (*floats.values(), *weights)
    assert inputs and outputs(*inputs)
    assert torch.autograd.gradcheck(outputs, inputs, fast_mode=True)


def test_every_operator_has_a_case() -> None:
    seen = set()
    for case in ALL:
        for name in case.operators:
            domain, _, operator = name.rpartition(".")
            seen.add((domain, operator))
    assert set(OPERATORS) - set(NATIVE) - NOT_IN_RUNTIME <= seen
    assert len(seen) > 150


def test_swish_is_silu_with_a_slope() -> None:
    x = np.linspace(-3, 3, 13, dtype=np.float32)
    for text, alpha in (("y = Swish (x)", 1.0), ("y = Swish <alpha = 0.5> (x)", 0.5)):
        model = ir.from_proto(Case(text, {"x": x}, opset=24).model())
        (y,) = OnnxModule(model)({"x": x})
        np.testing.assert_allclose(y.numpy(), x / (1 + np.exp(-alpha * x)), rtol=1e-5)
