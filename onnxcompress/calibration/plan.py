"""How a model is run to be observed: the tensors of each pass over the data, and its session."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir
import onnxruntime as ort

from onnxcompress.calibration.taps import sized, tapped
from onnxcompress.data import DataSet, Feed
from onnxcompress.errors import CalibrationError, DataError
from onnxcompress.model_io import initializer_bytes
from onnxcompress.runtime.session import open_session, run

HELD_WEIGHTS = 256 << 20
"""Bytes of weights up to which two sessions may be open at a time, which saves opening one again."""

_FLOAT_BYTES = {"tensor(float)": 4, "tensor(float16)": 2, "tensor(double)": 8}
_INPUT_TYPES = {
    ir.DataType.FLOAT: "tensor(float)",
    ir.DataType.FLOAT16: "tensor(float16)",
    ir.DataType.DOUBLE: "tensor(double)",
}


@dataclass(frozen=True)
class Plan:
    """What is observed, and how.

    Attributes:
        names: the tensors, all float, in graph order.
        passes: those observed in each pass over the data; the graph inputs among them come first.
    """

    names: list[str]
    passes: list[list[str]]
    _model: ir.Model
    _threads: int
    _session: ort.InferenceSession | None

    def session(self, index: int) -> tuple[ort.InferenceSession | None, list[str]]:
        """The session of a pass and the outputs to ask it for; None where inputs alone are observed."""
        inputs = {value.name for value in self._model.graph.inputs}
        inner = [name for name in self.passes[index] if name not in inputs]
        if not inner:
            return None, inner
        return self._session or _open(tapped(self._model, inner), self._threads), inner


def make_plan(
    model: ir.Model, data: DataSet, names: list[str], *, threads: int, memory_budget: int, floats_only: bool
) -> Plan:
    """Find the types and sizes of tensors, and divide them into passes.

    Args:
        names: values of the main graph, in graph order.
        memory_budget: bytes of tensors to hold at a time, as estimated on the first feed.
        floats_only: leave out tensors that are not float, instead of refusing them.

    Raises:
        CalibrationError: a tensor is not float; no samples.
    """
    types = {v.name: _INPUT_TYPES.get(v.dtype, str(v.dtype)) for v in model.graph.inputs if v.name and v.dtype}
    inner = [name for name in names if name not in types]
    session = None
    if inner:
        session = _open(tapped(model, inner), threads)
        types |= {output.name: output.type for output in session.get_outputs()}
    others = [name for name in names if types[name] not in _FLOAT_BYTES]
    if others and not floats_only:
        raise CalibrationError(f"tensor {others[0]!r} is {types[others[0]]}: only floats have ranges")
    floats = [name for name in names if name not in set(others)]
    inner = [name for name in inner if types[name] in _FLOAT_BYTES]
    sizes = dict.fromkeys(floats, 0)  # the inputs are held in any case
    if len(inner) > 1:
        if initializer_bytes(model) > HELD_WEIGHTS:
            session = None
        sizes |= _sizes(model, inner, types, _first(data), threads)
    passes = _chunks(floats, sizes, memory_budget)
    # The session that told the types serves the usual case, where one pass is enough.
    return Plan(floats, passes, model, threads, session if len(passes) == 1 else None)


def no_feeds(data: DataSet) -> CalibrationError:
    """The error for an empty data set."""
    return CalibrationError(f"{data.name}: no feeds; calibration needs at least one, better 100 or more")


def _open(model: ir.Model, threads: int) -> ort.InferenceSession:
    # Unoptimized: every tensor is what the graph says it is. Little would be gained, since tensors that are
    # outputs cannot be fused away. Memory kept between runs would grow with inputs of varying shape.
    return open_session(model, threads=threads, optimize=False, keep_memory=False)


def _first(data: DataSet) -> Feed:
    for feed in data:
        return feed
    raise no_feeds(data)


def _sizes(model: ir.Model, names: list[str], types: Mapping[str, str], feed: Feed, threads: int) -> dict[str, int]:
    """Bytes of each tensor on one feed, found without holding any of them."""
    session = _open(sized(model, names), threads)
    try:
        shapes = run(session, feed)
    except DataError as error:
        raise DataError(f"sample 0: {error}") from error
    pairs = zip(names, shapes, strict=True)
    return {name: math.prod(int(d) for d in shape) * _FLOAT_BYTES[types[name]] for name, shape in pairs}


def _chunks(names: list[str], sizes: Mapping[str, int], budget: int) -> list[list[str]]:
    """Names in their order, in groups that fit the budget; a tensor that alone exceeds it is a group."""
    chunks: list[list[str]] = [[]]
    held = 0
    for name in names:
        if held and held + sizes[name] > budget:
            chunks.append([])
            held = 0
        chunks[-1].append(name)
        held += sizes[name]
    return chunks
