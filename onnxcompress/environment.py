"""This machine and this installation: for `doctor`, and for the `environment` of report.json."""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onnxcompress import __version__

PACKAGES = (
    "onnx", "onnx-ir", "onnxscript", "onnxruntime", "onnxruntime-gpu", "numpy", "ml_dtypes", "click", "rich",
    "torch", "pillow",
)  # fmt: skip
REQUIRED = ("onnx", "onnx_ir", "onnxscript", "onnxruntime", "numpy", "ml_dtypes", "click", "rich")
OPTIONAL = {"torch": "export and distillation", "pillow": "folders of images as data"}

INSTRUCTION_SETS: Mapping[str, tuple[str, ...]] = {
    "avx2": ("avx2",),
    "fma": ("fma",),
    "f16c": ("f16c",),
    "avx_vnni": ("avx_vnni",),
    "avx512f": ("avx512f",),
    "avx512bw": ("avx512bw",),
    "avx512_vnni": ("avx512_vnni", "avx512vnni"),
    "avx512_bf16": ("avx512_bf16", "avx512bf16"),
    "avx512_fp16": ("avx512_fp16", "avx512fp16"),
    "amx_tile": ("amx_tile", "amx-tile"),
    "amx_int8": ("amx_int8", "amx-int8"),
    "amx_bf16": ("amx_bf16", "amx-bf16"),
    "neon": ("asimd", "neon", "advsimd"),
    "dotprod": ("asimddp", "feat_dotprod"),
    "i8mm": ("i8mm", "feat_i8mm"),
    "sve": ("sve",),
}
"""Name shown here: names that the operating systems use."""

WINDOWS_FEATURES = {"neon": 19, "avx2": 40, "avx512f": 41, "dotprod": 43}
"""Numbers of IsProcessorFeaturePresent (winnt.h)."""


@dataclass(frozen=True)
class Environment:
    """What measurements depend on.

    Attributes:
        cores: logical cores this process may use.
        packages: version by distribution; None where it is not installed.
        providers: by execution provider that ONNX Runtime offers, whether a session really runs on it.
        library: state of the native library.
        errors: what is broken; `doctor` exits with 1 if there is any.
        warnings: what deserves attention.
    """

    onnxcompress: str
    python: str
    os: str
    machine: str
    cpu: str
    cores: int
    instruction_sets: tuple[str, ...]
    packages: Mapping[str, str | None]
    providers: Mapping[str, bool]
    library: str
    errors: tuple[str, ...]
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def environment() -> Environment:
    """Look at the machine and the installation; each provider that is offered is tried."""
    packages = {name: _version(name) for name in PACKAGES}
    errors = [problem for name in REQUIRED if (problem := _import_problem(name))]
    warnings = []
    if packages["onnxruntime"] is not None and packages["onnxruntime-gpu"] is not None:
        warnings.append(
            "both onnxruntime and onnxruntime-gpu are installed: they overwrite each other's files; "
            "uninstall both, then install one"
        )
    warnings += [f"{name} is not installed: no {use}" for name, use in OPTIONAL.items() if packages[name] is None]
    return Environment(
        __version__,
        platform.python_version(),
        platform.platform(),
        platform.machine(),
        cpu_name(),
        available_cores(),
        instruction_sets(),
        packages,
        {} if any(error.startswith("onnxruntime ") for error in errors) else working_providers(),
        library_state(),
        tuple(errors),
        tuple(warnings),
    )


def library_state() -> str:
    """Whether the library of native kernels is there, loads, and for which instruction set it runs."""
    try:
        from onnxcompress.runtime import library
    except ImportError:
        return "native library: not tried, onnxruntime is missing"
    path = library.library_path()
    if path is None:
        return "no native library for this platform: function bodies run in its place"
    try:
        cuda = _cuda_state(library.cuda_devices())
        return f"native library {path.name}, kernels for {library.instruction_set()}, {cuda}"
    except OSError as error:
        return f"native library {path} does not load: {error}"


def _cuda_state(devices: int | None) -> str:
    if devices is None:
        return "none for CUDA"
    return f"and for CUDA ({devices} device{'s' * (devices != 1)} here)"


def describe(found: Environment) -> list[str]:
    """The environment as lines for people."""
    providers = [f"{name} {'works' if works else 'does not work here'}" for name, works in found.providers.items()]
    rows = [
        ("onnxcompress", f"{found.onnxcompress} ({found.library})"),
        ("python", f"{found.python} on {found.os}"),
        ("processor", f"{found.cpu}, {found.cores} cores"),
        ("instructions", ", ".join(found.instruction_sets) or "none that matter here"),
        ("providers", ", ".join(providers) or "none"),
        *((name, version or "not installed") for name, version in found.packages.items()),
    ]
    lines = [f"{label:<16}{text}" for label, text in rows]
    lines += [f"warning: {text}" for text in found.warnings]
    lines += [f"error: {text}" for text in found.errors]
    return [*lines, "something is broken" if found.errors else "all is well"]


