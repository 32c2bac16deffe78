"""Students that are not a file yet: a torch module's factory, or a model without some of its layers."""

from __future__ import annotations

import os
from collections.abc import Sequence

import onnx_ir as ir
import torch

from onnxcompress.data import Feed
from onnxcompress.errors import ModelError
from onnxcompress.exporter import export
from onnxcompress.exporting.target import make_module
from onnxcompress.model_io import Source
from onnxcompress.optimizer import optimize
from onnxcompress.passes.prune.channels import DropBlocks, find_blocks, find_transformer_layers

OLDEST_EXPORT, NEWEST_EXPORT = 18, 25
"""Opsets that modules are exported to."""


def is_factory(student: Source) -> bool:
    """Is it PKG.MODULE:FACTORY or FILE.py:FACTORY, and no file of that name?"""
    if isinstance(student, (ir.Model, os.PathLike)):
        return False
    return ":" in student and not os.path.exists(student)


def export_student(spec: str, teacher: ir.Model, feed: Feed, seed: int) -> ir.Model:
    """Make the module that a factory gives, and export it with inputs like the teacher's.

    Its forward takes parameters of the names of the teacher's inputs. Dimensions that the teacher leaves open are open.

    Args:
        feed: an example.

    Raises:
        ExportError: no such factory, it fails, or the module cannot be exported or does not take the inputs.
    """
    module = make_module(spec, None, seed)
    inputs = {value.name: value for value in teacher.graph.inputs if value.name in feed}
    dynamic: dict[str, dict[int, str]] = {}
    for name, value in inputs.items():
        for axis, size in enumerate(value.shape or ()):
            if not isinstance(size, int):
                dynamic.setdefault(str(name), {})[axis] = _symbol(size, str(name), axis)
    args = {str(name): torch.from_numpy(feed[str(name)].copy()) for name in inputs}
    opset = min(max(teacher.opset_imports.get("", 21), OLDEST_EXPORT), NEWEST_EXPORT)
    return export(module, args, dynamic=dynamic, opset=opset, seed=seed)


def drop_layers(model: ir.Model, layers: Sequence[int]) -> ir.Model:
    """A copy of a model without some of its layers (transformer layers, or blocks behind a residual), counted from 0.

    Layers are those of a transformer; in a model without them, blocks behind a residual (`passes.prune.channels`
    says which they are). Nodes that keep their names are how `matching` finds what a student's values stand for.

    Raises:
        ModelError: there are no such layers, or one leads from an input to an output of the model.
    """
    result = model.clone()
    blocks = find_transformer_layers(result) or find_blocks(result)
    if not blocks:
        raise ModelError("no layers can be dropped: the model has no blocks behind a residual")
    unknown = [layer for layer in layers if not 0 <= layer < len(blocks)]
    if unknown:
        raise ModelError(f"there is no layer {unknown[0]} to drop: the model has {len(blocks)}, counted from 0")
    if len(set(layers)) == len(blocks):
        raise ModelError(f"all {len(blocks)} layers would be dropped; leave one")
    try:
        DropBlocks([blocks[layer].name for layer in layers])(result)
    except ValueError as error:
        raise ModelError(f"layers cannot be dropped: {error}") from error
    return optimize(result, portable=True)


def _symbol(size: ir.SymbolicDim | int | None, name: str, axis: int) -> str:
    """The name of an open dimension: the teacher's, so that equal ones stay equal, if it is a word."""
    text = str(getattr(size, "value", None) or "")
    return text if text.isidentifier() and text != "None" else f"{name}_{axis}".replace(".", "_").replace(":", "_")
