"""What the kernels of an operator refuse, said as changes to a case that they take."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from tests.ops import forms
from tests.ops.cases.case import Array, Case


def changed(case: Case, inputs: Mapping[int, Array | None] | None = None, **attributes: Any) -> Case:
    """The case with other inputs and attributes."""
    values = list(case.inputs)
    for index, value in (inputs or {}).items():
        values += [None] * (index + 1 - len(values))
        values[index] = value
    return dataclasses.replace(case, inputs=values, attributes={**case.attributes, **attributes})


def refuses(case: Case, message: str) -> None:
    """The kernel gives an error with this message, when it is made or when it runs, on every instruction set."""
    for instruction_set in ("scalar", ""):
        with pytest.raises(Exception, match=message):
            forms.kernel(case, instruction_set)
