"""WeightOnlyLinear: what its kernels refuse, how its body stays small in memory, and gradients of its torch form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch

from onnxcompress.ops import OPS
from onnxcompress.passes.lower.functions import AttachFunctions
from onnxcompress.torch.ops import TORCH_OPS
from tests.ops import forms
from tests.ops.cases.case import Array, Case
from tests.ops.cases.weightonlylinear import CASES
from tests.ops.refusals import altered, changed, refuses, refuses_computed


def named(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


_BASE = named("4 bits, 2x96x65")  # w [65, 48], w_scale [65, 3]
_FULL = named("4 bits, block of 32, 2 rows")  # 2x300x70, zero points [70, 10]
_GATED = named("silu, gated, 18 rows")  # 18x64x70, bias, residual [18, 35]


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"bits": 2}, "bits must be 4 or 8"),
        ({"bits": 8}, "w_scale must be"),
        ({"block_size": 16}, "block_size must be 0, 32, 64 or 128"),
        ({"block_size": 256}, "block_size must be 0, 32, 64 or 128"),
        ({"block_size": -32}, "block_size must be 0, 32, 64 or 128"),
        ({"block_size": 1 << 40}, "block_size must be 0, 32, 64 or 128"),
        ({"block_size": 64}, "w_scale must be"),
        ({"block_size": 0}, "w_scale must be"),
        ({"gated": 1}, "a row of up for each row of gate"),
        ({"activation": "tanh"}, "no activation is called 'tanh'"),
    ],
)
def test_attributes_that_are_refused(attributes: dict[str, Any], message: str) -> None:
    refuses(changed(_BASE, **attributes), message)


@pytest.mark.parametrize(
    ("case", "index", "value", "message"),
    [
        (_BASE, 0, np.zeros((2, 94), np.float32), "last dimension of x"),
        (_BASE, 0, np.zeros((2, 97), np.float32), "last dimension of x"),
        (_BASE, 0, np.zeros((), np.float32), "x must have an axis"),
        (named("8 bits, 2x96x65"), 0, np.zeros((2, 95), np.float32), "last dimension of x"),
        (_BASE, 1, np.zeros((65,), np.uint8), "w must be"),
        (_BASE, 1, np.zeros((0, 48), np.uint8), "w must be"),
        (_BASE, 1, np.zeros((65, 0), np.uint8), "w must be"),
        (_BASE, 1, np.zeros((65, 64), np.uint8), "w_scale must be"),
        (_BASE, 1, np.zeros((64, 48), np.uint8), "w_scale must be"),
        (_BASE, 1, np.zeros((1, (1 << 19) + 1), np.uint8), "w must be"),
        (_BASE, 2, np.ones((65,), np.float32), "w_scale must be"),
        (_BASE, 2, np.full((65, 3), np.inf, np.float32), "w_scale must be finite"),
        (_FULL, 3, np.zeros((70, 9), np.uint8), "w_zero_point must be"),
        (_FULL, 3, np.full((70, 10), 16, np.uint8), "w_zero_point must be below 16"),
        (_GATED, 4, np.ones(35, np.float32), "bias must have"),
        (_GATED, 5, np.ones((18, 70), np.float32), "residual has not the shape"),
        (_GATED, 5, np.ones((1, 35), np.float32), "residual has not the shape"),
    ],
)  # fmt: skip
def test_inputs_that_are_refused(case: Case, index: int, value: Array, message: str) -> None:
    refuses(changed(case, {index: value}), message)


@pytest.mark.parametrize(
    ("case", "index", "message"),
    [
        (_FULL, 3, "w_zero_point and bias must be constants"),
        (_GATED, 4, "w_zero_point and bias must be constants"),
    ],
)
def test_computed_inputs_that_are_refused(case: Case, index: int, message: str) -> None:
    refuses_computed(case, index, message)


@pytest.mark.parametrize(("index", "message"), [(1, "w must be a constant"), (2, "w_scale must be a constant")])
def test_computed_weights_are_refused_when_the_kernel_is_made(index: int, message: str) -> None:
    with pytest.raises(Exception, match=message):
        refuses_computed(_BASE, index, "nothing: there is no session")


def test_a_scale_that_is_not_a_number_is_refused() -> None:
    def spoil(scale: Array) -> Array:
        spoilt = scale.copy()
        spoilt[-1, -1] = np.nan
        return spoilt

    refuses(altered(_BASE, 2, spoil), "w_scale must be finite")


@pytest.mark.parametrize("instruction_set", forms.instruction_sets())
def test_a_last_part_of_few_rows_among_parts_of_many(instruction_set: str) -> None:
    """89 parts of 96 rows and one of 7, whose sums for the zero points nobody made."""
    case = named("4 bits, block of 32, 2 rows")
    x = np.random.default_rng(0).normal(size=(8551, 300)).astype(np.float32)
    case = changed(case, {0: x[:, :33], 1: np.array(case.inputs[1])[:, :17], 2: np.array(case.inputs[2])[:, :2],
                          3: np.array(case.inputs[3])[:, :2]})  # fmt: skip
    y, expected = forms.kernel(case, instruction_set, threads=2)["y"], forms.reference(case)["y"]
    assert np.abs(y - expected).max() <= 2e-5 * np.abs(expected).max()


@pytest.mark.parametrize("m", [1, 7, 20])
@pytest.mark.parametrize("instruction_set", forms.instruction_sets())
def test_the_end_of_a_row_is_no_part_of_the_next(m: int, instruction_set: str) -> None:
    """Only a row that has something that is no number becomes so, whatever lies behind its last octet."""
    case = named("4 bits, 7x65x48")
    x = np.resize(np.array(case.inputs[0]), (m, 65))
    x[m - 1, 64] = np.nan
    y = forms.kernel(changed(case, {0: x}), instruction_set)["y"]
    assert np.isnan(y[m - 1]).all() and np.isfinite(y[: m - 1]).all()


@pytest.mark.parametrize("instruction_set", forms.instruction_sets())
def test_every_finite_half_passes_through(instruction_set: str) -> None:
    """By a matrix that changes nothing: what is read and written is the same to the bit."""
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    x = halves[np.isfinite(halves)].reshape(-1, 32)
    w = np.full((32, 32), 128, np.uint8) + np.eye(32, dtype=np.uint8)
    case = Case("WeightOnlyLinear", "", [x, w, np.ones((32, 1), np.float32)], attributes={"bits": 8, "block_size": 32})
    np.testing.assert_array_equal(forms.kernel(case, instruction_set)["y"], x)


@pytest.mark.parametrize("instruction_set", forms.instruction_sets())
def test_results_are_rounded_to_the_nearest_half(instruction_set: str) -> None:
    """Ties to even, the smallest and the largest: as numpy does."""
    rng = np.random.default_rng(0)
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)
    ties = (halves[1:] + halves[:-1]) / 2
    near = np.concatenate([ties, np.nextafter(np.float32(ties), np.float32(0)), np.nextafter(np.float32(ties), np.inf)])
    odd = np.array([65519.99, 65520, 65536, 1e30, 3e38, 2**-25, 2**-26, 1e-30, 1e-42])
    bias = np.concatenate([near, odd, np.exp2(rng.uniform(-30, 17, 5000))]).astype(np.float32)
    bias *= rng.choice([-1, 1], bias.shape).astype(np.float32)
    n = len(bias)
    inputs: list[Array | None] = [
        np.zeros((1, 1), np.float16), np.zeros((n, 1), np.uint8), np.ones((n, 1), np.float32), None, bias,
    ]  # fmt: skip
    case = Case("WeightOnlyLinear", "", inputs, attributes={"bits": 8, "block_size": 0})
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(forms.kernel(case, instruction_set)["y"][0], bias.astype(np.float16))


def _gated_by_hand(x: Array, y: Array) -> Array:
    return np.asarray(x / (1 + np.exp(-x)) * y)


def test_the_reference_against_loops() -> None:
    """The definition, element by element, apart from the vectorized reference."""
    case = named("gated, 66 rows of w, halves")
    x, w, scale, zero, *_ = (None if a is None else np.asarray(a, np.float64) for a in case.inputs)
    assert x is not None and w is not None and scale is not None and zero is not None
    sums = np.zeros((3, 66))
    for m, n in np.ndindex(*sums.shape):
        for k in range(64):
            sums[m, n] += x[m, k] * (w[n, k] - zero[n, k // 64]) * scale[n, k // 64]
    expected = [[_gated_by_hand(row[2 * c], row[2 * c + 1]) for c in range(33)] for row in sums]
    np.testing.assert_allclose(forms.reference(case)["y"], np.array(expected, np.float16), rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["4 bits, block of 32, 2 rows", "8 bits, block of 64, 2 rows", "silu, gated, 18 rows"])
def test_weights_of_the_body_stay_small(name: str, tmp_path: Path) -> None:
    """Stock ONNX Runtime makes MatMulNBits of it, whose activations it rounds to 8 bits unless told otherwise."""
    case = named(name)
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 4
    model = forms.model(case).SerializeToString()
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    optimized = onnx.load(tmp_path / "optimized.onnx")
    products = [node.op_type for node in optimized.graph.node if "MatMul" in node.op_type]
    assert products == ["MatMulNBits"] * (2 if case.attributes.get("gated") else 1)
    assert case.inputs[1] is not None and case.inputs[2] is not None
    small = case.inputs[1].nbytes + 2 * case.inputs[2].nbytes + 3000
    assert sum(len(tensor.raw_data) for tensor in optimized.graph.initializer) < small
    feeds = {given.name: case.inputs[int(given.name[1:])] for given in session.get_inputs()}
    y, expected = session.run(None, feeds)[0], forms.reference(case)["y"]
    assert np.linalg.norm(y - expected) < 0.02 * np.linalg.norm(expected)


@pytest.mark.parametrize("name", ["4 bits, 7x65x48", "4 bits, 2x96x65"])
def test_the_body_where_the_size_of_x_is_not_known(name: str) -> None:
    """Pairs of codes do not tell an odd K: x is then padded when it runs."""
    case = named(name)
    unknown = ir.from_proto(forms.model(case))
    unknown.graph.inputs[0].shape = ir.Shape(["M", "K"])
    AttachFunctions()(unknown)
    assert any(node.op_type == "Pad" for function in unknown.functions.values() for node in function)
    session = ort.InferenceSession(ir.to_proto(unknown).SerializeToString(), providers=["CPUExecutionProvider"])
    y, expected = session.run(None, {"i0": case.inputs[0]})[0], forms.reference(case)["y"]
    assert np.linalg.norm(y - expected) < 0.02 * np.linalg.norm(expected)


def test_gradients_reach_everything_but_the_integers() -> None:
    x, w, scale, zero, bias, residual = (
        None if a is None else torch.from_numpy(np.array(a)) for a in _GATED.inputs
    )  # fmt: skip
    floats = [t.double().requires_grad_() for t in (x, scale, bias, residual) if t is not None]

    def function(x: Any, scale: Any, bias: Any, residual: Any) -> Any:
        attributes = {**OPS["WeightOnlyLinear"].attributes, **_GATED.attributes}
        return TORCH_OPS["WeightOnlyLinear"](attributes, x, w, scale, zero, bias, residual)[0]

    assert torch.autograd.gradcheck(function, floats, fast_mode=True)
