"""The fuzzer of the native kernels builds, gets every operator to its results, and finds nothing in a short run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from onnxcompress.ops import OPS
from tests.fuzz.kernels import run

DESCRIBED = Path(run.__file__).parent


def test_every_operator_is_described() -> None:
    text = "".join(path.read_text("utf-8") for path in DESCRIBED.glob("describe_*.cpp"))
    assert not [op for op in OPS if f'{{"{op}", ' not in text]
    assert len(OPS) == run.OPERATORS


def test_seeds_are_the_same_every_time(tmp_path: Path) -> None:
    contents = []
    for name in ("a", "b"):
        run.write_seeds(tmp_path / name)
        contents.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert contents[0] == contents[1]
    assert len(contents[0]) == run.OPERATORS * run.SETS * run.SEEDS


def test_there_is_no_fuzzer_without_clang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match="needs Clang"):
        run.build(tmp_path)


def _links(clang: str, folder: Path) -> bool:
    """Whether a Clang has libFuzzer and AddressSanitizer with it."""
    source = folder / "empty.cpp"
    source.write_text('extern "C" int LLVMFuzzerTestOneInput(const char*, unsigned long) { return 0; }')
    command = [clang, "-fsanitize=fuzzer,address", str(source), "-o", str(folder / "empty")]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("cmake"), reason="libFuzzer and CMake")
def test_a_short_run_finds_nothing(tmp_path: Path) -> None:
    clang = run.compiler()
    if clang is None or not _links(clang, tmp_path):
        pytest.skip("no Clang with libFuzzer")
    program = run.build(tmp_path / "build", instruction_sets="avx2")
    done = run.fuzz(program, tmp_path, "-max_total_time=60", capture=True)
    assert done.returncode == 0, done.stderr[-4000:]
    assert not list((tmp_path / "found").iterdir())
    table = [line.split() for line in done.stderr.splitlines() if line.split()[:1] and line.split()[0] in OPS]
    assert {line[0] for line in table} == set(OPS)
    for name, _, kernels, _, results, _, altered in table:
        assert min(int(kernels), int(results), int(altered)) > 0, name
