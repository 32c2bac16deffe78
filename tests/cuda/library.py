"""The whole library with its CUDA operators: for a GPU, or with kernels that the emulation runs on the CPU."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest

from tests.cuda.emulated import CSRC

EMULATED = "ONNXCOMPRESS_EMULATED_LIBRARY"
"""Names a library in the environment that tests take in the place of building one."""


def gpu_name() -> str:
    """Of the first NVIDIA GPU; "" where there is none."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.splitlines()[0].strip() if done.stdout.strip() else ""


def missing_tool(cuda: Literal["ON", "EMULATED"]) -> str:
    """The name of a program that building takes and that is not here; "" where all are."""
    tools = ("cmake", "nvcc" if cuda == "ON" else "g++")
    return next((tool for tool in tools if shutil.which(tool) is None), "")


def build_library(folder: Path, cuda: Literal["ON", "EMULATED"], *, sanitize: bool = False) -> Path:
    """Builds it into `folder`, in minutes.

    Raises:
        RuntimeError: it does not build; the text is the compiler's.
    """
    options = [
        f"-Dcuda={cuda}", "-DONNXCOMPRESS_INSTRUCTION_SETS=", f"-DONNXCOMPRESS_SANITIZE={'ON' if sanitize else 'OFF'}",
        f"-DONNXCOMPRESS_LIBRARY_FOLDER={folder}",
    ]  # fmt: skip
    if cuda == "EMULATED":
        options += ["-DCMAKE_BUILD_TYPE=None", "-DCMAKE_CXX_FLAGS=-O1 -g1"]
    build = str(folder / "build")
    for command in (["cmake", "-S", str(CSRC), "-B", build, *options], ["cmake", "--build", build, "-j8"]):
        done = subprocess.run(command, capture_output=True, text=True, timeout=3000)
        if done.returncode != 0:
            raise RuntimeError((done.stdout + done.stderr)[-6000:])
    return folder / "libonnxcompress.so"


@contextmanager
def using(library: Path) -> Iterator[None]:
    """Sessions opened within take their operators from this library."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONNXCOMPRESS_LIBRARY", str(library))
        yield
