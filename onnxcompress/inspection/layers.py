"""The error of every float value that two models share, over data, held as running sums."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from onnxcompress.data import DataSet, Feed
from onnxcompress.errors import DataError
from onnxcompress.inspection.facts import Array
from onnxcompress.inspection.walk import Walk, walk_model
from onnxcompress.ops import DOMAIN
from onnxcompress.progress import Progress
from onnxcompress.runtime.session import open_session, run

GROUP_BYTES = 128 << 20
GROUP_LIMIT = 200
SNR_FLOOR = -200.0
PIECE = 1 << 13

FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16}


@dataclass(frozen=True)
class LayerError:
    """How far a value of B is from the same value of A, over all elements of all feeds.

    Non-finite elements of either are counted and left out of the figures.

    Attributes:
        name: in A.
        other: in B.
        op: operator that computes it in A.
        snr_db: 10 log10(sum a^2 / sum (a - b)^2), at least -200; None where the two are equal.
        cosine: cosine similarity; None where one of them is all zero.
        max_abs_error: largest |a - b|.
        max_abs: largest |a|.
        nonfinite_a, nonfinite_b: NaN and infinite elements.
        elements: compared in all.
    """

    name: str
    other: str
    op: str
    snr_db: float | None
    cosine: float | None
    max_abs_error: float
    max_abs: float
    nonfinite_a: int
    nonfinite_b: int
    elements: int


@dataclass(frozen=True)
class Pair:
    """Names of one value in A and in B."""

    a: str
    b: str
    op: str
    nbytes: int


class Sums:
    """Running sums of one pair, in float64."""

    def __init__(self) -> None:
        self.aa = self.bb = self.ab = self.noise = 0.0
        self.max_abs = self.max_error = 0.0
        self.elements = self.nonfinite_a = self.nonfinite_b = 0
        self.mismatch: str | None = None

    def add(self, a: Array, b: Array) -> None:
        """Add one feed's values."""
        if a.shape != b.shape:
            shapes = ["x".join(map(str, array.shape)) for array in (a, b)]
            self.mismatch = self.mismatch or f"{shapes[0]} in A, {shapes[1]} in B"
            return
        x, y = a.reshape(-1), b.reshape(-1)
        # Pieces stay in the cache, and below the size where BLAS wakes threads (ONNX Runtime's still spin).
        for start in range(0, x.size, PIECE):
            self._add_piece(*(part[start : start + PIECE].astype(np.float64) for part in (x, y)))

    def _add_piece(self, x: Array, y: Array) -> None:
        error = x - y
        noise = float(error @ error)
        if not np.isfinite(noise):
            finite_x, finite_y = np.isfinite(x), np.isfinite(y)
            self.nonfinite_a += int(x.size - finite_x.sum())
            self.nonfinite_b += int(y.size - finite_y.sum())
            finite = finite_x & finite_y
            x, y, error = x[finite], y[finite], error[finite]
            noise = float(error @ error)
        if not x.size:
            return
        self.elements += x.size
        self.aa += float(x @ x)
        self.bb += float(y @ y)
        self.ab += float(x @ y)
        self.noise += noise
        self.max_abs = max(self.max_abs, float(np.abs(x).max()))
        self.max_error = max(self.max_error, float(np.abs(error).max()))

    def result(self, pair: Pair) -> LayerError:
        """The figures."""
        snr = None
        if self.noise > 0:
            snr = max(10 * math.log10(self.aa / self.noise), SNR_FLOOR) if self.aa > 0 else SNR_FLOOR
        norm = math.sqrt(self.aa) * math.sqrt(self.bb)
        cosine = max(-1.0, min(1.0, self.ab / norm)) if norm > 0 else None
        counts = self.nonfinite_a, self.nonfinite_b, self.elements
        return LayerError(pair.a, pair.b, pair.op, snr, cosine, self.max_error, self.max_abs, *counts)


def compare_layers(
    a: ir.Model, b: ir.Model, data: DataSet, progress: Progress
) -> tuple[tuple[LayerError, ...], int, list[str]]:
    """Run both models over the data and compare the float values they share.

    Returns:
        the errors, worst first; the number of feeds; what could not be compared.

    Raises:
        DataError: no feeds, or one that a model cannot run.
        ModelError: ONNX Runtime refuses a model.
    """
    first = next(iter(data), None)
    if first is None:
        raise DataError(f"{data.name}: no feeds; a comparison needs at least one")
    pairs = shared_values(a, b, {name: array.shape for name, array in first.items()})
    told = _inside_operators(b)
    if not pairs:
        return (), 0, ["the models share no float value by name", *told]
    sums = {pair.a: Sums() for pair in pairs}
    groups = list(_groups(pairs, {value.name or "" for value in a.graph.outputs}))
    samples = 0
    for index, group in enumerate(groups):
        stage = f"comparing layers ({index + 1}/{len(groups)})"
        samples = _run_group(a, b, group, data, sums, stage, progress)
    notes = [f"{pair.a}: {s.mismatch}" for pair in pairs if (s := sums[pair.a]).mismatch is not None]
    errors = [sums[pair.a].result(pair) for pair in pairs if sums[pair.a].mismatch is None]
    return tuple(sorted(errors, key=_badness)), samples, notes + told


