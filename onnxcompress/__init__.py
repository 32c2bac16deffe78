"""onnxcompress: make ONNX models smaller and faster within an accuracy bound, proved by measurement.

The package root imports neither torch nor onnxruntime: every name below is loaded when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "export": "exporter",
    "inspect": "inspection",
    "diff": "inspection",
    "optimize": "optimizer",
    "extract": "extractor",
    "calibrate": "calibration",
    "quantize": "quantizer",
    "distill": "distiller",
    "prune": "pruning",
    "compress": "pipeline",
    "bench": "runtime",
    "verify": "verification",
    "sign": "signing",
    "load": "runtime",
    "library_path": "runtime",
    "CompressError": "errors",
}

__all__ = ["__version__", *_HOMES]

if TYPE_CHECKING:
    from onnxcompress.calibration import calibrate as calibrate
    from onnxcompress.distiller import distill as distill
    from onnxcompress.errors import CompressError as CompressError
    from onnxcompress.exporter import export as export
    from onnxcompress.extractor import extract as extract
    from onnxcompress.inspection import diff as diff
    from onnxcompress.inspection import inspect as inspect
    from onnxcompress.optimizer import optimize as optimize
    from onnxcompress.pipeline import compress as compress
    from onnxcompress.pruning.pruner import prune as prune
    from onnxcompress.quantizer import quantize as quantize
    from onnxcompress.runtime import bench as bench
    from onnxcompress.runtime import library_path as library_path
    from onnxcompress.runtime import load as load
    from onnxcompress.signing import sign as sign
    from onnxcompress.verification import verify as verify


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'onnxcompress' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"onnxcompress.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
