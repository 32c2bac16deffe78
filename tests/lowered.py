"""Small models lowered to our operators, as `compress` builds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from onnxcompress.data import Feed, open_data
from onnxcompress.passes.quantize import Decision
from onnxcompress.progress import silent
from onnxcompress.quantization_static import RangeSource, with_ranges
from onnxcompress.recipe import Recipe, finish, prepare
from tests.models import images, small_cnn
from tests.passes.lower_transformer.encoders import magnitudes, sentence_encoder, sentences


@dataclass(frozen=True)
class Lowered:
    """A model before and after lowering, a few of its feeds, and how it was made."""

    source: ir.Model
    model: ir.Model
    decisions: list[Decision]
    recipe: Recipe
    feeds: Sequence[Feed]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Those of the first feed."""
        return {name: array.shape for name, array in self.feeds[0].items()}


def lowered(source: ir.Model, feeds: Sequence[Feed], recipe: Recipe | None = None) -> Lowered:
    """Calibrate, quantize and lower."""
    recipe = recipe or Recipe(mode="static", native=True)
    prepared = prepare(source, recipe)
    data = open_data(list(feeds), prepared)
    recipe, _ = with_ranges(recipe, RangeSource(prepared, recipe, None, data, "minmax", 1, silent))
    found = magnitudes(prepared, list(feeds))
    recipe = replace(recipe, heads={name: tuple(map(float, values)) for name, values in found.items()})
    model, decisions = finish(prepared, recipe)
    return Lowered(source, model, decisions, recipe, feeds)


def lowered_cnn() -> Lowered:
    """Convolutions, one depthwise, a residual sum, pooling and a Gemm."""
    return lowered(small_cnn(), images(4))


def lowered_encoder() -> Lowered:
    """Embedding, attention, an MLP and a mean over tokens."""
    return lowered(sentence_encoder(), sentences(6))
