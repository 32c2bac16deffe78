"""Axes that are unified, parted and factored; held to index arrays."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxcompress.passes.prune.channels.dims import (
    MISMATCH,
    Dim,
    factor,
    freeze,
    kept_size,
    leaves,
    mask,
    product,
    repeated_factors,
    root,
    share,
    split,
    total,
    unify,
    units_of,
)


def bits(text: str) -> np.ndarray[Any, Any]:
    return np.array([letter == "1" for letter in text])


def test_a_product_is_row_major() -> None:
    heads, width = Dim(2), Dim(3)
    axis = product([heads, width])
    assert axis.size == 6
    np.testing.assert_array_equal(mask(axis, {heads: bits("01")}), bits("000111"))
    np.testing.assert_array_equal(mask(axis, {width: bits("101")}), bits("101101"))
    np.testing.assert_array_equal(units_of(axis, heads), [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(units_of(axis, width), [0, 1, 2, 0, 1, 2])


def test_a_sum_is_one_after_the_other() -> None:
    first, second = Dim(2), Dim(3)
    axis = total([first, second, first])
    np.testing.assert_array_equal(mask(axis, {first: bits("10")}), bits("1011110"))
    np.testing.assert_array_equal(units_of(axis, first), [0, 1, -1, -1, -1, 0, 1])
    assert kept_size(axis, {first: bits("10")}) == 5


def test_unified_leaves_are_one_and_keep_the_first_reason() -> None:
    a, b, c = Dim(4, "because"), Dim(4), Dim(4)
    unify(a, b)
    unify(c, b)
    assert root(a) is root(b) is root(c)
    assert root(c).reason == "because"
    freeze(c, "later")
    assert root(a).reason == "because"


def test_an_axis_of_unknown_size_takes_the_size_that_it_meets() -> None:
    for known_first in (True, False):
        known, unknown = Dim(4), Dim()
        unify(*((known, unknown) if known_first else (unknown, known)))
        assert root(unknown).size == root(known).size == 4
        assert root(known).reason is None


def test_sizes_that_differ_are_kept_whole() -> None:
    a, b = Dim(4), Dim(5)
    unify(a, b)
    assert a.reason == b.reason == MISMATCH
    assert root(a) is not root(b)


def test_a_leaf_becomes_what_it_is_unified_with() -> None:
    axis, first, second = Dim(5), Dim(2), Dim(3)
    unify(total([first, second]), axis)
    assert list(leaves(axis)) == [first, second]


def test_products_are_refined_to_common_factors() -> None:
    a, b = [Dim(4), Dim(6)], [Dim(2), Dim(12)]
    unify(product(a), product(b))
    assert [leaf.size for leaf in leaves(a[0])] == [2, 2]
    assert list(leaves(product(a))) == list(leaves(product(b)))
    assert root(b[0]) is next(leaves(a[0]))


def test_products_without_common_factors_are_kept_whole() -> None:
    a, b = [Dim(4), Dim(6)], [Dim(6), Dim(4)]
    unify(product(a), product(b))
    assert {leaf.reason for dim in (*a, *b) for leaf in leaves(dim)} == {MISMATCH}


def test_sums_are_refined_to_common_boundaries() -> None:
    a, b = [Dim(4), Dim(6)], [Dim(1), Dim(5), Dim(4)]
    unify(total(a), total(b))
    assert [leaf.size for leaf in leaves(total(a))] == [1, 3, 2, 4]
    assert list(leaves(total(a))) == list(leaves(total(b)))


def test_a_sum_is_a_product_where_its_parts_are() -> None:
    """Concat of 2 and 3 channels, each of 4 places, is 5 channels of 4 places."""
    axis = total([Dim(8), Dim(12)])
    channels, places = Dim(5), Dim(4)
    unify(axis, product([channels, places]))
    assert [leaf.size for leaf in leaves(channels)] == [2, 3]
    assert next(leaves(axis)) is next(leaves(channels))
    np.testing.assert_array_equal(units_of(axis, places), np.tile(np.arange(4), 5))


def test_a_product_is_parted_between_its_outermost_positions_only() -> None:
    axis = product([Dim(4), Dim(3)])
    halves = split(axis, 6)
    assert halves is not None
    assert (halves[0].size, halves[1].size) == (6, 6)
    assert split(axis, 7) is None
    assert split(axis, 13) is None


def test_a_size_that_does_not_divide_is_no_factor() -> None:
    assert factor(Dim(6), 4) is None
    assert factor(Dim(), 2) is None
    assert factor(total([Dim(2), Dim(3)]), 5) is not None
    assert factor(product([Dim(2), Dim(3)]), 3) is None


def test_the_share_of_an_axis_that_is_left() -> None:
    first, second, width = Dim(4), Dim(6), Dim(3)
    axis = product([total([first, second]), width])
    assert share(axis, {first: 2}) == pytest.approx(0.8)
    assert share(axis, {first: 2, width: 1}) == pytest.approx(0.8 / 3)
    assert share(product([Dim(), first]), {first: 1}) == 0.25
    assert share(total([Dim(), first]), {first: 1}) == 1.0


def test_a_leaf_that_meets_itself_is_told() -> None:
    leaf = Dim(3)
    assert list(repeated_factors(product([leaf, leaf]))) == [leaf]
    assert list(repeated_factors(total([leaf, leaf]))) == []


def test_what_does_not_fit_is_kept_whole_on_both_sides() -> None:
    """Each pair has one size and is taken apart in ways that no common refinement has."""
    pairs = [
        (total([Dim(1), Dim(5)]), product([Dim(2), Dim(3)])),
        (product([Dim(2), Dim(3)]), total([Dim(1), Dim(5)])),
        (total([product([Dim(2), Dim(3)]), Dim(2)]), total([Dim(4), Dim(4)])),
        (product([Dim(), Dim(2)]), product([Dim(), Dim(3)])),
        (total([Dim(), Dim(2)]), total([Dim(3), Dim()])),
    ]
    for a, b in pairs:
        unify(a, b)
        assert {leaf.reason for dim in (a, b) for leaf in leaves(dim)} == {MISMATCH}


def test_an_axis_is_not_made_a_part_of_itself() -> None:
    batch = Dim()
    unify(batch, product([batch, Dim(2)]))
    assert batch.reason == MISMATCH and root(batch) is batch


def test_a_factor_of_a_product_is_taken_apart() -> None:
    first, second = Dim(4), Dim(3)
    parts = factor(product([first, second]), 2)
    assert parts is not None
    assert [leaf.size for leaf in leaves(first)] == [2, 2]
    assert parts[1].size == 6


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.sampled_from([6, 8, 12, 24]), st.randoms(use_true_random=False))
def test_unified_axes_keep_the_same_positions(size: int, random: Random) -> None:
    """Whatever two axes were made of: once they are one, their masks are equal, position by position."""
    a, b = _random_axis(size, random), _random_axis(size, random)
    unify(a, b)
    free = dict.fromkeys(leaf for dim in (a, b) for leaf in leaves(dim) if leaf.reason is None)
    kept = {leaf: np.array([random.random() < 0.5 for _ in range(leaf.size or 0)], bool) for leaf in free}
    np.testing.assert_array_equal(mask(a, kept), mask(b, kept))
    assert len(mask(a, kept)) == size
    for leaf in kept.keys() - {*repeated_factors(a), *repeated_factors(b)}:
        units, stays = units_of(a, leaf), kept[leaf]
        np.testing.assert_array_equal(mask(a, {leaf: stays}), (units < 0) | stays[units])


def _random_axis(size: int, random: Random) -> Dim:
    """A leaf, or a product or a sum of random axes."""
    outer = random.choice([n for n in range(1, size + 1) if size % n == 0])
    kind = random.choice(["leaf", "product", "sum"])
    if kind == "leaf" or size < 2 or (kind == "product" and outer in (1, size)):
        return Dim(size)
    if kind == "product":
        return product([_random_axis(outer, random), _random_axis(size // outer, random)])
    first = random.randrange(1, size)
    return total([_random_axis(first, random), _random_axis(size - first, random)])
