"""Sensitivity: the layer that does most damage comes first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from onnxcompress.budget import OutOfTime
from onnxcompress.calibration import calibrate
from onnxcompress.evaluation import relative_error
from onnxcompress.recipe import Recipe, finish, make_plan, prepare
from onnxcompress.runtime import open_session
from onnxcompress.runtime.session import run
from onnxcompress.sensitivity import sensitivity
from tests.models import images, wide_cnn


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    recipe = Recipe(mode="static", method="minmax", elementwise=False)
    prepared = prepare(wide_cnn(), recipe)
    found = calibrate(prepared, images(4, 32), tensors=make_plan(prepared, recipe).observed)
    return replace(recipe, ranges={name: found.interval(name) for name in found.names})


@pytest.mark.parametrize(("tensor", "layers"), [("x", {"c1"}), ("s", {"c2", "c3"})])
def test_layers_that_use_a_wrong_range_are_first(recipe: Recipe, tensor: str, layers: set[str]) -> None:
    spoilt = replace(recipe, ranges={**recipe.ranges, tensor: (-0.01, 0.01)})
    order = sensitivity(prepare(wide_cnn(), spoilt), spoilt, images(2, 32))
    assert sorted(order) == ["c1", "c2", "c3", "fc"]
    assert set(order[: len(layers)]) == layers


def test_the_order_is_that_of_the_errors_of_each_layer_alone(recipe: Recipe) -> None:
    prepared = prepare(wide_cnn(), recipe)
    order = sensitivity(prepared, recipe, images(2, 32))
    wanted = [run(open_session(prepared), feed) for feed in images(2, 32)]
    errors = []
    for name in order:
        exclude = {other: "user" for other in order if other != name}
        session = open_session(finish(prepared, replace(recipe, exclude=exclude))[0])
        errors.append(sum(relative_error(a, run(session, f)) for a, f in zip(wanted, images(2, 32), strict=True)))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] > 0


def test_it_tells_how_far_it_is_and_can_be_stopped(recipe: Recipe) -> None:
    seen: list[tuple[int, int | None]] = []

    def check() -> None:
        if len(seen) == 2:
            raise OutOfTime

    with pytest.raises(OutOfTime):
        sensitivity(
            prepare(wide_cnn(), recipe), recipe, images(1, 32), check=check,
            progress=lambda stage, done, total: seen.append((done, total)),
        )  # fmt: skip
    assert seen == [(0, 4), (1, 4)]
