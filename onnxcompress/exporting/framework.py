"""Torch itself: imported when it is first needed, kept quiet, and its errors made short."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from onnxcompress.errors import ExportError

if TYPE_CHECKING:
    import torch


def import_torch() -> Any:
    """The torch module.

    Raises:
        ExportError: torch is not installed, or does not import.
    """
    try:
        import torch
    except ImportError as error:
        raise ExportError(f"this needs torch: pip install 'onnxcompress[torch]' ({error})") from error
    return torch


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings, logging and what Python code prints: torch's exporter reports to its own developers."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


@contextlib.contextmanager
def evaluation_mode(module: torch.nn.Module) -> Iterator[None]:
    """Put a module in eval mode; afterwards every submodule is in the mode it was in (some may be frozen)."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextlib.contextmanager
def unchanged_buffers(module: torch.nn.Module) -> Iterator[None]:
    """Undo what a forward pass does to buffers (counters, caches), whether in place or by assignment."""
    saved = [
        (part, name, buffer, buffer.detach().clone())
        for part in module.modules()
        for name, buffer in part.named_buffers(recurse=False)
    ]
    try:
        yield
    finally:
        torch = import_torch()
        with torch.no_grad():
            for part, name, buffer, values in saved:
                setattr(part, name, buffer)
                if not torch.equal(buffer, values):
                    buffer.copy_(values)


def forget_recurrent_kernels() -> None:
    """Make torch look up the kernels of LSTM and GRU anew.

    Torch 2.13 swaps in others while it exports dynamic shapes, but a lookup that was cached before wins: every
    export after the first use of such a layer would fix the length of the sequence.
    """
    torch = import_torch()
    for operator in (torch.ops.aten.lstm.input, torch.ops.aten.gru.input):
        cache = getattr(operator, "_dispatch_cache", None)
        if cache is not None:
            cache.clear()


def reason(error: BaseException) -> str:
    """The line of an error of torch's exporter that a user can act on, with the line of their code at fault."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    # "Found the following conflicts ...:" and the like announce a list; its first item is the message.
    first = next((line.removeprefix("- ") for line in lines if not line.endswith(":")), lines[0])
    if "data-dependent" in first:
        first = "control flow depends on the values of a tensor; use torch.where or torch.cond"
    if inferred := re.search(
        r"inferred a static shape of (\d+) for dimension inputs\['(.+?)'\]\.shape\[(\d+)\]", first
    ):
        size, name, dim = inferred.groups()
        first = f"the module fixes dimension {dim} of input {name!r} to {size}; leave it out of the dynamic ones"
    place = re.search(r'following call raised this error:\s+File "([^"]+)", line (\d+), in \S+\n\s*(.+)', text)
    if place is not None:
        file, line, code = place.groups()
        first += f" (at {file}:{line}: {code.strip()})"
    return first[:400]
