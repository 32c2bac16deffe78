"""The exported model against the module, on inputs that neither of them has seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from onnxcompress.errors import DataError, ExportError, ModelError
from onnxcompress.exporting.examples import Example
from onnxcompress.exporting.framework import import_torch, quiet, reason, unchanged_buffers

if TYPE_CHECKING:
    import torch

Array = np.ndarray[Any, Any]
Forward = Callable[[Example], list[Any]]

TOLERANCE = {"float64": 1e-4, "float32": 1e-4, "float16": 1e-3, "bfloat16": 1e-2}
"""Largest norm of the difference over the norm, by the narrowest type the module computes in. ONNX Runtime may
sum in another order and keep more digits; bfloat16 itself rounds by up to 4e-3."""


@dataclass(frozen=True)
class Check:
    """How far an output of the exported model is from the module's: the largest over all trials.

    Attributes:
        error: norm of the difference over the norm; for integers and booleans the share that differs.
    """

    output: str
    error: float


def forward_of(module: torch.nn.Module) -> Forward:
    """The module as a function of an example, which leaves its buffers as they were.

    Raises:
        ExportError: (the function) the module fails, or gives something else than tensors.
    """
    torch = import_torch()

    def forward(example: Example) -> list[Any]:
        try:
            with torch.no_grad(), unchanged_buffers(module), quiet():
                result = module(*example.args, **example.kwargs)
        except Exception as error:  # the user's own code: anything can come out of it
            raise ExportError(f"the module fails on {_shapes(example)}: {reason(error)}") from error
        leaves = [leaf for leaf in torch.utils._pytree.tree_leaves(result) if leaf is not None]
        odd = [leaf for leaf in leaves if not isinstance(leaf, torch.Tensor)]
        if odd or not leaves:
            raise ExportError(f"the module gives a {type(odd[0] if odd else result).__name__}, not tensors")
        return leaves

    return forward


def check(model: ir.Model, module: torch.nn.Module, example: Example, seed: int) -> list[Check]:
    """Run the model and the module on fresh values: with the example's sizes, and with other dynamic ones.

    Declared output dimensions that turn out not to be fixed are made dynamic.

    Returns:
        One check an output.

    Raises:
        ExportError: ONNX Runtime cannot run the model, or an output differs; the message names it.
    """
    from onnxcompress.runtime.session import open_session

    torch = import_torch()
    forward = forward_of(module)
    generator = torch.Generator().manual_seed(seed)
    trials = [example.fresh(example.sizes, generator)]
    if example.sizes:
        trials.append(example.fresh(other_sizes(forward, example, generator), generator))
    try:
        session = open_session(model)
    except ModelError as error:
        raise ExportError(f"{error}; without verification it would be saved as it is") from error
    limit = _tolerance(module, example)
    worst = [0.0] * len(model.graph.outputs)
    for trial in trials:
        reference = forward(trial)
        values = _run_exported(session, trial)
        _relax_output_shapes(model, values, trial)
        for i, difference in enumerate(_differences(model, reference, values)):
            if not difference <= limit:
                _refuse(str(model.graph.outputs[i].name), difference, limit, forward, trial)
            worst[i] = max(worst[i], difference)
    return [Check(str(value.name), difference) for value, difference in zip(model.graph.outputs, worst, strict=True)]


def other_sizes(forward: Forward, example: Example, generator: torch.Generator) -> dict[str, int]:
    """For each dynamic symbol another size that the module takes: one more, twice, or half of the example's.

    Raises:
        ExportError: the module itself takes no other size.
    """
    sizes = example.sizes
    for symbol, size in example.sizes.items():
        tried = dict.fromkeys(n for n in (size + 1, 2 * size, size // 2) if n not in (0, size))
        for candidate in tried:
            trial = example.fresh({**sizes, symbol: candidate}, generator)
            try:
                forward(trial)
            except ExportError as error:
                failure = error
            else:
                sizes[symbol] = candidate
                break
        else:
            raise ExportError(
                f"{symbol!r} is not dynamic: the module takes {size} but none of "
                f"{', '.join(map(str, tried))} ({failure})"
            )
    return sizes


def relative_error(reference: Array, value: Array) -> float:
    """norm(value - reference) / norm(reference) over finite elements; infinite where non-finite ones disagree.

    For integers and booleans: the share of elements that differ. A reference of zeros counts absolutely.
    """
    if reference.size == 0:
        return 0.0
    if reference.dtype.kind not in "fV":
        return float(np.mean(reference != value))
    a, b = reference.astype(np.float64).ravel(), value.astype(np.float64).ravel()
    finite = np.isfinite(a)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True) or not np.all(np.isfinite(b[finite])):
        return math.inf
    norm = float(np.linalg.norm(a[finite]))
    return float(np.linalg.norm(b[finite] - a[finite])) / (norm or 1.0)


def _run_exported(session: Any, trial: Example) -> list[Array]:
    from onnxcompress.runtime.session import run

    feeds = {name: _numpy(tensor) for name, tensor in zip(trial.names, trial.tensors, strict=True)}
    try:
        return run(session, feeds)
    except DataError as error:
        raise ExportError(f"the exported model fails on {_shapes(trial)}: {error}") from error


def _differences(model: ir.Model, reference: Sequence[torch.Tensor], values: Sequence[Array]) -> list[float]:
    if len(reference) != len(values):
        raise ExportError(f"the module gives {len(reference)} tensors, the exported model {len(values)}")
    differences = []
    for output, tensor, value in zip(model.graph.outputs, reference, values, strict=True):
        wanted = _numpy(tensor)
        if wanted.shape != value.shape or wanted.dtype != value.dtype:
            raise ExportError(
                f"output {output.name!r} of the exported model is {value.dtype}{list(value.shape)}, "
                f"the module's is {wanted.dtype}{list(wanted.shape)}"
            )
        if wanted.dtype.kind == "f" and wanted.size and not np.isfinite(wanted).any():
            raise ExportError(
                f"output {output.name!r} is not finite on fresh inputs, so nothing can be verified; "
                "give example inputs whose least and greatest values span valid ones"
            )
        differences.append(relative_error(wanted, value))
    return differences


def _refuse(output: str, error: float, limit: float, forward: Forward, trial: Example) -> None:
    first, second = forward(trial), forward(trial)
    if any(relative_error(_numpy(a), _numpy(b)) > limit for a, b in zip(first, second, strict=True)):
        cause = "the module is random or keeps state: called twice on one input it gives two results"
    else:
        cause = "what torch.export traced is not what the module computes; look for branches and caches"
    raise ExportError(
        f"output {output!r} of the exported model differs from the module's by {error:.2g} of its norm "
        f"(at most {limit:g} is accepted) on fresh inputs: {cause}"
    )


def _relax_output_shapes(model: ir.Model, values: Sequence[Array], trial: Example) -> None:
    """Torch declares some dimensions fixed that follow a dynamic one (the outputs of an LSTM)."""
    for output, value in zip(model.graph.outputs, values, strict=False):
        shape = output.shape
        if shape is None or len(shape) != value.ndim:
            continue
        for dim, size in enumerate(value.shape):
            if isinstance(shape[dim], int) and shape[dim] != size:
                followed = [symbol for symbol, n in trial.sizes.items() if n == size]
                shape[dim] = followed[0] if len(followed) == 1 else None


def _tolerance(module: torch.nn.Module, example: Example) -> float:
    tensors = [*module.parameters(), *module.buffers(), *example.tensors]
    kinds = {str(tensor.dtype).removeprefix("torch.") for tensor in tensors}
    return max(TOLERANCE.get(kind, 0.0) for kind in {*kinds, "float32"})


def _numpy(tensor: torch.Tensor) -> Array:
    torch = import_torch()
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:  # numpy has no such type, and ONNX Runtime takes none from it
        tensor = tensor.float()
    array: Array = tensor.resolve_conj().resolve_neg().numpy()
    return array


def _shapes(example: Example) -> str:
    pairs = zip(example.names, example.tensors, strict=True)
    return ", ".join(f"{name} {str(t.dtype).removeprefix('torch.')}{list(t.shape)}" for name, t in pairs)
