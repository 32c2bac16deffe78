"""Functions that users name on the command line: `FILE.py:FN` and `PKG.MODULE:FN`."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

_LOADED: set[str] = set()
"""Files that users named: what is raised there is theirs."""


def load_function(spec: str) -> Callable[..., Any]:
    """Find the function of `FILE.py:FN` or `PKG.MODULE:FN`.

    A file's folder is put on `sys.path`, so that it can import its neighbours; a file of a package (its
    folder holds `__init__.py`) is imported as the package's module, so that its relative imports work.

    Raises:
        ValueError: no such file, module or function, or the file fails when it is run; one line.
    """
    place, separator, name = spec.rpartition(":")
    if not separator or not name.isidentifier():
        raise ValueError(f"{spec!r} is not FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION")
    module = _load_file(Path(place)) if place.endswith(".py") else _load_module(place)
    _LOADED.add(getattr(module, "__file__", None) or place)
    try:
        function = getattr(module, name)
    except AttributeError:
        raise ValueError(f"{place} has no function {name!r}") from None
    if not callable(function):
        raise ValueError(f"{place}:{name} is not a function")
    return function  # type: ignore[no-any-return]


def user_traceback(error: BaseException) -> str:
    """Where in the code that a user named an error came from, as Python shows it; "" if it did not.

    Frames above the user's code are ours and are left out; so are errors that ours made of the user's.
    """
    cause: BaseException | None = error
    while cause is not None:
        frames = traceback.extract_tb(cause.__traceback__)
        theirs = next((index for index, frame in enumerate(frames) if frame.filename in _LOADED), None)
        if theirs is not None:
            shown = traceback.StackSummary.from_list(frames[theirs:])
            return "".join([*shown.format(), *traceback.format_exception_only(cause)])
        cause = cause.__cause__
    return ""


def _load_file(path: Path) -> Any:
    if not os.path.isfile(path):  # where the name is too long, Path.is_file raises
        raise ValueError(f"{path}: no such file")
    path = path.resolve()
    if (path.parent / "__init__.py").is_file():
        return _load_package_file(path)
    name = f"_onnxcompress_user_{path.stem}_{abs(hash(path)):x}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    sys.modules[name] = module
    _LOADED.add(str(path))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ValueError(f"{path} fails when it is run: {type(error).__name__}: {error}") from error
    return module


def _load_package_file(path: Path) -> Any:
    parts = [path.stem]
    root = path.parent
    while (root / "__init__.py").is_file():
        parts.insert(0, root.name)
        root = root.parent
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    name = ".".join(parts)
    _LOADED.add(str(path))
    try:
        module = importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise ValueError(f"{path} fails when it is run: {type(error).__name__}: {error}") from error
    if Path(module.__file__ or "").resolve() != path:
        raise ValueError(f"{path}: {name} is already another module ({module.__file__}); rename its folder")
    return module


def _load_module(name: str) -> Any:
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise ValueError(f"module {name!r} cannot be imported: {type(error).__name__}: {error}") from error
