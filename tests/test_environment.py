"""The environment: real on this machine, and its warnings and errors when the installation is wrong."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import sys
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from onnxcompress import environment as module
from onnxcompress.environment import describe, environment, environment_record


def test_this_machine() -> None:
    found = environment()
    assert found.errors == ()
    assert set(found.providers) == set(ort.get_available_providers())
    assert found.providers["CPUExecutionProvider"]
    assert found.packages["numpy"] == np.__version__
    assert found.cores >= 1
    assert found.cpu
    assert found.library.startswith("native library libonnxcompress")
    json.dumps(found.as_dict())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/cpuinfo")
def test_instruction_sets_are_those_of_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    numpy_features = importlib.import_module("numpy._core._multiarray_umath").__cpu_features__
    found = set(module.instruction_sets())
    for mine, theirs in (("avx2", "AVX2"), ("fma", "FMA3"), ("avx512f", "AVX512F"), ("neon", "NEON")):
        assert (mine in found) == bool(numpy_features.get(theirs)), mine
    monkeypatch.setattr(module, "_cpuinfo", lambda: {"features": "fp asimd asimddp i8mm"})
    assert module.instruction_sets() == ("neon", "dotprod", "i8mm")


def test_provider_that_cannot_run_does_not_count() -> None:
    assert module.provider_works("CPUExecutionProvider")
    assert not module.provider_works("NoSuchExecutionProvider")


def fake_versions(monkeypatch: pytest.MonkeyPatch, **versions: str | None) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        key = name.replace("-", "_")
        if key not in versions:
            return real(name)
        value = versions[key]
        if value is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return value

    monkeypatch.setattr(importlib.metadata, "version", version)


def test_both_onnxruntime_wheels_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_versions(monkeypatch, onnxruntime="1.30.0", onnxruntime_gpu="1.31.0")
    monkeypatch.setattr(module, "working_providers", dict)
    found = environment()
    assert any("uninstall both, then install one" in warning for warning in found.warnings)
    assert found.errors == ()


def test_one_onnxruntime_wheel_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_versions(monkeypatch, onnxruntime="1.30.0", onnxruntime_gpu=None)
    monkeypatch.setattr(module, "working_providers", dict)
    assert not any("both" in warning for warning in environment().warnings)


def test_missing_extra_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_versions(monkeypatch, torch=None)
    monkeypatch.setattr(module, "working_providers", dict)
    assert any(warning.startswith("torch is not installed") for warning in environment().warnings)


def test_package_that_does_not_import_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def fail(name: str, *arguments: Any) -> ModuleType:
        if name == "onnxruntime":
            raise ImportError("libfoo.so is missing")
        return real(name, *arguments)

    monkeypatch.setattr(importlib, "import_module", fail)
    found = environment()
    assert found.errors == ("onnxruntime cannot be imported: ImportError: libfoo.so is missing",)
    assert found.providers == {}
    assert describe(found)[-1] == "something is broken"


def test_emptied_onnxruntime_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", ModuleType("onnxruntime"))
    assert "damaged" in environment().errors[0]


def test_record_for_reports() -> None:
    record = environment_record()
    assert set(record) == {"onnxcompress", "python", "os", "cpu", "cores", "instruction_sets", "packages"}
    assert None not in record["packages"].values()
    json.dumps(record)
