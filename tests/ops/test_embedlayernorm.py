"""EmbedLayerNorm: what bad models and bad ids are told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.ops import forms
from tests.ops.cases.case import Array
from tests.ops.cases.embedlayernorm import CASES
from tests.ops.refusals import changed

_BASE = next(case for case in CASES if case.name == "odd channels")  # ids [2, 5], table [50, 67], positions [40, 67]
_EACH = next(case for case in CASES if case.name == "positions of each")


def _ids(value: int, dtype: Any = np.int64) -> Array:
    ids = np.zeros((2, 5), dtype)
    ids[1, 3] = value
    return ids


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({0: _ids(50)}, "token id 50 is not in \\[0, 50\\)"),
        ({0: _ids(-1, np.int32)}, "token id -1"),
        ({0: _ids(1 << 40)}, "token id 1099511627776"),
        ({0: np.zeros((2, 5), np.uint8)}, "int64 or int32"),
        ({0: np.zeros(5, np.int64)}, "ids must be \\[batch, length\\]"),
        ({1: np.zeros((50, 66), np.int8)}, "must"),
        ({1: np.zeros(50, np.int8)}, "table must be \\[V, C\\]"),
        ({2: np.ones(49, np.float32)}, "table_scale"),
        ({3: _ids(2)}, "type id 2"),
        ({3: np.zeros((2, 4), np.int64)}, "type_ids must have the shape"),
        ({3: None}, "come together"),
        ({4: None}, "come together"),
        ({4: np.zeros((2, 66), np.float32)}, "type_table must be"),
        ({5: np.zeros((4, 67), np.float32)}, "longer than the position table"),
        ({5: np.zeros((40, 66), np.float32)}, "position_table must be"),
        ({5: None, 6: np.zeros(5, np.int64)}, "need a position_table"),
        ({6: np.full(5, 40)}, "position 40"),
        ({6: np.zeros(4, np.int64)}, "position_ids must be"),
        ({7: np.ones(66, np.float32)}, "gamma and beta"),
        ({8: np.ones(66, np.float32)}, "gamma and beta"),
        ({9: np.ones(66, np.float32)}, "q_scale must have"),
        ({9: None}, "q needs q_scale"),
        ({10: np.zeros(2, np.uint8)}, "q_zero_point"),
    ],
)
def test_bad_models_get_an_error(changes: dict[int, Array | None], message: str) -> None:
    with pytest.raises(Exception, match=message):
        forms.kernel(changed(_BASE, changes), "")


_BYTES = next(case for case in CASES if case.name == "int8 positions, odd channels")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({11: None}, "come together"),
        ({5: np.zeros((40, 67), np.float32)}, "come together"),
        ({5: None}, "come together"),
        ({5: np.zeros((40, 66), np.int8)}, "position_table must be"),
        ({5: np.zeros(40, np.int8)}, "position_table must be"),
        ({11: np.ones(39, np.float32)}, "position_scale must have"),
        ({5: np.zeros((4, 67), np.int8), 11: np.ones(4, np.float32)}, "longer than the position table"),
    ],
)
def test_bad_int8_positions_get_an_error(changes: dict[int, Array | None], message: str) -> None:
    with pytest.raises(Exception, match=message):
        forms.kernel(changed(_BYTES, changes), "")


def test_row_parameters_need_dynamic() -> None:
    with pytest.raises(Exception, match="dynamic = 1"):
        forms.kernel(replace(_BASE, outputs=("y", "q", "row_scale")), "")


@pytest.mark.parametrize("offset", [-1, 36, 1 << 62])
def test_an_offset_beyond_the_positions_is_an_error(offset: int) -> None:
    with pytest.raises(Exception, match="longer than the position table"):
        forms.kernel(changed(_BASE, position_offset=offset), "")


@pytest.mark.parametrize("index", [0, 3, 6])
def test_the_body_refuses_ids_beyond_a_table_too(index: int) -> None:
    case = changed(_EACH, {index: _ids(1000, _EACH.inputs[index].dtype)})  # type: ignore[union-attr]
    with pytest.raises(Exception, match=r"out of|bounds|range"):
        forms.body(case)


def test_a_tensor_that_is_not_a_number_stays_one() -> None:
    table = np.array(_BASE.inputs[5])
    table[2, 7] = np.nan
    y = forms.kernel(changed(_BASE, {5: table}), "")["y"]
    assert np.isnan(y[:, 2]).all() and np.isfinite(np.delete(y, 2, axis=1)).all()


def test_row_parameters_alone_are_those_beside_q() -> None:
    case = next(case for case in CASES if case.name == "dynamic")
    whole, alone = forms.kernel(case, ""), forms.kernel(replace(case, outputs=("row_scale", "row_zero_point")), "")
    for name in alone:
        np.testing.assert_array_equal(alone[name], whole[name])
