"""The kernels under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sanitizers import linux_with_gcc, sanitized_environment

ROOT = Path(__file__).parents[2]

INSTRUCTION_SETS = "avx2;avx512vbmi"
"""Beside the portable one; avx512 differs from avx512vbmi in its tables only, and each takes minutes to build."""


@pytest.mark.slow
@linux_with_gcc
def test_no_kernel_does_what_is_undefined(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    cmake = shutil.which("cmake")
    if cmake is None:
        pytest.skip("no cmake")
    build = tmp_path / "build"
    options = [
        "-DONNXCOMPRESS_SANITIZE=ON", "-Dcuda=OFF", f"-DONNXCOMPRESS_INSTRUCTION_SETS={INSTRUCTION_SETS}",
        f"-DONNXCOMPRESS_LIBRARY_FOLDER={build}",
    ]  # fmt: skip
    subprocess.run([cmake, "-S", ROOT / "onnxcompress" / "csrc", "-B", build, *options], check=True, timeout=120)
    subprocess.run([cmake, "--build", build, "--parallel", "2"], check=True, timeout=3000)
    environment = {
        **sanitized_environment(),
        "ONNXCOMPRESS_LIBRARY": str(build / "libonnxcompress.so"),
        "PYTHONPATH": str(ROOT),
    }
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
        "-k", "not torch and not body and not reference_evaluator",
        str(Path(__file__).parent), "--ignore", str(Path(__file__).parent / "test_library.py"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000, env=environment)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
