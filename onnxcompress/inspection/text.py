"""Inspections and differences as text for a terminal, at most about 110 columns wide."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from onnxcompress.errors import ModelError
from onnxcompress.inspection.comparison import Difference, TensorChange
from onnxcompress.inspection.facts import Shape
from onnxcompress.inspection.results import (
    Inspection,
    NodeReport,
    TensorReport,
    ValueReport,
    WeightStatistics,
)
from onnxcompress.ops import DOMAIN

TENSORS_SHOWN = 8
LAYERS_SHOWN = 25
CHANGES_SHOWN = 10
REPLACED_SHOWN = 3
WIDTH = 108


def summary(inspection: Inspection) -> list[str]:
    """The summary: what is in the model and what it costs."""
    i = inspection
    opsets = [f"{domain or 'ai.onnx'} {version}" for domain, version in i.opsets.items()]
    lines = [
        *_wrapped("opsets", opsets),
        _row("format", f"IR {i.ir_version}{f', made by {i.producer}' if i.producer else ''}"),
        *_labelled("inputs", [_value(v) for v in i.inputs]),
        *_labelled("outputs", [_value(v) for v in i.outputs]),
        _row("nodes", f"{sum(i.operators.values()):,}, {len(i.operators)} operators"),
        _row("parameters", f"{i.parameters:,}"),
        *_wrapped("weights", [size(i.weight_bytes), *_each(i.bytes_by_dtype, size)]),
        _row("MACs", _with_unknown(count(i.macs), i.unknown_macs, i.macs)),
        _row("activations", _with_unknown(size(i.activation_bytes), i.unknown_activations, i.activation_bytes)),
    ]
    if i.sparsity is not None:
        lines.append(_row("sparsity", f"{i.sparsity:.1%} of the elements of weight matrices are zero"))
    lines += _coverage(i)
    lines += _functions(i)
    if i.external_files:
        lines += _wrapped("external", _each(i.external_files, size))
    if i.metadata:
        lines += _labelled("metadata", [f"{key} = {_short(value, 70)}" for key, value in i.metadata.items()])
    lines += ["", *_wrapped("operators", _each(i.operators, str), "  ")]
    lines += ["", "largest weights", *_largest(i.tensors)]
    lines += [f"note: {note}" for note in i.notes]
    return lines


def node_table(inspection: Inspection) -> list[str]:
    """A line for every node."""
    rows = [["node", "op", "output", "MACs", "params", "runs"]]
    for node in inspection.nodes:
        output = next((_shape(v.shape) for v in node.outputs if v.name), "-")
        macs = "?" if node.macs is None else count(node.macs) if node.macs else ""
        name = "/".join([*(_short(part, 20) for part in node.scope), node.name])
        parameters = count(node.parameters) if node.parameters else ""
        rows.append([_short(name, 44), _short(node.op, 30), output, macs, parameters, _runs(node)])
    return [line.rstrip() for line in _table(rows, right={3, 4})]


def node_detail(inspection: Inspection, node: NodeReport, statistics: Sequence[WeightStatistics] = ()) -> list[str]:
    """One node in full, with statistics of its weights."""
    lines = [_row("node", node.name), _row("op", node.op)]
    if node.replaces:
        lines += _wrapped("replaces", node.replaces)
    if node.scope:
        lines.append(_row("inside", " / ".join(node.scope)))
    lines += _labelled("inputs", ["(absent)" if v is None else _value(v) for v in node.inputs])
    lines += _labelled("outputs", [_value(v) for v in node.outputs if v.name])
    lines += _labelled("attributes", [f"{name} = {value}" for name, value in node.attributes.items()])
    lines.append(_row("MACs", "unknown" if node.macs is None else f"{node.macs:,}"))
    lines.append(_row("parameters", f"{node.parameters:,}"))
    activations = node.activation_bytes
    lines.append(_row("activations", "unknown" if activations is None else size(activations)))
    if node.executions != 1:
        lines.append(_row("executions", f"{node.executions:,} in one run of the model"))
    if not node.counted:
        lines.append(_row("totals", "left out: its branch is not taken, or is the cheaper one"))
    if node.quantization is not None:
        q = node.quantization
        lines.append(_row("runs", q.state + (f": {q.reason}" if q.reason else "")))
        lines.append(_row("types", f"weight {q.weights or 'float'}, activations {q.activations or 'float'}"))
    weights = [tensor for tensor in inspection.tensors if tensor.name in node.weights]
    if weights:
        lines += ["", "weights", *_largest(weights)]
    if statistics:
        rows = [["  ", "min", "max", "mean", "std", ""]]
        for s in statistics:
            numbers = [f"{number:.4g}" for number in (s.minimum, s.maximum, s.mean, s.std)]
            rows.append([f"  {_short(s.name, 50)}", *numbers, f"{s.nonfinite} non-finite" if s.nonfinite else ""])
        lines += ["", *(line.rstrip() for line in _table(rows, right={1, 2, 3, 4}))]
    return lines


def find_nodes(inspection: Inspection, name: str) -> list[NodeReport]:
    """Nodes of that name, that compute a value of that name, or that replaced a node of that name.

    Raises:
        ModelError: there is none.
    """
    found = [
        n for n in inspection.nodes if n.name == name or name in n.replaces or any(v.name == name for v in n.outputs)
    ]
    if not found:
        names = dict.fromkeys(name for n in inspection.nodes for name in (n.name, *n.replaces))
        close = difflib.get_close_matches(name, list(names), n=3)
        hint = f"did you mean {', '.join(close)}?" if close else "--nodes lists them"
        raise ModelError(f"no node is named {name!r}, and none computes a value of that name; {hint}")
    return found


def difference_text(difference: Difference, names: tuple[str, str] = ("A", "B")) -> list[str]:
    """A difference for people."""
    d = difference
    rows = [
        ["", *names],
        ["nodes", f"{d.a.nodes:,}", f"{d.b.nodes:,}"],
        ["parameters", f"{d.a.parameters:,}", f"{d.b.parameters:,}"],
        ["weights", size(d.a.weight_bytes), size(d.b.weight_bytes)],
    ]
    if d.a.file_bytes is not None and d.b.file_bytes is not None:
        rows.append(["file", size(d.a.file_bytes), size(d.b.file_bytes)])
    rows += [[f"opset {domain or 'ai.onnx'}", _absent(x), _absent(y)] for domain, (x, y) in d.opsets.items()]
    rows += [[op, f"{x:,}", f"{y:,}"] for op, (x, y) in d.operators.items()]
    lines = [line.rstrip() for line in _table([[r[0], *(_short(c, 40) for c in r[1:])] for r in rows], right={1, 2})]
    for title, changes in (
        ("inputs and outputs changed", d.interface),
        ("tensors removed", d.removed),
        ("tensors added", d.added),
        ("tensors changed", d.changed),
    ):
        if changes:
            lines += ["", f"{title}: {len(changes):,}", *(f"  {_change(c)}" for c in changes[:CHANGES_SHOWN])]
            lines += [f"  ... {len(changes) - CHANGES_SHOWN:,} more"] if len(changes) > CHANGES_SHOWN else []
    if d.same:
        lines += ["", "the same operators, weights, inputs and outputs"]
    if d.layers is not None:
        lines += ["", *_layers(d)]
    return lines + [f"note: {note}" for note in d.notes]


def size(number: int) -> str:
    """Bytes with a decimal unit: 1.50 MB is 1,500,000 bytes."""
    return f"{number:,} B" if number < 1000 else f"{_scaled(number)}B"


def count(number: int) -> str:
    """A number with a decimal unit: 1.50 M."""
    return f"{number:,}" if number < 1000 else _scaled(number)


def _scaled(number: float) -> str:
    unit = 0
    while number >= 999.5 and unit < 5:
        number /= 1000
        unit += 1
    digits = 2 if number < 9.995 else 1 if number < 99.95 else 0
    return f"{number:.{digits}f} {' kMGTP'[unit].strip()}"


def _coverage(inspection: Inspection) -> list[str]:
    c = inspection.coverage
    share = "" if c.macs_share is None else f" ({c.macs_share:.0%} of their MACs)"
    text = f"{c.quantized} of {c.compute_nodes} compute nodes{share}"
    if c.weight_only:
        text += f", weights only in {c.weight_only}"
    return [_row("quantized", text), *(f"{'':13}{n:>5} not: {reason}" for reason, n in c.reasons.items())]


def _functions(inspection: Inspection) -> list[str]:
    """Function bodies of our own operators are many, and all alike to a reader: their number."""
    own = f"{DOMAIN}::"
    others = {name: nodes for name, nodes in inspection.functions.items() if not name.startswith(own)}
    lines = []
    native = [node for node in inspection.nodes if node.op.startswith(own)]
    if native:
        replaced = len({name for node in native for name in node.replaces})
        bodies = len(inspection.functions) - len(others)
        text = f"{_number(len(native), 'operator')} of {DOMAIN}"
        text += f" for {_number(replaced, 'node')}" if replaced else ""
        text += f", {_number(bodies, 'function body', 'function bodies')}" if bodies else ""
        lines.append(_row("native", text))
    if others:
        lines += _wrapped("functions", _each(others, lambda nodes: f"{nodes} nodes"))
    return lines


def _number(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def _largest(tensors: Iterable[TensorReport]) -> list[str]:
    rows = []
    found = sorted((t for t in tensors if t.parameter), key=lambda t: -t.bytes)
    for tensor in found[:TENSORS_SHOWN]:
        zeros = "" if tensor.sparsity is None else f"{tensor.sparsity:.1%} zero"
        if tensor.groups_2_4 is not None:
            zeros += f", 2:4 in {tensor.groups_2_4:.0%}, 4x4 blocks {tensor.blocks_4x4 or 0:.0%}"
        rows.append([f"  {_short(tensor.name, 50)}", tensor.dtype, _shape(tensor.shape), size(tensor.bytes), zeros])
    return [line.rstrip() for line in _table(rows, right={3})] if rows else ["  none"]


def _layers(difference: Difference) -> list[str]:
    layers = difference.layers or ()
    rows = [["value", "op", "SNR dB", "cosine", "max error", "max |a|", ""]]
    for e in layers[:LAYERS_SHOWN]:
        bad = f"non-finite: {e.nonfinite_a:,} in A, {e.nonfinite_b:,} in B" if e.nonfinite_a or e.nonfinite_b else ""
        snr = "equal" if e.snr_db is None else f"{e.snr_db:.1f}"
        cosine = "-" if e.cosine is None else f"{e.cosine:.6f}"
        rows.append([_short(e.name, 40), e.op, snr, cosine, f"{e.max_abs_error:.3g}", f"{e.max_abs:.3g}", bad])
    title = f"error of the {len(layers)} float values both have, over {difference.samples} feeds, worst first"
    more = [f"... {len(layers) - LAYERS_SHOWN:,} more (--json lists all)"] if len(layers) > LAYERS_SHOWN else []
    return [title, *(line.rstrip() for line in _table(rows, right={2, 3, 4, 5})), *more]


def _runs(node: NodeReport) -> str:
    q = node.quantization
    text = "" if q is None else q.state if not q.reason else f"{q.state}: {q.reason}"
    if node.replaces:
        text = ", ".join(([text] if text else []) + [f"for {_short_list(node.replaces)}"])
    return text if node.counted else f"(not counted) {text}".strip()


def _short_list(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(_short(name, 40) for name in names[:REPLACED_SHOWN])
    return shown if len(names) <= REPLACED_SHOWN else f"{shown} and {len(names) - REPLACED_SHOWN} more"


def _change(change: TensorChange) -> str:
    a, b = (
        None if dtype is None else f"{dtype}[{_shape(shape)}]"
        for dtype, shape in ((change.dtype_a, change.shape_a), (change.dtype_b, change.shape_b))
    )
    text = f"{a} -> {b}" if a and b and a != b else f"{a or b}" + (" (values)" if a == b else "")
    if a is None or b is None:
        text = f"{a or b}"
    return f"{_short(change.name, 60)}  {text}"


def _value(value: ValueReport) -> str:
    return f"{value.name}  {value.dtype or '?'}[{_shape(value.shape)}]" + ("  constant" if value.constant else "")


def _shape(shape: Shape | None) -> str:
    if shape is None:
        return "?"
    dims = ["?" if d is None else _short(d, 24) if isinstance(d, str) else str(d) for d in shape]
    return ",".join(dims) or "scalar"


def _with_unknown(text: str, unknown: int, known: int) -> str:
    if not unknown:
        return text
    return f"unknown for {unknown} nodes" + (f", {text} without them" if known else "")


def _absent(version: int | None) -> str:
    return "-" if version is None else str(version)


def _each(numbers: Mapping[str, int], form: Callable[[int], str]) -> list[str]:
    return [f"{name} {form(number)}" for name, number in numbers.items()]


def _row(label: str, text: str) -> str:
    return f"{label:<13}{text}"


def _labelled(label: str, texts: Sequence[str]) -> list[str]:
    return [_row(label if index == 0 else "", text) for index, text in enumerate(texts)]


def _wrapped(label: str, items: Iterable[str], separator: str = ", ") -> list[str]:
    lines = [""]
    for item in items:
        if lines[-1] and len(lines[-1]) + len(separator) + len(item) > WIDTH - 13:
            lines[-1] += separator.rstrip()
            lines.append(item)
        else:
            lines[-1] += separator + item if lines[-1] else item
    return _labelled(label, lines)


def _short(text: str, width: int) -> str:
    text = text.replace("\n", " ")
    return text if len(text) <= width else f"{text[: width // 2 - 1]}..{text[-(width - width // 2 - 1) :]}"


def _table(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(w) if k in right else cell.ljust(w) for k, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
