"""What a compressed model says of where it comes from."""

from __future__ import annotations

import base64
import zlib
from pathlib import Path

import pytest

from onnxcompress.errors import CompressError
from onnxcompress.lineage import RECIPE, SOURCE, find_recipe, mark, recipe_of
from onnxcompress.model_io import load_model, save_model
from onnxcompress.recipe import MOST_RECIPE, Recipe, to_toml
from tests.models import small_cnn

GIVEN = Recipe(source="ab" * 32, mode="static", ranges={"x": (-0.1, 1 / 3)}, exclude={"c1": "slow"}, wide=("c2",))


def test_a_recipe_is_carried_without_loss(tmp_path: Path) -> None:
    model = small_cnn()
    assert recipe_of(model) is None
    mark(model, GIVEN)
    save_model(model, tmp_path / "m.onnx")
    assert recipe_of(load_model(tmp_path / "m.onnx")) == find_recipe(tmp_path / "m.onnx") == GIVEN
    assert model.metadata_props[SOURCE] == "ab" * 32


def test_a_recipe_is_found_in_a_file_too(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(to_toml(GIVEN))
    assert find_recipe(tmp_path / "r.toml") == GIVEN
    save_model(small_cnn(), tmp_path / "m.onnx")
    with pytest.raises(CompressError, match=r"m\.onnx: carries no recipe"):
        find_recipe(tmp_path / "m.onnx")


def packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data)).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not base64!",
        "AAAA",
        base64.b64encode(b"plain").decode(),
        packed(b"\xff\xfe"),
        packed(bytes(MOST_RECIPE + 1)),
        packed(b"x = 1"),
    ],
    ids=["empty", "letters", "not deflated", "plain", "not UTF-8", "a bomb", "another schema"],
)
def test_a_damaged_recipe_is_an_error(text: str) -> None:
    model = small_cnn()
    model.metadata_props[RECIPE] = text
    with pytest.raises(CompressError, match=r"the model's recipe"):
        recipe_of(model)
