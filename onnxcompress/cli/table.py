"""The before/after table."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from onnxcompress.cli.common import Output

if TYPE_CHECKING:
    from onnxcompress.report import Measured, Result


def show_result(result: Result, out: Output) -> None:
    """Print what `compress` measured: a table, the nodes that stayed float, the notes."""
    out.document(result.as_dict())
    before, after = result.original, result.result
    threads = (before.latency or {}).get("threads", 1)
    metric = str((after.metric or {}).get("name", "score"))
    rows = [
        ("", "original", "result", ""),
        ("size", _megabytes(before), _megabytes(after), f"{after.bytes / before.bytes:.0%}"),
        (f"latency, {threads} thread{'s' if threads > 1 else ''}", _ms(before), _ms(after), _speedup(result)),
        (metric, _score(before), _score(after), _drop(result)),
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    for row in rows:
        cells = (row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in (1, 2)), row[3])
        out.say("  ".join(cells).rstrip())
    quantized = sum(node.decision == "int8" for node in result.nodes)
    if result.nodes:
        out.say(f"\n{quantized} of {len(result.nodes)} compute nodes run in int8{_native(result)}{_reasons(result)}")
    for note in result.notes:
        out.note(f"note: {note}")
    if not result.within_bound:
        out.note("warning: the result is below the accuracy bound")
    out.say(f"\nwritten to {after.path} in {result.seconds:.0f} s")


def _native(result: Result) -> str:
    native = [node.native for node in result.nodes if node.decision == "int8"]
    done = [name for name in native if name]
    operators = len(set(done))
    if not operators:
        return ""
    share = "" if len(done) == len(native) else f"{len(done)} of them "
    return f", {share}in {operators} native operator{'s' * (operators > 1)}"


def _reasons(result: Result) -> str:
    counts = Counter(node.reason for node in result.nodes if node.decision != "int8")
    if not counts:
        return ""
    return "; float: " + "; ".join(f"{count} ({reason})" for reason, count in counts.most_common())


def _megabytes(model: Measured) -> str:
    return f"{model.bytes / 1e6:.2f} MB"


def _ms(model: Measured) -> str:
    return "-" if model.latency is None else f"{model.latency['median_ms']:.3g} ms"


def _speedup(result: Result) -> str:
    if result.speedup is None:
        return ""
    speed = float(result.speedup["median"])
    if 0.995 <= speed < 1.005:
        return "as fast"
    return f"{speed:.2f}x faster" if speed > 1 else f"{1 / speed:.2f}x slower"


def _score(model: Measured) -> str:
    return "-" if model.metric is None else f"{model.metric['value']:.4g}"


def _drop(result: Result) -> str:
    before, after = result.original.metric, result.result.metric
    if before is None or after is None or not before["value"]:
        return ""
    change = (after["value"] - before["value"]) / abs(before["value"])
    return f"{change:+.2%} (bound -{result.max_drop:.2%})"
