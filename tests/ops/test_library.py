"""The library as a whole: what it exports, and how it loads and refuses to."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import onnxruntime as ort
import pytest

from onnxcompress.errors import ModelError
from onnxcompress.runtime import library

ROOT = Path(__file__).parents[2]

EXPORTS = {
    "RegisterCustomOps",
    "onnxcompress_cuda_devices",
    "onnxcompress_force_instruction_set",
    "onnxcompress_has_instruction_set",
    "onnxcompress_instruction_set",
    "onnxcompress_peak",
}


def symbols(*options: str) -> list[list[str]]:
    """Lines of nm: [address,] kind, name."""
    path = library.library_path()
    assert path is not None
    result = subprocess.run(["nm", *options, str(path)], capture_output=True, text=True, check=True)
    return [line.split(maxsplit=2) for line in result.stdout.splitlines()]


@pytest.mark.skipif(sys.platform != "linux", reason="reads ELF")
def test_nothing_but_the_entry_points_is_exported() -> None:
    assert {line[-1] for line in symbols("-D", "--defined-only")} == EXPORTS


@pytest.mark.skipif(sys.platform != "linux", reason="reads ELF")
def test_it_links_to_no_runtime_but_the_compilers() -> None:
    path = library.library_path()
    assert path is not None
    text = subprocess.run(["readelf", "-d", str(path)], capture_output=True, text=True, check=True).stdout
    needed = {line.split("[")[1].split("]")[0].split(".")[0] for line in text.splitlines() if "(NEEDED)" in line}
    sanitizers = {"libasan", "libubsan"}
    of_glibc = {"libm", "libc", "ld-linux-x86-64", "libdl", "libpthread", "librt"}
    assert needed - sanitizers <= {"libstdc++", "libgcc_s", *of_glibc}, "CUDA's runtime is linked statically"


def test_kernels_of_an_instruction_set_share_no_code() -> None:
    # A weak function that a kernel file emits would be merged with those of the same name from anywhere in the
    # program: compiled for AVX-512, it would run on processors that lack it.
    kinds = [(line[-2], line[-1]) for line in symbols("-C") if len(line) >= 2]
    names = ("scalar", "avx2", "avx512", "avx512vbmi")
    weak = [name for kind, name in kinds if kind in "WVu" and any(f"oc::{isa}::" in name for isa in names)]
    assert weak == []
    tables = [name for kind, name in kinds if name.startswith("oc::scalar::") and kind in "DdRr"]
    assert len(tables) > 3, "the names of kernels are not what this test looks for"


def test_kernels_use_nothing_of_the_standard_library_that_could_be_shared() -> None:
    """Its templates would be such functions; these headers have none, or none that is called."""
    allowed = {"cstddef", "cstdint", "cstring", "immintrin.h"}
    kernels = [path for path in (ROOT / "onnxcompress" / "csrc" / "cpu").iterdir() if path.name != "isa.cpp"]
    assert len(kernels) > 30
    for path in kernels:
        included = re.findall(r"#include [<\"]([^>\"]+)[>\"]", path.read_text("utf-8"))
        assert {name for name in included if not name.startswith("cpu/")} <= allowed, path.name
        used = set(re.findall(r"\bstd::(\w+)", path.read_text("utf-8")))
        assert used <= {"memcpy", "memset", "memmove", "size_t"}, path.name


@pytest.mark.parametrize("content", [b"this is text", b"", b"\x7fELF but not much of it"])
def test_what_is_no_library_is_named(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "libonnxcompress.so"
    path.write_bytes(content)
    monkeypatch.setenv("ONNXCOMPRESS_LIBRARY", str(path))
    with pytest.raises(ModelError) as caught:
        library.register(ort.SessionOptions())
    assert str(path) in str(caught.value)
    # The reason is the loader's: too short, or not the header of a library.
    reason = str(caught.value).replace(str(path), "")
    assert "too short" in reason or "invalid ELF header" in reason or "ELF" in reason


def test_a_library_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNXCOMPRESS_LIBRARY", str(tmp_path / "missing.so"))
    with pytest.raises(ModelError, match=r"missing\.so.*(No such file|not exist|cannot open)"):
        library.register(ort.SessionOptions())


def test_another_library_without_the_entry_point_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import _ctypes

    monkeypatch.setenv("ONNXCOMPRESS_LIBRARY", _ctypes.__file__)
    with pytest.raises(ModelError, match="RegisterCustomOps"):
        library.register(ort.SessionOptions())


def test_registering_twice_is_registering_once() -> None:
    options = ort.SessionOptions()
    assert library.register(options)
    assert library.register(options)
    assert library.register(ort.SessionOptions())


def test_an_unknown_instruction_set_is_refused() -> None:
    before = library.instruction_set()
    with pytest.raises(ValueError, match="mmx"):
        library.force_instruction_set("mmx")
    assert library.instruction_set() == before


def test_forcing_and_going_back() -> None:
    best = library.instruction_set()
    library.force_instruction_set("scalar")
    try:
        assert library.instruction_set() == "scalar"
    finally:
        library.force_instruction_set("")
    assert library.instruction_set() == best


def test_a_session_with_an_instruction_set_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNXCOMPRESS_ISA", "nonsense")
    with pytest.raises(ModelError, match="ONNXCOMPRESS_ISA=nonsense"):
        library.register(ort.SessionOptions())


@pytest.mark.parametrize(("wanted", "given"), [("scalar", "scalar"), ("nonsense", None)])
def test_the_environment_forces_one(wanted: str, given: str | None) -> None:
    code = "from onnxcompress.runtime import library; print(library.instruction_set())"
    environment = {**os.environ, "ONNXCOMPRESS_ISA": wanted}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == (given or library.instruction_set())
