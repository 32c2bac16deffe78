"""What `bench` measured, for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxcompress.runtime.benching import BenchResult
    from onnxcompress.runtime.operators import OperatorTimes

HEADER = ("model", "median ms", "least ms", "speedup", "memory MB", "file MB")
OPERATOR_HEADER = (
    "operator", "shape", "zero", "float ms", "int8 ms", "native ms", "x float", "x int8", "GOP/s", "of peak",
)  # fmt: skip


def operators_table(results: Sequence[OperatorTimes]) -> str:
    """An aligned table, one line a workload."""
    rows: list[tuple[str, ...]] = [OPERATOR_HEADER]
    rows += [
        (
            r.op, r.label, f"{r.sparsity:.0%}" if r.sparsity else "-",
            *map(_milliseconds, (r.float_ms, r.standard_ms, r.native_ms)),
            f"{r.speedup_over_float:.2f}", f"{r.speedup_over_standard:.2f}", f"{r.gops:.0f}", f"{r.share_of_peak:.0%}",
        )
        for r in results
    ]  # fmt: skip
    lines = _aligned(rows, left=2)
    lines.append("least times; int8: the operator's function body in standard operators; zero: share of weight blocks")
    return "\n".join(lines)


def _aligned(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """Rows as lines with a rule under the first; the first `left` columns are aligned to the left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return lines


def bench_table(results: Sequence[BenchResult]) -> str:
    """An aligned table, one line a model, and a line that says how it was measured."""
    rows = [HEADER]
    for name, result in zip(_names([result.path for result in results]), results, strict=True):
        latency = result.latency
        memory = "-" if result.memory is None else f"{result.memory / 1e6:.1f}"
        rows.append((
            name, _milliseconds(latency.median_ms), _milliseconds(latency.least_ms),
            f"{latency.speedup_median:.2f}x", memory, _megabytes(result.bytes),
        ))  # fmt: skip
    lines = _aligned(rows, left=1)
    first = results[0].latency
    threads = "ONNX Runtime's choice of threads" if first.threads == 0 else _count(first.threads, "thread")
    lines.append(f"{threads}, {_count(first.rounds, 'round')} in turn of {_count(first.runs, 'run')}")
    lines.append("speedup over the first model, median over rounds; memory at its peak, over a process without model")
    return "\n".join(lines)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.2f}" if count >= 1e5 else f"{count / 1e6:.4f}"


def _milliseconds(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.2f}"


def _names(paths: Sequence[str]) -> list[str]:
    """File names, or whole paths where two files have one name."""
    short = [Path(path).name for path in paths]
    return list(paths) if len(set(short)) < len(set(paths)) else short
