"""What the kernels of an operator refuse, said as changes to a case that they take."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import onnxruntime as ort
import pytest

from onnxcompress.runtime import library
from tests.ops import forms
from tests.ops.cases.case import Array, Case


def changed(case: Case, inputs: Mapping[int, Array | None] | None = None, **attributes: Any) -> Case:
    """The case with other inputs and attributes."""
    values = list(case.inputs)
    for index, value in (inputs or {}).items():
        values += [None] * (index + 1 - len(values))
        values[index] = value
    return dataclasses.replace(case, inputs=values, attributes={**case.attributes, **attributes})


def altered(case: Case, index: int, change: Callable[[Any], Any]) -> Case:
    """The case with one input changed by a function."""
    return changed(case, {index: change(case.inputs[index])})


def refuses(case: Case, message: str) -> None:
    """The kernel gives an error with this message, when it is made or when it runs, on every instruction set."""
    for instruction_set in ("scalar", ""):
        with pytest.raises(Exception, match=message):
            forms.kernel(case, instruction_set)


def refuses_computed(case: Case, index: int, message: str) -> None:
    """The kernel gives an error with this message where the constant input `index` is computed at run time."""
    model = forms.model(case, functions=False)
    constant = next(tensor for tensor in model.graph.initializer if tensor.name == f"i{index}")
    model.graph.initializer.remove(constant)
    value = model.graph.input.add(name=constant.name)
    value.type.tensor_type.elem_type = constant.data_type
    for size in constant.dims:
        value.type.tensor_type.shape.dim.add(dim_value=size)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    library.register(options)
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {name: case.inputs[int(name[1:])] for name in [given.name for given in session.get_inputs()]}
    with pytest.raises(Exception, match=message):
        session.run(None, feeds)
