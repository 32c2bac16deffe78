"""The kernels compiled with nvcc: for all targets, without spills, within the registers that a thread has."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cuda.emulated import CSRC

TARGETS = ("sm_80", "sm_89", "sm_90")
SOURCES = [path for path in sorted((CSRC / "cuda").glob("*.cu")) if "__global__" in path.read_text("utf-8")]

MOST_REGISTERS = 255
MOST_STATIC_SHARED = 48 << 10
MOST_BESIDE_DYNAMIC = 16 << 10
"""Static shared memory of a kernel that has dynamic too: launch() asks for more than 48 KB of both from 32 KB on."""

DYNAMIC = ("5tiled", "18convolution_kernel", "11gemm_kernel", "11gemv_kernel", "13panels_kernel", "11rows_kernel",
           "12gates_kernel")  # fmt: skip
"""In the names of kernels that are launched with dynamic shared memory."""


@dataclass(frozen=True)
class Kernel:
    """What ptxas says of one kernel for one target."""

    name: str
    target: str
    registers: int
    stack: int
    spills: int
    shared: int


def kernels_of(report: str) -> list[Kernel]:
    """Parses the output of `ptxas -v`."""
    pattern = re.compile(
        r"Compiling entry function '(?P<name>\w+)' for '(?P<target>\w+)'.*?"
        r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
        r"Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
        re.DOTALL,
    )
    found = []
    for match in pattern.finditer(report):
        shared = re.search(r"(\d+) bytes smem", match["rest"])
        spills = int(match["stores"]) + int(match["loads"])
        found.append(
            Kernel(
                match["name"], match["target"], int(match["registers"]), int(match["stack"]), spills,
                int(shared[1]) if shared else 0,
            )
        )  # fmt: skip
    return found


def compile_kernels(source: Path, result: Path, targets: tuple[str, ...]) -> list[Kernel]:
    """Compiles with warnings as errors; PTX of the last target is in the result."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no nvcc")
    codes = [f"-gencode=arch=compute_{target[3:]},code={target}" for target in targets]
    codes.append(f"-gencode=arch=compute_{targets[-1][3:]},code=compute_{targets[-1][3:]}")
    command = [nvcc, "-std=c++20", "-O3", *codes, "-Werror", "all-warnings", "-Xptxas", "-v", f"-I{CSRC}"]
    done = subprocess.run([*command, "-c", str(source), "-o", str(result)], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-6000:]
    return kernels_of(done.stderr)


def check(kernels: list[Kernel], targets: tuple[str, ...]) -> None:
    assert {kernel.target for kernel in kernels} == set(targets)
    names = {target: sorted(kernel.name for kernel in kernels if kernel.target == target) for target in targets}
    assert names[targets[0]] and all(names[target] == names[targets[0]] for target in targets)
    assert not [kernel for kernel in kernels if kernel.spills]
    assert not [kernel for kernel in kernels if kernel.stack]
    assert not [kernel for kernel in kernels if kernel.registers > MOST_REGISTERS]
    assert not [kernel for kernel in kernels if kernel.shared > MOST_STATIC_SHARED]
    both = [kernel for kernel in kernels if any(name in kernel.name for name in DYNAMIC)]
    assert not [kernel for kernel in both if kernel.shared > MOST_BESIDE_DYNAMIC]


def test_there_are_kernels_to_compile() -> None:
    assert {"linear", "quantize", "sparse24"} <= {path.stem for path in SOURCES}


def test_one_file_compiles_for_all_targets(tmp_path: Path) -> None:
    """The others, with -m slow: nvcc takes up to a minute for each."""
    result = tmp_path / "quantize.o"
    check(compile_kernels(CSRC / "cuda" / "quantize.cu", result, TARGETS), TARGETS)
    cuobjdump = shutil.which("cuobjdump")
    if cuobjdump is None:
        return
    listed = subprocess.run([cuobjdump, "-lelf", "-lptx", str(result)], capture_output=True, text=True, check=True)
    assert all(f"{target}.cubin" in listed.stdout for target in TARGETS)
    assert f"{TARGETS[-1]}.ptx" in listed.stdout


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_kernels_compile_without_spills(tmp_path: Path, source: Path) -> None:
    kernels = compile_kernels(source, tmp_path / "kernels.o", TARGETS)
    check(kernels, TARGETS)
    for kernel in kernels:
        print(kernel)  # shown with -s


def test_a_kernel_that_spills_is_found(tmp_path: Path) -> None:
    """The parser reads what ptxas writes: a kernel that cannot keep its values in registers."""
    source = tmp_path / "spill.cu"
    source.write_text(
        """
        __global__ void __launch_bounds__(1024, 2) spill(float* x) {
          float v[96];
          for (int i = 0; i < 96; ++i) v[i] = x[i * 1024 + threadIdx.x];
          __syncthreads();
          for (int i = 0; i < 96; ++i) x[i * 1024 + threadIdx.x] = v[95 - i] * v[(i * 7) % 96];
        }
        """,
        "utf-8",
    )
    (kernel,) = compile_kernels(source, tmp_path / "spill.o", ("sm_80",))
    assert kernel.target == "sm_80" and kernel.registers <= 32 and kernel.spills > 0
    with pytest.raises(AssertionError):
        check([kernel], ("sm_80",))
