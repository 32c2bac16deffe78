"""Builds the fuzzer of the native kernels and runs it.

    apt-get install clang-16 libclang-rt-16-dev lld-16          # or another Clang from 14 on
    python -m tests.fuzz.kernels.run --folder FOLDER --seconds 1800 [--cuda]

FOLDER keeps the build (some minutes for every instruction set), the corpus and what was found: `crash-*`, `timeout-*`
and `oom-*`. Each of those is a node that the library handles badly; run it again with

    FOLDER/build/fuzz_kernels FOLDER/found/crash-...

At the end a table says how many nodes of each operator were made, became kernels, ran, and gave results; `altered` are
results of nodes that were changed after they had been right. `--coverage` builds without sanitizers, runs the corpus
once and prints which lines of the library that reaches (it needs llvm-profdata and llvm-cov of Clang's version).
`--cuda` fuzzes the operators for CUDA devices, whose kernels are emulated; give it a folder of its own.

No ONNX Runtime takes part: runtime.cpp has the functions of its C ABI that the library calls, and a tensor there ends
where its last byte ends. describe_*.cpp make nodes that the library takes, alter.cpp changes them.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parent
INSTRUCTION_SETS = "avx2;avx512;avx512vbmi"
OPERATORS, SETS, SEEDS = 21, 4, 6
EMULATED_TIMEOUT = 600
TIMEOUT, MOST_MEGABYTES, MOST_BLOCK, LONGEST = 10, 2048, 512, 400


def compiler() -> str | None:
    """The newest Clang on the path."""
    names = ["clang++", *(f"clang++-{version}" for version in range(30, 13, -1))]
    return next((name for name in names if shutil.which(name)), None)


def build(
    folder: Path, instruction_sets: str = INSTRUCTION_SETS, *, coverage: bool = False, cuda: bool = False
) -> Path:
    """Builds the fuzzer in a folder and gives its path.

    Raises:
        RuntimeError: where there is no Clang.
        subprocess.CalledProcessError: where it does not build.
    """
    clang = compiler()
    if clang is None:
        raise RuntimeError("libFuzzer needs Clang: install clang-16 and libclang-rt-16-dev")
    options = [f"-DCMAKE_CXX_COMPILER={clang}", f"-DFUZZ_INSTRUCTION_SETS={instruction_sets}"]
    options += [f"-DFUZZ_COVERAGE={'ON' if coverage else 'OFF'}", f"-DFUZZ_CUDA={'ON' if cuda else 'OFF'}"]
    subprocess.run(["cmake", "-S", SOURCE, "-B", folder, *options], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["cmake", "--build", folder, "--parallel", "2"], check=True)
    return folder / "fuzz_kernels"


def write_seeds(folder: Path, count: int = SEEDS) -> None:
    """Random nodes of every operator for every instruction set, half of them right ones: the corpus to start from.

    The first bytes choose the operator, the instruction set, the number of changes and the seed of contents (8 bytes).
    """
    folder.mkdir(parents=True, exist_ok=True)
    choices = random.Random(0)
    for operator in range(OPERATORS):
        for instruction_set in range(SETS):
            for index in range(count):
                head = bytes([operator, instruction_set, index % 2 * (1 + index % 3)])
                path = folder / f"seed-{operator:02}-{instruction_set}-{index}"
                path.write_bytes(head + choices.randbytes(150))


def fuzz(program: Path, folder: Path, *options: str, capture: bool = False) -> subprocess.CompletedProcess[str]:
    """Fuzzes from the corpus in a folder, which grows; what is found goes to its `found`.

    Args:
        program: what `build` gave.
        folder: of the corpus and of what is found.
        options: of libFuzzer, besides the limits.
        capture: whether libFuzzer's report is returned rather than shown.
    """
    corpus, found = folder / "corpus", folder / "found"
    write_seeds(corpus)
    found.mkdir(exist_ok=True)
    limits = [f"-timeout={TIMEOUT}", f"-rss_limit_mb={MOST_MEGABYTES}", f"-malloc_limit_mb={MOST_BLOCK}"]
    limits += [f"-max_len={LONGEST}", f"-artifact_prefix={found}/"]
    environment = {"ASAN_OPTIONS": "allocator_may_return_null=1:detect_leaks=1", **os.environ}
    return subprocess.run(
        [program, corpus, *limits, *options], check=False, text=True, env=environment,
        stderr=subprocess.PIPE if capture else None,
    )  # fmt: skip


def show_coverage(folder: Path, instruction_sets: str = INSTRUCTION_SETS, cuda: bool = False) -> None:
    """Prints which lines and functions of the library the corpus in a folder reaches, file by file."""
    program = build(folder / "coverage", instruction_sets, coverage=True, cuda=cuda)
    suffix = (compiler() or "").removeprefix("clang++")
    raw, data = folder / "coverage" / "raw", folder / "coverage" / "data"
    environment = {**os.environ, "LLVM_PROFILE_FILE": str(raw)}
    subprocess.run([program, folder / "corpus", "-runs=0"], check=True, env=environment)
    subprocess.run([f"llvm-profdata{suffix}", "merge", raw, "-o", data], check=True)
    report = [
        f"llvm-cov{suffix}",
        "report",
        str(program),
        f"-instr-profile={data}",
        "-ignore-filename-regex=tests/fuzz",
    ]
    subprocess.run([*report, "-show-branch-summary=0", "-show-region-summary=0"], check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz the native kernels.")
    parser.add_argument("--folder", type=Path, required=True, help="where build, corpus and findings are kept")
    parser.add_argument("--seconds", type=int, default=60, help="how long to fuzz")
    parser.add_argument("--instruction-sets", default=INSTRUCTION_SETS, help="those beyond the portable one")
    parser.add_argument("--cuda", action="store_true", help="the operators for CUDA devices, emulated")
    parser.add_argument("--coverage", action="store_true", help="show the coverage of the corpus instead")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if arguments.coverage:
        show_coverage(arguments.folder, arguments.instruction_sets, arguments.cuda)
        return 0
    sets = "" if arguments.cuda else arguments.instruction_sets
    program = build(arguments.folder / "build", sets, cuda=arguments.cuda)
    options = [f"-max_total_time={arguments.seconds}"]
    if arguments.cuda:
        options.append(f"-timeout={EMULATED_TIMEOUT}")
    return fuzz(program, arguments.folder, *options).returncode


if __name__ == "__main__":
    sys.exit(main())
