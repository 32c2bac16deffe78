"""The devices that models are compressed for, and whether one is at hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import onnxruntime as ort

from onnxcompress.environment import provider_works
from onnxcompress.runtime.library import cuda_devices

Target = Literal["cpu", "cuda"]
TARGETS: tuple[Target, ...] = get_args(Target)

CPU = ("CPUExecutionProvider",)
CUDA = ("CUDAExecutionProvider", *CPU)


@dataclass(frozen=True)
class Device:
    """Where a compressed model is to run.

    Attributes:
        target: cpu or cuda.
        providers: of ONNX Runtime, that models are run and timed with here.
        absent: why models cannot be run on it here, so that they run on the CPU; "" where they can.
    """

    target: Target = "cpu"
    providers: tuple[str, ...] = CPU
    absent: str = ""


def find_device(target: Target) -> Device:
    """The device of a target.

    Raises:
        ValueError: there is no such target.
    """
    if target not in TARGETS:
        raise ValueError(f"target must be one of {', '.join(TARGETS)}, not {target!r}")
    if target == "cpu":
        return Device()
    absent = why_no_cuda()
    return Device("cuda", CPU if absent else CUDA, absent)


def why_no_cuda() -> str:
    """Why native models do not run on a CUDA device here; "" where they do."""
    devices = cuda_devices()
    if devices is None:
        return "the native library was built without CUDA kernels"
    if not devices:
        return "no CUDA device of compute capability 8.0 or later was found"
    if CUDA[0] not in ort.get_available_providers():
        return "this ONNX Runtime has no CUDA provider"
    if not provider_works(CUDA[0]):
        return "ONNX Runtime's CUDA provider does not work here"
    return ""
