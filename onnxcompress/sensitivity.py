"""Which layers cost accuracy: the error of the outputs when each alone is quantized."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import onnx_ir as ir

from onnxcompress.data import Feed
from onnxcompress.evaluation import relative_error
from onnxcompress.progress import Progress, silent
from onnxcompress.recipe import Recipe, finish
from onnxcompress.runtime.session import open_session, run


def sensitivity(
    prepared: ir.Model,
    recipe: Recipe,
    feeds: Sequence[Feed],
    *,
    progress: Progress = silent,
    check: Callable[[], None] = lambda: None,
) -> list[str]:
    """Rank the quantized nodes of a recipe by the damage that each does alone.

    Args:
        prepared: the float model that the recipe quantizes.
        recipe: static or dynamic, with its ranges.
        feeds: a few; outputs are compared on them, one layer at a time.
        check: called before each layer; may raise to stop.

    Returns:
        Node names, the most harmful first. Damage is the norm of the output's difference over its norm, the
        largest over outputs, the mean over feeds.
    """
    float_session = open_session(prepared)
    wanted = [run(float_session, feed) for feed in feeds]
    _, decisions = finish(prepared, recipe)
    names = [decision.name for decision in decisions if decision.quantized]
    damage: dict[str, float] = {}
    for index, name in enumerate(names):
        check()
        progress("sensitivity of layers", index, len(names))
        others = {other: "sensitive" for other in names if other != name}
        alone, _ = finish(prepared, replace(recipe, exclude={**recipe.exclude, **others}))
        session = open_session(alone)
        errors = [relative_error(a, run(session, feed)) for a, feed in zip(wanted, feeds, strict=True)]
        damage[name] = sum(errors) / len(errors)
    return sorted(names, key=lambda name: -damage[name])
