"""Inputs and outputs that student and teacher share."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxcompress.distillation.alignment import aligned, wider_inputs
from onnxcompress.errors import ModelError
from tests.distillation.graphs import graph, outputs_of

X = np.array([[-1.0, 2.0]], np.float32)


def model(inputs: str, outputs: str, body: str) -> ir.Model:
    return graph(f"({inputs}) => ({outputs})", body)


def test_the_model_with_more_inputs_tells_what_feeds_are() -> None:
    one = model("float[N, 2] x", "float[N, 2] y", "y = Relu (x)")
    two = model("float[N, 2] x, float[N, 2] z", "float[N, 2] y", "y = Add (x, z)")
    assert wider_inputs(one, two) is two and wider_inputs(two, one) is two
    assert wider_inputs(one, one) is one


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ("float[N, 2] z", "the student takes x, the teacher z: one must take all inputs of the other"),
        ("double[N, 2] x", "input 'x' is FLOAT in the student and DOUBLE in the teacher"),
        ("float[N, 2, 1] x", "input 'x' has 2 axes in the student and 3 in the teacher"),
    ],
)
def test_inputs_that_differ(inputs: str, message: str) -> None:
    kind, name = inputs.split("[")[0], inputs[-1]
    other = model(inputs, f"{kind}[N, 2] y", f"y = Relu ({name})")
    with pytest.raises(ModelError, match=message):
        wider_inputs(model("float[N, 2] x", "float[N, 2] y", "y = Relu (x)"), other)


def test_outputs_are_shared_by_name() -> None:
    teacher = model(
        "float[N, 2] x", "float[N, 2] z, float[N, 2] y, int64[2] s", "y = Relu (x) z = Neg (x) s = Shape (x)"
    )
    found = aligned(teacher, model("float[N, 2] x", "float[N, 2] y", "y = Relu (x)"))
    assert {name: array.tolist() for name, array in outputs_of(found, x=X).items()} == {"y": [[0, 2]]}
    assert len(teacher.graph.outputs) == 3


def test_outputs_of_other_names_are_shared_by_order() -> None:
    """Where the student's name is taken in the teacher, the value there gets another one."""
    student = model("float[N, 2] x", "float[N, 2] out, float[N, 2] hidden", "hidden = Relu (x) out = Neg (x)")
    teacher = model(
        "float[N, 2] x", "float[N, 2] a, float[N, 2] b", "hidden = Neg (x) a = Relu (hidden) b = Exp (hidden)"
    )
    found = outputs_of(aligned(teacher, student), x=X)
    np.testing.assert_allclose(found["out"], [[1, 0]])
    np.testing.assert_allclose(found["hidden"], np.exp(-X), rtol=1e-6)


def test_no_common_outputs() -> None:
    student = model("float[N, 2] x", "float[N, 2] y", "y = Relu (x)")
    teacher = model("float[N, 2] x", "float[N, 2] a, float[N, 2] b", "a = Relu (x) b = Neg (x)")
    with pytest.raises(ModelError, match="the student gives y, the teacher a, b: they share no float output"):
        aligned(teacher, student)
