"""Native operators that lose to something else on this machine, by ONNX Runtime's profiler."""

from __future__ import annotations

import math
from dataclasses import replace

from onnxcompress.passes.lower import native_nodes, replaced_nodes
from onnxcompress.runtime.profile import time_of
from onnxcompress.runtime.timings import node_times
from onnxcompress.workbench import Candidate, Workbench

SLOWER = 1.25
"""A native operator must take this many times as long as what it replaces to be called slower: single nodes' times
are noisy, and standard nodes that ONNX Runtime has fused are missing among them."""

PROFILE_RUNS = 8

SPARSE = ("QSparseLinear", "QSparseLinearLayerNorm", "QSparseConv")
"""Native operators that skip zero blocks."""


def slower_than_standard(bench: Workbench, candidate: Candidate, told: dict[str, dict[str, float]]) -> list[str]:
    """Nodes whose native operator takes longer than the standard ones it replaces.

    Args:
        told: takes the native operators' times, by the names of the nodes that they replace.
    """
    standard = bench.make(bench.with_ranges(replace(candidate.recipe, native=False)))
    ours, theirs = _times(bench, candidate, standard)
    names = {node.name or "": node for node in standard.model.graph}
    slow: list[str] = []
    for node in native_nodes(candidate.model):
        replaced = [names[name] for name in replaced_nodes(node) if name in names]
        before = [time for time in (time_of(other, theirs) for other in replaced) if time is not None]
        after = time_of(node, ours)
        if not before or after is None:
            continue
        for name in replaced_nodes(node):
            told.setdefault("native int8", {})[name] = after
        if after > SLOWER * sum(before):
            slow += replaced_nodes(node)
    return slow


def slower_than_dense(bench: Workbench, candidate: Candidate) -> list[str]:
    """Native operators that take longer skipping their zero blocks than multiplying all."""
    sparse = [node.name or "" for node in native_nodes(candidate.model) if node.op_type in SPARSE]
    if not sparse:
        return []
    dense = bench.make(replace(candidate.recipe, dense=dict.fromkeys(sparse, "slow")))
    skipping, whole = _times(bench, candidate, dense)
    return [name for name in sparse if name in skipping and skipping[name] > whole.get(name, math.inf)]


def _times(bench: Workbench, *candidates: Candidate) -> list[dict[str, float]]:
    """Milliseconds by node, of each."""
    with bench.step("profile"):
        return [
            node_times(c.model, bench.feeds, threads=bench.threads, runs=PROFILE_RUNS, providers=bench.providers)
            for c in candidates
        ]
