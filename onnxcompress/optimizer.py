"""`optimize`: simplify and fuse a graph without changing what it computes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import onnx_ir as ir

from onnxcompress.errors import ModelError
from onnxcompress.model_io import Source, check_output, clone_model, file_bytes, save_model
from onnxcompress.passes.fuse import FUSE, FUSE_PORTABLE
from onnxcompress.passes.simplify import (
    PREPARE,
    SIMPLIFY,
    ApplyRules,
    ConvertOpset,
    DropShapes,
    InferShapes,
    InlineFunctions,
    PassFactory,
    count_nodes,
)
from onnxcompress.passes.simplify.inference import recorded_shapes
from onnxcompress.passes.simplify.opset import NEWEST, OLDEST
from onnxcompress.progress import Progress, silent
from onnxcompress.runtime.session import OPENED_BYTES, opening

DEFAULT_OPSET = 21
MOST_ROUNDS = 8


@dataclass
class Log:
    """What an optimization did: rewrites by name, and remarks for the user."""

    applied: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Summary:
    """What `optimize_file` did. Constant nodes are not counted; bytes include external data."""

    nodes_before: int
    nodes_after: int
    bytes_before: int
    bytes_after: int
    applied: dict[str, int]
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def optimize(
    model: Source,
    *,
    portable: bool = False,
    opset: int | None = None,
    fixed_shapes: Mapping[str, Sequence[int]] | None = None,
    most_rounds: int = MOST_ROUNDS,
    progress: Progress = silent,
    log: Log | None = None,
) -> ir.Model:
    """Simplify and fuse a model without changing what it computes.

    Graph inputs and outputs keep their names, order and types. Outputs agree with the original's to rounding
    (norm of the difference over the norm: 1e-5; 1e-4 where BatchNormalization is folded into weights).

    Args:
        model: a path, or a model, which is not changed.
        portable: write standard ops only: no com.microsoft ones, and function bodies in the place of our own.
        opset: the standard opset to reach; 21, or the model's own if later, when None. A model that cannot be
            converted keeps its opset, and `log.notes` says why.
        fixed_shapes: input name to dimensions, for inputs with dynamic ones.
        most_rounds: of simplifying and fusing. 0: only what other passes need (functions inlined, constants made
            initializers, the opset converted), so that every tensor stays what it was.
        progress: called with the stage, and the rounds done.
        log: filled with what was done.

    Returns:
        A new model. Inner values carry inferred shapes where the original recorded them (all, if it recorded
        all); `passes.simplify.InferShapes` gives the rest.

    Raises:
        ModelError: the model cannot be read, a fixed shape does not fit, or the opset is not 7 to 25.
    """
    log = log if log is not None else Log()
    if opset is not None and not OLDEST <= opset <= NEWEST:
        raise ModelError(f"opset {opset} is not supported; use one of {OLDEST} to {NEWEST}")
    result = clone_model(model)
    _open_dimensions(result)
    recorded = recorded_shapes(result)
    declared = [value.shape for value in result.graph.outputs]
    fix_shapes(result, fixed_shapes or {})
    if portable:
        _run((lambda: InlineFunctions(portable=True),), result, log)
    _run(PREPARE, result, log)
    _convert(result, opset, log)
    fusions = FUSE_PORTABLE if portable else FUSE
    for done in range(most_rounds):
        progress("optimize", done, None)
        modified = _run(SIMPLIFY, result, log)
        modified |= _run(fusions, result, log)
        if not modified:
            break
    for value, shape in zip(result.graph.outputs, declared, strict=True):
        value.shape = shape
    _run((InferShapes, lambda: DropShapes(recorded)), result, log)
    return result


def optimize_file(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    in_place: bool = False,
    portable: bool = False,
    opset: int | None = None,
    fixed_shapes: Mapping[str, Sequence[int]] | None = None,
    progress: Progress = silent,
) -> Summary:
    """`optimize` from file to file.

    Raises:
        ModelError: as `optimize`; or the target cannot be written, or is the source and not `in_place`.
    """
    check_output(source, target, in_place=in_place)
    log = Log()
    options: dict[str, Any] = {"portable": portable, "opset": opset, "fixed_shapes": fixed_shapes}
    before, size = clone_model(source), file_bytes(source)
    nodes = count_nodes(before)
    result = optimize(before, progress=progress, log=log, **options)
    save_model(result, target, verify=None if size > OPENED_BYTES else opening("optimized", source=source))
    return Summary(nodes, count_nodes(result), size, file_bytes(target), dict(log.applied), log.notes)


def fix_shapes(model: ir.Model, shapes: Mapping[str, Sequence[int]]) -> None:
    """Set dimensions of inputs; shapes of inner values are inferred again by the passes that follow.

    Raises:
        ModelError: no such input, another rank, or a dimension that is fixed already.
    """
    inputs = {value.name: value for value in model.graph.inputs}
    for name, shape in shapes.items():
        value = inputs.get(name)
        if value is None:
            raise ModelError(f"the model has no input {name!r}; it has {', '.join(map(str, inputs))}")
        if value.shape is not None:
            known = [d if isinstance(d, int) else None for d in value.shape]
            if len(known) != len(shape) or any(k not in (None, d) for k, d in zip(known, shape, strict=True)):
                raise ModelError(f"input {name!r} has shape {value.shape}; {list(shape)} does not fit it")
        value.shape = ir.Shape(shape)


def _open_dimensions(model: ir.Model) -> None:
    """Some exporters write -1 for a dimension that is not known: it would be taken for a number."""
    values = [*model.graph.inputs, *model.graph.outputs, *(v for node in model.graph.all_nodes() for v in node.outputs)]
    for value in values:
        if value.shape is not None and any(isinstance(d, int) and d < 0 for d in value.shape):
            value.shape = ir.Shape([None if isinstance(d, int) and d < 0 else d for d in value.shape])


def _convert(model: ir.Model, opset: int | None, log: Log) -> None:
    _run((lambda: InferShapes(working=True),), model, log)
    converter = ConvertOpset(opset or DEFAULT_OPSET)
    if converter(model).modified:
        log.applied[f"convert to opset {converter.target}"] += 1
    if converter.refusal is not None:
        log.notes.append(f"the opset stays as it is: {converter.refusal}")
    elif opset is not None and model.graph.opset_imports.get("", opset) > opset:
        log.notes.append(f"the opset stays at {model.graph.opset_imports['']}: it is never lowered")


def _run(passes: Sequence[PassFactory], model: ir.Model, log: Log) -> bool:
    modified = False
    for factory in passes:
        step = factory()
        if step(model).modified:
            modified = True
            if isinstance(step, ApplyRules):
                log.applied.update(step.applied)
            else:
                log.applied[type(step).__name__] += 1
    return modified
