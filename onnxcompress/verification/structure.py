"""Checks of the result as a file: nothing of it is run but its shapes and its opening."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
import onnx_ir as ir
import onnxruntime as ort

from onnxcompress.errors import CompressError, ModelError, first_line
from onnxcompress.lineage import SOURCE, VERSION, recipe_of
from onnxcompress.model_io import digest, external_files
from onnxcompress.ops import DOMAIN
from onnxcompress.runtime.session import open_session
from onnxcompress.verification.results import Check, skipped, stated

SECTION = "structure"
STANDARD = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}
"""Domains that ONNX Runtime brings."""

LONGEST_MESSAGE = 160


def structure_checks(result: ir.Model, path: Path, original: ir.Model | None, source: Path | None) -> Iterator[Check]:
    """What the result is, by itself and beside the original.

    Args:
        path: of the result.
        original: None: what takes it is skipped.
        source: its file; None for a model in memory, which has no digest.
    """
    files = external_files(path)
    data = f"external data in {len(files)} file{'s' * (len(files) > 1)} beside it" if files else ""
    yield stated(SECTION, "reads", "", note=data)
    yield stated(SECTION, "valid", _invalid(path), note="onnx.checker, and strict inference of types and shapes")
    if original is None:
        yield skipped(SECTION, "inputs and outputs", "no original to compare with")
    else:
        for name, wanted, found in (
            ("inputs", fed_inputs(original), fed_inputs(result)),
            ("outputs", original.graph.outputs, result.graph.outputs),
        ):
            yield stated(SECTION, name, interface_problem(wanted, found, name), measured=len(found))
    yield _domains(result, original)
    yield from _lineage(result, source)


def load_checks(path: Path) -> tuple[list[Check], ort.InferenceSession | None]:
    """Does ONNX Runtime open the result, with and without the library? And the session with it, if so."""
    checks, opened = [], []
    for name, native in (("opens", True), ("opens without the library", False)):
        try:
            opened.append(open_session(path, native=native))
            checks.append(stated("load", name, ""))
        except ModelError as error:
            opened.append(None)
            checks.append(stated("load", name, str(error).removeprefix(f"{path}: ")))
    return checks, opened[0]


def fed_inputs(model: ir.Model) -> list[ir.Value]:
    """Inputs that a caller gives: old models list initializers among them."""
    return [value for value in model.graph.inputs if value.name not in model.graph.initializers]


def interface_problem(wanted: Sequence[ir.Value], found: Sequence[ir.Value], what: str) -> str:
    """Why code written for the original would not take the result; empty where it does.

    Names and types must be the same, in the same order, and ranks too. A fixed dimension may become open, and an
    output's open dimension fixed, since that promises more; an input's may not, since that takes less.
    """
    names = [[value.name for value in values] for values in (wanted, found)]
    if names[0] != names[1]:
        return f"the original's are {', '.join(map(str, names[0]))}; the result's {', '.join(map(str, names[1]))}"
    for a, b in zip(wanted, found, strict=True):
        if a.type != b.type:
            return f"{a.name} is {b.type}, the original's {a.type}"
        if a.shape is None or b.shape is None:
            continue
        if len(a.shape) != len(b.shape):
            return f"{a.name} has {len(b.shape)} dimensions, the original's {len(a.shape)}"
        for i, (x, y) in enumerate(zip(map(_fixed, a.shape), map(_fixed, b.shape), strict=True)):
            if y is not None and x != y and (x is not None or what == "inputs"):
                return f"dimension {i} of {a.name} is fixed to {y}, the original's {'open' if x is None else x}"
    return ""


def _fixed(dim: int | ir.SymbolicDim) -> int | None:
    return dim if isinstance(dim, int) and dim >= 0 else None


def _invalid(path: Path) -> str:
    """What onnx says of the model; shapes are inferred without its external data."""
    try:
        onnx.checker.check_model(str(path))
        proto = onnx.load(path, load_external_data=False)
        onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    except Exception as error:  # the checker, inference and protobuf raise their own classes
        return first_line(error)[:LONGEST_MESSAGE]
    return ""


def _domains(result: ir.Model, original: ir.Model | None) -> Check:
    """Every operator must be ONNX Runtime's, or the original's domain's, or have its function body in the model."""
    known = STANDARD | ({node.domain for node in original.graph.all_nodes()} if original is not None else set())
    nodes = list(result.graph.all_nodes())
    bodiless = sorted({
        f"{node.domain}.{node.op_type}" for node in nodes
        if (node.domain == DOMAIN or node.domain not in known) and node.op_identifier() not in result.functions
    })  # fmt: skip
    names = sorted({node.domain or "ai.onnx" for node in nodes})
    problem = f"no function body for {', '.join(bodiless)}: runs nowhere without its library" if bodiless else ""
    return stated(SECTION, "operators", problem, measured=", ".join(names))


def _lineage(result: ir.Model, source: Path | None) -> Iterator[Check]:
    """Does the result carry its recipe, and was it made from this original?"""
    try:
        recipe = recipe_of(result)
    except CompressError as error:
        yield stated(SECTION, "recipe", str(error))
        recipe = None
    else:
        if recipe is None:
            yield skipped(SECTION, "recipe", "carries none: not written by compress")
        else:
            version = result.metadata_props.get(VERSION, "")
            yield stated(SECTION, "recipe", "", measured=recipe.describe(), note=f"onnxcompress {version}".strip())
    made_from = result.metadata_props.get(SOURCE) or (recipe.source if recipe is not None else "")
    if not made_from:
        yield skipped(SECTION, "source", "the digest of its original is not in it")
    elif source is None:
        yield skipped(SECTION, "source", "no file of the original to compare with", measured=made_from[:16])
    else:
        own = digest(source)
        problem = "" if own == made_from else f"made from another model: ORIGINAL has {own[:16]}"
        if recipe is not None and recipe.source not in ("", made_from):
            problem = f"its recipe was made for another model: {recipe.source[:16]}"
        yield stated(SECTION, "source", problem, measured=made_from[:16])
