"""Time per node, from ONNX Runtime's own profiler."""

from __future__ import annotations

import json
import re
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxcompress.errors import CompressError
from onnxcompress.model_io import Source
from onnxcompress.runtime.session import Feeds, open_session

# ONNX Runtime renames the nodes it moves to another layout or fuses.
_RENAMED = re.compile(r"(_token_\d+|_nchwc|/MatMulAddFusion|/duplicated)+$")


def profile(
    source: Source,
    feeds: Sequence[Feeds],
    *,
    threads: int = 1,
    runs: int = 8,
    providers: Sequence[str] = ("CPUExecutionProvider",),
) -> dict[str, float]:
    """Run a model under the profiler.

    Args:
        source: a path or a model.
        feeds: run one after another, `runs` times in all.
        threads: within an operator.
        runs: how often to run, after a first run that is left out.
        providers: execution providers, in order of preference.

    Returns:
        Milliseconds a run, median over runs, by ONNX Runtime's node name without the suffixes of its layouts.

    Raises:
        CompressError: the profile was not written whole; ONNX Runtime does not say so itself.
    """
    with tempfile.TemporaryDirectory(prefix="onnxcompress-") as folder:
        prefix = str(Path(folder) / "profile")
        session = open_session(source, threads=threads, providers=providers, profile_prefix=prefix)
        for k in range(runs + 1):
            session.run(None, dict(feeds[k % len(feeds)]))
        events = _read(Path(session.end_profiling()))
    times: dict[str, list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times[event["name"].removesuffix("_kernel_time")].append(event["dur"] / 1000)
    merged: dict[str, float] = defaultdict(float)
    for name, values in times.items():
        merged[_RENAMED.sub("", name)] += statistics.median(values[1:] or values)
    return dict(merged)


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        events: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        folder = tempfile.gettempdir()
        raise CompressError(
            f"{folder}: a profile cannot be written there: is the disk full? TMPDIR names another"
        ) from error
    return events


def time_of(node: ir.Node, times: dict[str, float]) -> float | None:
    """The time of a node of the model: ONNX Runtime names its kernels after nodes or after their outputs."""
    names = [node.name, *(value.name for value in node.outputs)]
    for value in node.outputs:  # a kernel that runs the activation too bears the activation's name
        names += [name for user in value.consumers() for name in (user.name, user.outputs[0].name)]
    for name in names:
        if name and name in times:
            return times[name]
    return None
