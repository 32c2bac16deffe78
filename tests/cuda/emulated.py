"""Kernels of csrc/cuda built for the CPU with the emulation shim, and called through ctypes."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

CSRC = Path(__file__).parents[2] / "onnxcompress" / "csrc"

SANITIZE = "ONNXCOMPRESS_SANITIZE_EMULATION"
"""Set to 1 by test_sanitizers.py, which preloads what such a library needs."""

FLAGS = ("-std=c++20", "-O1", "-g1", "-fPIC", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Wno-unused-function")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")

AnyStructure = TypeVar("AnyStructure", bound=ctypes.Structure)


class EmulationError(Exception):
    """What a kernel or the emulator threw."""


class Emulated:
    """A library of kernels, the functions that its bindings export with OC_EXPORT, and their structures."""

    reversed: ClassVar[bool] = False
    """Run the threads of a block backwards; the fixture `order` sets it."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))

    def call(self, name: str, *arguments: Any) -> None:
        """Calls an exported function.

        Arrays are passed as pointers, None as a null pointer, structures by reference, int as it comes; other scalars
        as their ctypes type.

        Raises:
            EmulationError: the function threw.
        """
        self._library.oc_set_reversed(ctypes.c_bool(Emulated.reversed))
        converted = [_argument(argument) for argument in arguments]
        function = ctypes.CFUNCTYPE(ctypes.c_char_p, *(type(argument) for argument in converted))
        address = ctypes.c_void_p.in_dll(self._library, f"oc_function_{name}").value
        assert address
        message = function(address)(*converted)
        if message:
            raise EmulationError(message.decode())

    def structure(self, kind: type[AnyStructure], **values: Any) -> AnyStructure:
        """A structure with these fields, arrays as the pointers to them (kept alive by it), the rest zero.

        Its class bears the name of the C++ structure, whose size must be exported with OC_EXPORT_SIZE.
        """
        size = ctypes.c_size_t.in_dll(self._library, f"oc_size_{kind.__name__}").value
        assert ctypes.sizeof(kind) == size, f"{kind.__name__} has {ctypes.sizeof(kind)} bytes, in C++ {size}"
        made = kind()
        made.kept_alive = values
        for name, value in values.items():
            assert hasattr(made, name), f"{kind.__name__} has no field {name}"
            setattr(made, name, _pointer(value) if isinstance(value, np.ndarray) else value)
        return made


def _pointer(array: np.ndarray[Any, Any]) -> int:
    assert array.flags.c_contiguous
    return array.ctypes.data


def _argument(value: Any) -> Any:
    if value is None:
        return ctypes.c_void_p(None)
    if isinstance(value, np.ndarray):
        return ctypes.c_void_p(_pointer(value))
    if isinstance(value, ctypes.Structure):
        return ctypes.c_void_p(ctypes.addressof(value))
    if isinstance(value, int):
        return ctypes.c_int64(value)
    return value


def build(folder: Path, sources: Sequence[str], bindings: str) -> Path:
    """Compiles sources of csrc (`cuda/linear.cu`) and the text of the bindings into a library in `folder`.

    Raises:
        RuntimeError: they do not compile; the text is the compiler's.
    """
    compiler = shutil.which("g++")
    if compiler is None:
        raise RuntimeError("no g++")
    own = folder / "bindings.cpp"
    own.write_text('#include "bindings.hpp"\n' + bindings, "utf-8")
    library = folder / "emulated.so"
    flags = FLAGS + (SANITIZERS if os.environ.get(SANITIZE) == "1" else ())
    paths = [str(CSRC / source) for source in sources]
    command = [compiler, *flags, "-shared", f"-I{CSRC}", f"-I{Path(__file__).parent}", "-x", "c++", str(own), *paths]
    done = subprocess.run([*command, "-o", str(library)], capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-6000:]}")
    return library
