"""Errors that nobody foresaw: most come of a model that breaks a rule of ONNX, which then is the thing to say."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxcompress.errors import CompressError, ModelError, first_line


def unexpected(error: Exception, arguments: Mapping[str, Any]) -> CompressError:
    """What to tell of an error that no code of ours raised on purpose.

    Args:
        arguments: of the command; the models among them are looked at.
    """
    for path in _models(arguments):
        broken = verdict(path)
        if broken:
            return ModelError(f"{path}: not a valid ONNX model: {broken}")
    kind = f"{type(error).__name__}: {first_line(error)}"
    return CompressError(f"a mistake of onnxcompress ({kind}): please report it; -vv shows where it happened")


def _models(arguments: Mapping[str, Any]) -> list[Path]:
    """Paths of models that a command reads; what is under its output's name is not to blame."""
    named: list[Any] = []
    for name, value in arguments.items():
        if name == "output":
            continue
        named.extend(value if isinstance(value, tuple) else [value])
    models = [value for value in named if isinstance(value, str) and value.endswith(".onnx")]
    return [Path(value) for value in models if os.path.isfile(value)]


def verdict(path: Path) -> str:
    """What onnx's checker and ONNX Runtime have against a model; "" if they have nothing."""
    import onnx

    from onnxcompress.runtime.session import open_session

    try:
        onnx.checker.check_model(os.fspath(path), full_check=True)
    except Exception as error:
        return first_line(error)
    try:
        open_session(path, threads=1)
    except CompressError as error:
        return str(error).removeprefix(f"{path}: ")
    return ""
