"""Times per node that are kept between runs, by processor, library and runtime."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir
import onnxruntime as ort

from onnxcompress import __version__
from onnxcompress.environment import cpu_name
from onnxcompress.errors import ModelError
from onnxcompress.files import write_text
from onnxcompress.runtime import library
from onnxcompress.runtime.profile import profile
from onnxcompress.runtime.session import Feeds


def cache_folder() -> Path:
    """Where times are kept: ONNXCOMPRESS_CACHE, or the user's own cache folder."""
    if named := os.environ.get("ONNXCOMPRESS_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "onnxcompress" / "times"


def node_times(
    model: ir.Model,
    feeds: Sequence[Feeds],
    *,
    threads: int = 1,
    runs: int = 8,
    providers: Sequence[str] = ("CPUExecutionProvider",),
) -> dict[str, float]:
    """As `profile`, but a model of the same structure is measured once for a processor, a library and a runtime.

    A cache that cannot be read or written is no error: the model is measured.

    Returns:
        milliseconds a run by node name.
    """
    path = cache_folder() / f"{_key(model, feeds, threads, providers)}.json"
    try:
        found = json.loads(path.read_text("utf-8"))
        return {str(name): float(ms) for name, ms in found.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        pass
    times = profile(model, feeds, threads=threads, runs=runs, providers=providers)
    with contextlib.suppress(OSError, ModelError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(times))
    return times


def _key(model: ir.Model, feeds: Sequence[Feeds], threads: int, providers: Sequence[str]) -> str:
    """A digest of what the times depend on: the structure of the graph, without the values of its weights."""
    parts: list[object] = [
        cpu_name(), library.instruction_set(), _library_digest(library.library_path()), ort.__version__, __version__,
        threads, list(providers),
        [{name: (list(x.shape), str(x.dtype)) for name, x in feed.items()} for feed in feeds],
    ]  # fmt: skip
    for node in model.graph.all_nodes():
        inputs = [None if v is None else (v.name, _constant(v)) for v in node.inputs]
        attributes = sorted((name, str(a.value)[:200]) for name, a in node.attributes.items())
        parts.append([node.domain, node.op_type, node.name, inputs, [v.name for v in node.outputs], attributes])
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()


@functools.cache
def _library_digest(path: Path | None) -> str:
    return "" if path is None else hashlib.sha256(path.read_bytes()).hexdigest()


def _constant(value: ir.Value) -> object:
    tensor = value.const_value
    return None if tensor is None else (str(tensor.dtype), str(tensor.shape))
