"""The outcome of `compress`: what was there, what is there now, and the numbers."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnxcompress.files import write_text

SCHEMA = 1


@dataclass(frozen=True)
class Measured:
    """One model as measured.

    Attributes:
        path: the file.
        bytes: of the file and its external data.
        parameters: elements of its weights.
        macs: multiply-accumulates of one run on the timed feed; None where shapes stay unknown.
        sha256: of the file and its external data.
        latency: threads, rounds, runs, median_ms, least_ms; None where it could not be timed.
        metric: name and value of the score; None where it was not measured.
    """

    path: str
    bytes: int
    parameters: int
    macs: int | None
    sha256: str
    latency: Mapping[str, Any] | None
    metric: Mapping[str, Any] | None


@dataclass(frozen=True)
class NodeReport:
    """What became of a node.

    Attributes:
        decision: int8 or float.
        candidates: kind (float, static int8) and milliseconds, where the node was timed.
        native: name of the result's node that does its work, where that is an operator of onnxcompress; else "".
    """

    name: str
    op: str
    decision: str
    reason: str
    candidates: Sequence[Mapping[str, Any]] = ()
    native: str = ""


@dataclass(frozen=True)
class Result:
    """What `compress` gives back.

    Attributes:
        original, result: as measured, in turn, on this machine.
        speedup: median and least: original's time over the result's.
        within_bound: whether the result's score is within the bound.
        nodes: the nodes that could have been quantized.
        recipe: the steps, as plain data.
        environment: machine and versions.
        notes: what the user should know: candidates that lost, and why.
        interrupted: the search was cut short by Ctrl-C or the budget.
    """

    original: Measured
    result: Measured
    speedup: Mapping[str, float] | None
    within_bound: bool
    max_drop: float
    nodes: Sequence[NodeReport]
    recipe: Mapping[str, Any]
    environment: Mapping[str, Any]
    candidates: Sequence[Mapping[str, Any]] = ()
    notes: Sequence[str] = ()
    interrupted: bool = False
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """The document of report.json."""
        return {
            "schema": SCHEMA,
            "original": _measured(self.original),
            "result": _measured(self.result),
            "speedup": self.speedup,
            "within_bound": self.within_bound,
            "max_drop": self.max_drop,
            "nodes": [
                {
                    "name": node.name,
                    "op": node.op,
                    "decision": node.decision,
                    "reason": node.reason,
                    "candidates": list(node.candidates),
                    "native": node.native,
                }
                for node in self.nodes
            ],
            "candidates": list(self.candidates),
            "notes": list(self.notes),
            "interrupted": self.interrupted,
            "seconds": round(self.seconds, 1),
            "recipe": self.recipe,
            "environment": self.environment,
        }


def write_report(result: Result, path: str | os.PathLike[str]) -> None:
    """Write report.json."""
    write_text(path, json.dumps(result.as_dict(), indent=2, allow_nan=False) + "\n")


def _measured(model: Measured) -> dict[str, Any]:
    return {
        "path": model.path,
        "bytes": model.bytes,
        "parameters": model.parameters,
        "macs": model.macs,
        "sha256": model.sha256,
        "latency": model.latency,
        "metric": model.metric,
    }
