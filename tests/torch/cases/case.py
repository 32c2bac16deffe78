"""A small graph of one operator, or of a few."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Case:
    """Nodes and the arrays that they read.

    Attributes:
        text: nodes in the syntax of onnx.parser, one a line; the outputs of the last are the graph's.
        inputs: arrays of the graph's inputs.
        constants: arrays of its initializers.
        opset: of the standard domain.
        tolerance: norm of the difference over the norm.
        smooth: False where rounding, choices or bounds leave no gradient to compare with differences.
    """

    text: str
    inputs: dict[str, Array]
    constants: dict[str, Array] = field(default_factory=dict)
    opset: int = 21
    tolerance: float = 1e-6
    smooth: bool = True

    @property
    def operators(self) -> list[str]:
        return re.findall(r"= *([\w.]+)", "\n".join(re.sub(r"<.*?>", "", line) for line in self.text.splitlines()))

    def __str__(self) -> str:
        return self.operators[-1]

    def model(self) -> onnx.ModelProto:
        """Inputs and initializers by their arrays; the types of the outputs are left to inference."""
        outputs = self.text.strip().splitlines()[-1].split("=")[0].replace(" ", "").split(",")
        header = f'<ir_version: 10, opset_import: ["" : {self.opset}, "com.microsoft" : 1]>'
        declared = ", ".join(f"float {name}" for name in outputs if name)
        model = onnx.parser.parse_model(f"{header}\ng () => ({declared})\n{{\n{self.text}\n}}")
        for output in model.graph.output:
            output.ClearField("type")
        for name, array in self.inputs.items():
            kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            model.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, array.shape))
        for name, array in self.constants.items():
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        return model


_rng = np.random.default_rng(3)


def real(*shape: int, low: float | None = None, high: float = 1.0) -> Array:
    """Normal numbers, or evenly distributed ones between bounds: float32."""
    values = _rng.normal(size=shape) if low is None else _rng.uniform(low, high, shape)
    return np.asarray(values, np.float32)


def whole(*shape: int, low: int = -10, high: int = 10, kind: Any = np.int64) -> Array:
    """Integers from low to high - 1."""
    return np.asarray(_rng.integers(low, high, shape), kind)


def ints(*values: int) -> Array:
    """int64, one axis."""
    return np.array(values, np.int64)


def truth(*shape: int) -> Array:
    """Bools."""
    return np.asarray(_rng.random(shape) < 0.5)


def scalar(value: float, kind: Any = np.float32) -> Array:
    """No axes."""
    return np.array(value, kind)
