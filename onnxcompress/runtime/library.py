"""The library of native kernels: where it is, and registering it with ONNX Runtime."""

from __future__ import annotations

import ctypes
import functools
import os
import threading
import weakref
from pathlib import Path

import onnxruntime as ort

from onnxcompress.errors import ModelError


def library_path() -> Path | None:
    """The library of custom operators, for hosts in any language; None where this platform's wheel carries none.

    ONNXCOMPRESS_LIBRARY in the environment names another one, as a build with sanitizers.
    """
    if override := os.environ.get("ONNXCOMPRESS_LIBRARY"):
        return Path(override)
    path = Path(__file__).parent.parent / "libonnxcompress.so"
    return path if path.exists() else None


def register(options: ort.SessionOptions) -> bool:
    """Register the library on session options, once; False where there is none.

    Raises:
        ModelError: the library is there and does not load; the message has its path and the reason. Or the
            environment asks for an instruction set that the processor lacks.
    """
    path = library_path()
    if path is None:
        return False
    with _LOCK:  # ONNX Runtime opens no model on options that two threads have registered it on
        if id(options) in _REGISTERED:
            return True
        try:
            options.register_custom_ops_library(str(path))
            library = _loaded(str(path))
        except Exception as error:
            raise ModelError(f"the library {path} does not load: {error}") from error
        wanted = os.environ.get("ONNXCOMPRESS_ISA")
        if wanted and not library.onnxcompress_has_instruction_set(wanted.encode()):
            raise ModelError(f"ONNXCOMPRESS_ISA={wanted}: no kernels for it here; unset it, or see onnxcompress doctor")
        _REGISTERED[id(options)] = None
        weakref.finalize(options, _REGISTERED.pop, id(options), None)
        return True


_REGISTERED: dict[int, None] = {}
_LOCK = threading.Lock()


@functools.cache
def _loaded(path: str) -> ctypes.CDLL:
    library = ctypes.CDLL(path)
    library.onnxcompress_instruction_set.restype = ctypes.c_char_p
    library.onnxcompress_force_instruction_set.argtypes = [ctypes.c_char_p]
    library.onnxcompress_force_instruction_set.restype = ctypes.c_bool
    library.onnxcompress_has_instruction_set.argtypes = [ctypes.c_char_p]
    library.onnxcompress_has_instruction_set.restype = ctypes.c_bool
    library.onnxcompress_peak.restype = ctypes.c_double
    library.onnxcompress_cuda_devices.restype = ctypes.c_int
    return library


def instruction_set() -> str:
    """The instruction set of the kernels that sessions opened from now on use: scalar | avx2 | avx512 | avx512vbmi.

    ONNXCOMPRESS_ISA in the environment forces one for the whole process. "" where there is no library.
    """
    path = library_path()
    return _loaded(str(path)).onnxcompress_instruction_set().decode() if path else ""


def force_instruction_set(name: str) -> None:
    """Use the kernels of one instruction set in sessions opened from now on; "" goes back to the best.

    Raises:
        ValueError: the processor lacks it, or there is no library.
    """
    path = library_path()
    if path is None or not _loaded(str(path)).onnxcompress_force_instruction_set(name.encode()):
        raise ValueError(f"no kernels for {name} here")


def has_instruction_set(name: str) -> bool:
    """Are there kernels for it that this processor can run?"""
    path = library_path()
    return path is not None and bool(_loaded(str(path)).onnxcompress_has_instruction_set(name.encode()))


def cuda_devices() -> int | None:
    """CUDA devices that are there now; None where the library has no kernels for them, or there is no library."""
    path = library_path()
    count = int(_loaded(str(path)).onnxcompress_cuda_devices()) if path else -1
    return None if count < 0 else count


def peak() -> float:
    """The most int8 operations one core does, in 10^9 a second (two a multiply-accumulate), measured now.

    Raises:
        ValueError: there is no library.
    """
    path = library_path()
    if path is None:
        raise ValueError("no native library here")
    return float(_loaded(str(path)).onnxcompress_peak())
