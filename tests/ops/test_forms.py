"""All forms of every operator agree with its numpy reference."""

from __future__ import annotations

import numpy as np
import pytest

from onnxcompress.ops import OPS
from onnxcompress.torch.ops import TORCH_OPS
from tests.ops import forms
from tests.ops.cases import ALL
from tests.ops.cases.case import Case


@pytest.mark.parametrize("case", ALL, ids=str)
@pytest.mark.parametrize("form", [*forms.FORMS, *forms.instruction_sets()])
def test_agrees_with_the_reference(case: Case, form: str) -> None:
    is_kernel = form not in forms.FORMS
    if ("kernel" if is_kernel else form) in case.skip:
        pytest.skip(case.skip["kernel" if is_kernel else form])
    expected = forms.reference(case)
    actual = forms.kernel(case, form) if is_kernel else forms.FORMS[form](case)
    of_body = form in ("body", "reference_evaluator") and case.body_steps is not None
    compare(case, expected, actual, case.body_steps if of_body and case.body_steps is not None else case.steps, of_body)


@pytest.mark.parametrize("case", ALL, ids=str)
def test_two_threads_give_what_one_gives(case: Case) -> None:
    if "kernel" in case.skip:
        pytest.skip(case.skip["kernel"])
    one, two = forms.kernel(case, "", threads=1), forms.kernel(case, "", threads=2)
    for name in case.outputs:
        np.testing.assert_array_equal(one[name], two[name])


def test_every_operator_has_cases_and_a_torch_form() -> None:
    assert {case.op for case in ALL} == set(OPS) == set(TORCH_OPS)


def compare(case: Case, expected: forms.Outputs, actual: forms.Outputs, steps: int, any_share: bool) -> None:
    """Within the case's tolerances."""
    for name in case.outputs:
        want, got = expected[name], actual[name]
        assert got.shape == want.shape, name
        if want.dtype == np.uint8:
            difference = np.abs(got.astype(np.int64) - want.astype(np.int64))
            assert difference.max(initial=0) <= steps, name
            assert any_share or (difference > 0).sum() <= case.share * difference.size + (case.share > 0), name
        elif np.isfinite(want).all():
            scale = np.abs(want).max(initial=1e-30)
            assert np.abs(got - want).max(initial=0) <= case.tolerance * scale, name
        else:
            np.testing.assert_array_equal(np.isfinite(got), np.isfinite(want), err_msg=name)