def environment_record() -> dict[str, Any]:
    """The `environment` of report.json: versions, CPU, instruction sets, cores, system; nothing is tried."""
    return {
        "onnxcompress": __version__,
        "python": platform.python_version(),
        "os": platform.platform(),
        "cpu": cpu_name(),
        "cores": available_cores(),
        "instruction_sets": list(instruction_sets()),
        "packages": {name: version for name in PACKAGES if (version := _version(name)) is not None},
    }


def available_cores() -> int:
    """Logical cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_name() -> str:
    """The processor's own name, or the architecture where it does not tell."""
    if sys.platform == "linux":
        fields = _cpuinfo()
        return fields.get("model name") or fields.get("hardware") or platform.machine()
    if sys.platform == "darwin":
        return _sysctl("machdep.cpu.brand_string") or platform.machine()
    return platform.processor() or platform.machine()


def instruction_sets() -> tuple[str, ...]:
    """Names of the instruction sets that matter here and that the processor and system have."""
    if sys.platform == "win32":
        present: Callable[[int], int] = ctypes.windll.kernel32.IsProcessorFeaturePresent
        return tuple(name for name, number in WINDOWS_FEATURES.items() if present(number))
    if sys.platform == "darwin":
        flags = _mac_flags()
    else:
        fields = _cpuinfo()
        flags = set(f"{fields.get('flags', '')} {fields.get('features', '')}".lower().split())
    return tuple(name for name, aliases in INSTRUCTION_SETS.items() if flags.intersection(aliases))


def working_providers() -> dict[str, bool]:
    """By offered execution provider, whether a session with one Add really runs on it.

    Each is tried in a process of its own: one that is half installed writes to the terminal, or crashes.
    """
    import onnxruntime as ort

    return {name: provider_works(name) for name in ort.get_available_providers()}


_PROBE = """
import sys
import numpy as np, onnx.parser, onnxruntime as ort
provider = sys.argv[1]
model = onnx.parser.parse_model(
    '<ir_version: 10, opset_import: ["": 21]> g (float[1] x) => (float[1] y) { y = Add(x, x) }'
)
options = ort.SessionOptions()
if provider != "CPUExecutionProvider":  # else nodes fall back to the CPU in silence
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
session = ort.InferenceSession(model.SerializeToString(), options, providers=[provider])
(value,) = session.run(None, {"x": np.ones(1, np.float32)})
sys.exit(0 if provider in session.get_providers() and value[0] == 2.0 else 1)
"""


@functools.cache
def provider_works(provider: str) -> bool:
    """Whether a session of ONNX Runtime really runs on this execution provider; tried in a process of its own."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _PROBE, provider]
    try:
        return subprocess.run(command, capture_output=True, timeout=60, env=environ).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _import_problem(name: str) -> str:
    try:
        module = importlib.import_module(name)
    except Exception as error:  # a broken binary package raises anything
        return f"{name} cannot be imported: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    # Uninstalling one of the two onnxruntime wheels leaves an empty folder that still imports.
    if name == "onnxruntime" and not hasattr(module, "InferenceSession"):
        return "onnxruntime is damaged (no InferenceSession): uninstall it and install it again"
    return ""


@functools.cache
def _cpuinfo() -> dict[str, str]:
    """The first processor's fields of /proc/cpuinfo, by lower-case name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return {}
    fields: dict[str, str] = {}
    for line in lines:
        name, separator, value = line.partition(":")
        if separator:
            fields.setdefault(name.strip().lower(), value.strip())
    return fields


def _mac_flags() -> set[str]:
    text = _sysctl("-a")
    arm = {
        name.removeprefix("hw.optional.arm.").removeprefix("hw.optional.").lower()
        for name, _, value in (line.partition(":") for line in text.splitlines())
        if name.startswith("hw.optional.") and value.strip() == "1"
    }
    intel = {
        word.lower()
        for line in text.splitlines()
        if line.startswith("machdep.cpu.") and "features:" in line
        for word in line.partition(":")[2].split()
    }
    return arm | intel


def _sysctl(name: str) -> str:
    try:
        arguments = ["sysctl", name] if name == "-a" else ["sysctl", "-n", name]
        return subprocess.run(arguments, capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""
