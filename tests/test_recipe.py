"""Recipes: what is written is what is read, and building one is repeatable."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxcompress.errors import CompressError, ModelError
from onnxcompress.passes.lower import native_nodes, replaced_nodes
from onnxcompress.recipe import Recipe, build, read_recipe, to_toml
from tests.lowered import lowered_cnn, lowered_encoder
from tests.models import small_cnn

FLOATS = st.floats(-1e30, 1e30, allow_nan=False)


@given(
    ranges=st.dictionaries(st.text(min_size=1, max_size=8), st.tuples(FLOATS, FLOATS), max_size=4),
    exclude=st.dictionaries(st.text(min_size=1, max_size=8), st.sampled_from(["slow", "sensitive", "user"])),
)
def test_toml_keeps_every_bit(
    tmp_path_factory: pytest.TempPathFactory,
    ranges: dict[str, tuple[float, float]],
    exclude: dict[str, str],
) -> None:
    recipe = Recipe(source="ab", mode="static", method="mse", smooth=0.6, ranges=ranges, exclude=exclude)
    path = tmp_path_factory.mktemp("recipe") / "r.toml"
    path.write_text(to_toml(recipe), "utf-8")
    assert read_recipe(path) == recipe


def test_what_native_operators_need_is_kept(tmp_path: Path) -> None:
    recipe = Recipe(
        mode="static", native=True, standard={"a b": "slow"},
        dense={"c/QConv": "slow"}, heads={"q": (1.5, 0.1 + 0.2), "k": ()},
        exclude={"c": "user"},
    )  # fmt: skip
    path = tmp_path / "r.toml"
    path.write_text(to_toml(recipe), "utf-8")
    assert read_recipe(path) == recipe
    path.write_text("schema = 1\n", "utf-8")
    assert not read_recipe(path).native and not read_recipe(path).standard and not read_recipe(path).heads


def test_unknown_keys_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text(to_toml(Recipe()).replace("portable", "portabel"), "utf-8")
    with pytest.raises(CompressError, match="unknown key 'portabel'"):
        read_recipe(path)


@pytest.mark.parametrize("text", ["", "schema = 99\n", "not toml at all ["])
def test_what_is_no_recipe_is_said_to_be_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(CompressError, match=r"not a recipe"):
        read_recipe(path)


@pytest.mark.parametrize(
    "line",
    [
        'mode = "fast"', 'activations = "u4"', "portable = 1", 'optimize = "yes"', "smooth = 2", "smooth = nan",
        'wide = "node"', "wide = [1]", 'exclude = ["node"]', "exclude = { node = 1 }", "ranges = { t = [1.0] }",
        "ranges = { t = [0.0, inf] }", 'channels = { t = ["a"] }', "source = 1", "native = 1", 'native = "yes"',
        "dense = { node = 1 }",
        'standard = ["node"]', "standard = { node = 1 }", "heads = { t = 1.0 }", "heads = { t = [nan] }",
    ],
)  # fmt: skip
def test_values_of_the_wrong_kind_are_refused(line: str, tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text(f"schema = 1\n{line}\n", "utf-8")
    with pytest.raises(CompressError, match="is not what a recipe holds there"):
        read_recipe(path)


def test_smoothing_of_another_model_is_refused() -> None:
    recipe = Recipe(mode="static", smooth=0.5, channels={"nowhere": (1.0, 2.0)})
    with pytest.raises(ModelError, match="does not fit the model: statistics of 'nowhere'"):
        build(small_cnn(), recipe)


def test_the_original_is_built_as_it_is() -> None:
    model = small_cnn()
    built, decisions = build(model, Recipe(mode="original"))
    assert ir.to_proto(built).SerializeToString() == ir.to_proto(model).SerializeToString()
    assert not decisions


def test_recipes_are_told_apart_in_words() -> None:
    recipes = [
        Recipe(mode="original"), Recipe(), Recipe(optimize=False), Recipe(residual_sum=True), Recipe(mode="dynamic"),
        Recipe(mode="static", method="mse"), Recipe(mode="static", method="mse", elementwise=False),
        Recipe(mode="static", method="mse", smooth=0.5), Recipe(mode="static", method="mse", equalize=True),
        Recipe(mode="static", method="mse", exclude={"a": "slow"}), Recipe(mode="static", activations="u16"),
        Recipe(mode="static", method="mse", native=True),
        Recipe(mode="static", method="mse", native=True, standard={"a": "slow"}),
    ]  # fmt: skip
    assert len({recipe.describe() for recipe in recipes}) == len(recipes)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CompressError, match=r"none\.toml"):
        read_recipe(tmp_path / "none.toml")


def test_ranges_of_another_model_are_refused() -> None:
    recipe = Recipe(mode="static", ranges={"something": (0.0, 1.0)})
    with pytest.raises(ModelError, match="no range for tensor"):
        build(small_cnn(), recipe)


def test_building_twice_gives_the_same_bytes() -> None:
    recipe = Recipe(mode="dynamic")
    first, second = (ir.to_proto(build(small_cnn(), recipe)[0]).SerializeToString() for _ in range(2))
    assert first == second


@pytest.mark.parametrize("recipe", [Recipe(), Recipe(mode="dynamic"), Recipe(portable=True, mode="dynamic")])
def test_a_built_model_runs_in_onnxruntime(recipe: Recipe) -> None:
    model, _ = build(small_cnn(), recipe)
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    (out,) = session.run(None, {"x": np.ones((2, 3, 16, 16), np.float32)})
    assert out.shape == (2, 10)


def test_portable_recipes_write_standard_operators_only() -> None:
    model, _ = build(small_cnn(), Recipe(portable=True, mode="dynamic"))
    assert {node.domain for node in model.graph} == {""}


def test_exclusions_stay_float_and_say_why() -> None:
    _, decisions = build(small_cnn(), Recipe(mode="dynamic"))
    (name,) = [d.name for d in decisions if d.quantized]
    _, decisions = build(small_cnn(), replace(Recipe(mode="dynamic"), exclude={name: "sensitive"}))
    (decision,) = [d for d in decisions if d.name == name]
    assert not decision.quantized
    assert decision.reason == "quantizing it costs too much accuracy"


def test_lowered_nodes_say_their_operator_and_are_int8() -> None:
    made = lowered_encoder()
    decisions = {d.name: d for d in made.decisions}
    assert all(d.quantized and d.reason.startswith("Q") for d in decisions.values()), decisions
    (attention,) = (node for node in native_nodes(made.model) if node.op_type == "QAttention")
    products = [name for name in replaced_nodes(attention) if name in decisions]
    assert len(products) == 2  # of queries and keys, and with the values
    assert all("QAttention" in decisions[name].reason for name in products)


def test_excluded_products_of_attention_stay_float() -> None:
    made = lowered_encoder()
    (attention,) = (node for node in native_nodes(made.model) if node.op_type == "QAttention")
    name = next(name for name in replaced_nodes(attention) if name in {d.name for d in made.decisions})
    model, decisions = build(made.source, replace(made.recipe, exclude={name: "user"}))
    assert not any(node.op_type == "QAttention" for node in native_nodes(model))
    (decision,) = [d for d in decisions if d.name == name]
    assert (decision.quantized, decision.reason) == (False, "excluded by the user")


def test_nodes_kept_standard_are_int8_without_a_native_operator() -> None:
    made = lowered_cnn()
    name = next(d.name for d in made.decisions if d.op == "Conv")
    model, decisions = build(made.source, replace(made.recipe, standard={name: "slow"}))
    assert name not in {replaced for node in native_nodes(model) for replaced in replaced_nodes(node)}
    (decision,) = [d for d in decisions if d.name == name]
    assert decision.quantized and not decision.reason.startswith("Q")


def test_building_a_native_recipe_twice_gives_the_same_bytes() -> None:
    made = lowered_encoder()
    first, second = (ir.to_proto(build(made.source, made.recipe)[0]).SerializeToString() for _ in range(2))
    assert first == second
