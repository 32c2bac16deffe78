"""What the command line names: a module factory, its weights, and example inputs as text."""

from __future__ import annotations

import importlib
import inspect
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxcompress.errors import ExportError, first_line
from onnxcompress.exporting.framework import import_torch
from onnxcompress.functions import load_function

if TYPE_CHECKING:
    import torch

DTYPES = {
    "f32": "float32", "f16": "float16", "f64": "float64", "i64": "int64", "i32": "int32", "u8": "uint8",
    "bool": "bool",
}  # fmt: skip


@dataclass(frozen=True)
class InputSpec:
    """`name=f32[1,3,224,224]`: name, type (a key of DTYPES) and shape of an example input."""

    name: str
    dtype: str
    shape: tuple[int, ...]


def parse_input(text: str) -> InputSpec:
    """Read `name=f32[1,3,224,224]`.

    Raises:
        ValueError: it is not of that form.
    """
    match = re.fullmatch(r"(.+)=(\w+)\[([\d,\s]*)\]", text.strip())
    if match is None or match[2] not in DTYPES:
        raise ValueError(f"{text!r} is not NAME=TYPE[D,D,...] with a type of {', '.join(DTYPES)}")
    return InputSpec(match[1], match[2], tuple(int(d) for d in match[3].split(",") if d.strip()))


def parse_dynamic(text: str) -> tuple[str, int, str]:
    """Read `name:0=batch` as input name, dimension and symbol.

    Raises:
        ValueError: it is not of that form.
    """
    match = re.fullmatch(r"(.+):(-?\d+)=([A-Za-z_]\w*)", text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not NAME:DIMENSION=SYMBOL, as in image:0=batch")
    return match[1], int(match[2]), match[3]


def group_dynamic(entries: Sequence[tuple[str, int, str]]) -> dict[str, dict[int, str]]:
    """The dynamic dimensions by input."""
    grouped: dict[str, dict[int, str]] = {}
    for name, dim, symbol in entries:
        grouped.setdefault(name, {})[dim] = symbol
    return grouped


def make_module(spec: str, weights: str | None = None, seed: int = 0) -> torch.nn.Module:
    """Call the factory of `PKG.MODULE:FACTORY` or `FILE.py:FACTORY`, and load weights into what it gives.

    Args:
        spec: the factory; it may be a module class, a function without arguments, or a module itself.
        weights: a file with a state_dict.
        seed: torch's random numbers are seeded with it first.

    Raises:
        ExportError: no such factory, it fails, it gives no module, or the weights do not fit.
    """
    torch = import_torch()
    try:
        factory = load_function(spec)
    except ValueError as error:
        raise ExportError(str(error)) from error
    torch.manual_seed(seed)
    try:
        module = factory if isinstance(factory, torch.nn.Module) else factory()
    except Exception as error:  # the user's own code
        raise ExportError(f"{spec} fails: {type(error).__name__}: {first_line(error)}") from error
    if not isinstance(module, torch.nn.Module):
        raise ExportError(f"{spec} gives a {type(module).__name__}, not a torch.nn.Module")
    if weights is not None:
        _load_weights(module, Path(weights))
    return module


def make_args(
    module: torch.nn.Module, specs: Sequence[InputSpec], seed: int = 0
) -> tuple[Sequence[torch.Tensor] | dict[str, torch.Tensor], list[str] | None]:
    """Example tensors: floats normal, integers and booleans 0 or 1.

    Returns:
        the tensors by name, where forward has parameters of those names; else in order, and the names to give
        the inputs.
    """
    torch = import_torch()
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Any] = {}
    for spec in specs:
        if spec.name in tensors:
            raise ExportError(f"--input {spec.name} is given twice")
        dtype = getattr(torch, DTYPES[spec.dtype])
        if dtype.is_floating_point:
            tensors[spec.name] = torch.randn(spec.shape, generator=generator).to(dtype)
        else:
            tensors[spec.name] = torch.randint(0, 2, spec.shape, generator=generator).to(dtype)
    if set(tensors) <= set(inspect.signature(module.forward).parameters):
        return tensors, None
    return list(tensors.values()), list(tensors)


def _load_weights(module: torch.nn.Module, path: Path) -> None:
    if not os.path.isfile(path):
        raise ExportError(f"{path}: no such file")
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_state(path)
    try:
        missing, unexpected = module.load_state_dict(state, strict=False)
    except RuntimeError as error:  # shapes that differ; the first line only announces them
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ExportError(f"{path} does not fit the module: {lines[min(1, len(lines) - 1)]}") from error
    for names, what in ((missing, "has no"), (unexpected, "has what the module lacks:")):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise ExportError(f"{path} {what} {names[0]!r}{more}")


def _read_state(path: Path) -> Mapping[str, Any]:
    torch = import_torch()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and torch errors, for a file of any content
        raise ExportError(
            f"{path}: not a file of torch tensors alone; write it with torch.save(module.state_dict(), path)"
        ) from error
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping):
        raise ExportError(f"{path} holds a {type(state).__name__}, not a state_dict")
    return state


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    try:
        safetensors = importlib.import_module("safetensors.torch")
    except ImportError as error:
        raise ExportError(f"{path}: reading it needs safetensors: pip install safetensors") from error
    try:
        state: Mapping[str, Any] = safetensors.load_file(path)
    except Exception as error:  # its own classes, from Rust
        raise ExportError(f"{path}: not a safetensors file ({first_line(error)})") from error
    return state
