"""Where a compressed model comes from, written into the model itself: recipe, digest of the source, version."""

from __future__ import annotations

import base64
import binascii
import os
import zlib
from pathlib import Path

import onnx_ir as ir

from onnxcompress.environment import environment_record
from onnxcompress.errors import CompressError
from onnxcompress.model_io import load_model
from onnxcompress.recipe import MOST_RECIPE, Recipe, parse_recipe, read_recipe, to_toml

RECIPE = "onnxcompress.recipe"
SOURCE = "onnxcompress.source"
TARGET = "onnxcompress.target"
VERSION = "onnxcompress.version"


def mark(model: ir.Model, recipe: Recipe) -> None:
    """Write a recipe and what goes with it into the metadata of the model that it made.

    The recipe is TOML, deflated, in base64: ranges of a transformer's tensors are 200 KB as text.
    """
    model.metadata_props[RECIPE] = base64.b64encode(zlib.compress(to_toml(recipe).encode(), 9)).decode()
    model.metadata_props[SOURCE] = recipe.source
    model.metadata_props[TARGET] = recipe.target
    model.metadata_props[VERSION] = environment_record()["onnxcompress"]


def recipe_of(model: ir.Model) -> Recipe | None:
    """The recipe that a model carries; None where it carries none.

    Raises:
        CompressError: it is damaged.
    """
    text = model.metadata_props.get(RECIPE)
    if text is None:
        return None
    try:
        inflater = zlib.decompressobj()
        data = inflater.decompress(base64.b64decode(text, validate=True), MOST_RECIPE)
        if inflater.unconsumed_tail:
            raise ValueError("it is too large")
        return parse_recipe(data.decode("utf-8"), "the model's recipe")
    except (ValueError, binascii.Error, zlib.error) as error:
        raise CompressError(f"the model's recipe is damaged ({error})") from error


def target_of(path: str | os.PathLike[str]) -> str:
    """The device that a model was compressed for; "" where it does not say."""
    try:
        return load_model(path).metadata_props.get(TARGET, "")
    except CompressError:  # whoever opens it will tell
        return ""


def find_recipe(path: str | os.PathLike[str]) -> Recipe:
    """The recipe in a TOML file, or in a model that was made by one.

    Raises:
        CompressError: neither is there.
    """
    if Path(path).suffix != ".onnx":
        return read_recipe(path)
    recipe = recipe_of(load_model(path))
    if recipe is None:
        raise CompressError(f"{path}: carries no recipe; only models that `compress` wrote do")
    return recipe