def shared_values(a: ir.Model, b: ir.Model, shapes: Mapping[str, Sequence[int]]) -> list[Pair]:
    """The float values of A's main graph that B has too.

    B's value of the same name, if it is float; else the DequantizeLinear of that value or of its QuantizeLinear.
    Graph outputs of other names are paired by position.
    """
    of_a, of_b = _typed(a, shapes), _typed(b, shapes)
    dequantized = _dequantized(b)
    renamed = {}
    if len(a.graph.outputs) == len(b.graph.outputs):
        names = [(x.name or "", y.name or "") for x, y in zip(a.graph.outputs, b.graph.outputs, strict=True)]
        renamed = {x: y for x, y in names if x not in of_b.values}
    pairs = []
    for node in a.graph:
        if node.op_type == "Constant":
            continue
        for value in node.outputs:
            name = value.name or ""
            facts = of_a.values.get(name)
            if facts is None or facts.dtype not in FLOATS or facts.constant:
                continue
            other = renamed.get(name, name)
            match = of_b.values.get(other)
            if match is not None and match.dtype not in FLOATS:
                other = dequantized.get(name, "")
                match = of_b.values.get(other)
            if match is not None and not match.constant:
                pairs.append(Pair(name, other, node.op_type, facts.nbytes or 0))
    return pairs


def _inside_operators(model: ir.Model) -> list[str]:
    """A note where values of the original are inside operators of this project, or bytes between them."""
    nodes = sum(node.domain == DOMAIN for node in model.graph)
    return [f"B has {nodes} nodes of {DOMAIN}: of what they compute only floats are compared"] if nodes else []


def _typed(model: ir.Model, shapes: Mapping[str, Sequence[int]]) -> Walk:
    named = {value.name for value in model.graph.inputs}
    walk = walk_model(model, {name: shape for name, shape in shapes.items() if name in named})
    top = {value.name for node in model.graph for value in node.outputs}
    walk.values = {name: facts for name, facts in walk.values.items() if name in top}
    return walk


def _dequantized(model: ir.Model) -> dict[str, str]:
    """By name of a value: the output of its DequantizeLinear, or of that of its QuantizeLinear."""
    found: dict[str, str] = {}
    for node in model.graph:
        source = node.inputs[0] if node.op_type == "DequantizeLinear" else None
        if source is None or not source.name:
            continue
        found.setdefault(source.name, node.outputs[0].name or "")
        quantizer = source.producer()
        if quantizer is not None and quantizer.op_type == "QuantizeLinear" and quantizer.inputs[0] is not None:
            found.setdefault(quantizer.inputs[0].name or "", node.outputs[0].name or "")
    return found


def _groups(pairs: Sequence[Pair], outputs: set[str]) -> Iterator[list[Pair]]:
    """The graph outputs alone, run as the model really runs; then the rest, up to a number of bytes."""
    final = [pair for pair in pairs if pair.a in outputs]
    if final:
        yield final
    group: list[Pair] = []
    size = 0
    for pair in pairs:
        if pair.a in outputs:
            continue
        if group and (size + pair.nbytes > GROUP_BYTES or len(group) == GROUP_LIMIT):
            yield group
            group, size = [], 0
        group.append(pair)
        size += pair.nbytes
    if group:
        yield group


def _run_group(
    a: ir.Model,
    b: ir.Model,
    group: Sequence[Pair],
    data: DataSet,
    sums: Mapping[str, Sums],
    stage: str,
    progress: Progress,
) -> int:
    names_a, names_b = [pair.a for pair in group], [pair.b for pair in group]
    first, second = _open(a, names_a), _open(b, names_b)
    count = 0
    for feed in data:
        for pair, x, y in zip(group, _run(first, feed, names_a), _run(second, feed, names_b), strict=True):
            sums[pair.a].add(x, y)
        count += 1
        progress(stage, count, None)
    return count


def _run(session: ort.InferenceSession, feed: Feed, names: Sequence[str]) -> list[Array]:
    return run(session, feed, names)


def _open(model: ir.Model, names: Sequence[str]) -> ort.InferenceSession:
    """A session whose outputs include the values named."""
    present = {value.name for value in model.graph.outputs}
    if all(name in present for name in names):
        return open_session(model)
    clone = model.clone()
    values = {value.name: value for node in clone.graph for value in node.outputs}
    types = walk_model(model).values
    for name in dict.fromkeys(names):
        if name not in present:
            value = values[name]
            # ONNX Runtime infers the shape itself; a type it must be told.
            if value.dtype is None:
                value.type = ir.TensorType(types[name].dtype or ir.DataType.FLOAT)
            clone.graph.outputs.append(value)
    return open_session(clone)


def _badness(error: LayerError) -> tuple[bool, float]:
    fine = error.nonfinite_a == error.nonfinite_b
    return fine, math.inf if error.snr_db is None else error.snr_db
