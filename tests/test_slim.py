"""What a model is pruned to: combinations that make sense, and the others refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onnxcompress.errors import CompressError
from onnxcompress.recipe import Recipe, read_recipe, to_toml
from onnxcompress.slim import Slim
from onnxcompress.slimming import MACS, SPARSITIES, levels

GOOD = [Slim("block4x4", sparsity=0.8, steps=120, seed=3, metric="cosine"), Slim("channels", macs=0.7), Slim("2:4")]


@pytest.mark.parametrize("slim", GOOD)
def test_a_recipe_keeps_it(slim: Slim, tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    recipe = Recipe(mode="static", slim=slim.as_table())
    path.write_text(to_toml(recipe), "utf-8")
    assert read_recipe(path) == recipe
    assert Slim.of(read_recipe(path).slim) == slim
    assert recipe.digest() != Recipe(mode="static").digest()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"pattern": "block5x5", "sparsity": 0.5}, "pattern must be one of"),
        ({"pattern": "channels", "sparsity": 0.5}, "sparsity is for masks"),
        ({"pattern": "channels"}, "needs macs"),
        ({"pattern": "channels", "macs": 1.0}, "between 0 and 1"),
        ({"pattern": "block4x4", "macs": 0.5}, "macs is for the pattern channels"),
        ({"pattern": "block4x4"}, "needs a sparsity"),
        ({"pattern": "block4x4", "sparsity": 1.0}, "below 1"),
        ({"pattern": "2:4", "sparsity": 0.8}, "leave it out"),
    ],
)
def test_what_does_not_go_together_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Slim(**given)


@pytest.mark.parametrize(
    "table",
    ['pattern = "block4x4"', 'pattern = "block4x4"\nsparsity = "much"', 'pattern = "channels"\nmacs = nan',
     'pattern = "2:4"\nsteps = -1', 'pattern = "2:4"\nstep = 1', 'pattern = "2:4"\nsteps = true',
     'pattern = "2:4"\nmetric = "best"', 'pattern = "2:4"\nmetric = ""', "sparsity = 0.5"],
)  # fmt: skip
def test_a_damaged_table_is_named(table: str, tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text(f"schema = 1\n[slim]\n{table}\n", "utf-8")
    with pytest.raises(CompressError, match=r"slim = .* is not what a recipe holds there"):
        read_recipe(path)


def test_without_a_share_several_are_tried_the_fastest_first() -> None:
    assert [slim.sparsity for slim in levels("block4x4", None, None, 0)] == list(SPARSITIES) == sorted(SPARSITIES)[::-1]
    assert [slim.macs for slim in levels("channels", None, None, 0)] == list(MACS) == sorted(MACS)
    assert levels("2:4", None, None, 5) == [Slim("2:4", seed=5)]
    assert levels("block1x4", 0.6, None, 5) == [Slim("block1x4", sparsity=0.6, seed=5)]


def test_people_are_told_what_was_pruned() -> None:
    slim = Slim("block4x4", sparsity=0.8, steps=120)
    assert slim.describe() == "80% pruned (block4x4), distilled for 120 steps"
    recipe = Recipe(mode="static", native=True, method="mse", slim=slim.as_table())
    assert recipe.describe() == f"native int8 (mse ranges), {slim.describe()}"
    assert (
        "channels pruned to 70% of the work" in replace(recipe, slim=Slim("channels", macs=0.7).as_table()).describe()
    )
