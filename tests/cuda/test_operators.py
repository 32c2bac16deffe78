"""Every operator on CUDA: its host code and its kernels, emulated, in ONNX Runtime, against the numpy reference.

A GPU takes the same cases with `pytest -m gpu`; see test_gpu.py.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from onnxcompress.ops import OPS
from tests.cuda.library import EMULATED, build_library, using
from tests.ops import forms
from tests.ops.cases import ALL
from tests.ops.cases.case import Case
from tests.ops.test_forms import compare
from tests.sanitizers import linux_with_gcc, sanitized_environment

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("case", ALL, ids=str)
def test_agrees_with_the_reference(case: Case, emulated_library: Path, order: str) -> None:
    if "kernel" in case.skip:
        pytest.skip(case.skip["kernel"])
    ctypes.CDLL(str(emulated_library)).onnxcompress_emulate_backwards(order == "reversed")
    with using(emulated_library):
        actual = forms.kernel(case, "")
    compare(case.on_device(), forms.reference(case), actual, case.steps, False)


def test_the_emulation_is_what_runs(emulated_library: Path) -> None:
    """A case for each operator, whose kernels must not be the CPU's: those depend on the instruction set."""
    from onnxcompress.runtime import library

    with using(emulated_library):
        assert library.cuda_devices() == 1
    assert library.cuda_devices() is None or library.library_path() != emulated_library
    assert {case.op for case in ALL} == set(OPS)


def test_a_run_gives_the_same_twice(emulated_library: Path) -> None:
    """Splits of K are summed in a fixed order."""
    for op in ("QLinear", "QConv", "WeightOnlyLinear"):
        case = max((case for case in ALL if case.op == op), key=lambda case: np.asarray(case.inputs[0]).size)
        with using(emulated_library):
            first, second = (forms.kernel(case, "") for _ in range(2))
        for name in case.outputs:
            np.testing.assert_array_equal(first[name], second[name])


@pytest.mark.slow
@linux_with_gcc
def test_nothing_undefined_is_done(tmp_path: Path) -> None:
    """All cases in both orders, and malformed nodes, under AddressSanitizer and UndefinedBehaviorSanitizer."""
    library = str(build_library(tmp_path, "EMULATED", sanitize=True))
    # Left out: what only the CPU's kernels could take much memory for, and tensors at odd addresses, which are refused.
    runs = {
        "ONNXCOMPRESS_LIBRARY": [
            str(ROOT / "tests" / "ops" / "test_hostile.py"), "-k", "not out_of_proportion and not factors_of_many",
        ],
        EMULATED: [__file__, "-k", "agrees"],
    }  # fmt: skip
    for variable, tests in runs.items():
        environment = {**sanitized_environment(), variable: library, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
        done = subprocess.run(command, capture_output=True, text=True, timeout=3000, env=environment)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
