"""Multi-head attention: queries, keys and values as one QLinear, the rest as QAttention."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

from onnxcompress.passes.lower.transformer.core import Core, find_core
from onnxcompress.passes.lower.transformer.heads import Heads, Joined, find_heads, find_joined
from onnxcompress.passes.lower.transformer.linear import Linear, layer_inputs, linear_before
from onnxcompress.passes.lower.transformer.lowering import (
    Lowering,
    Quantized,
    Result,
    bytes_like,
    dequantized,
    emit,
    quantizer,
    real,
    scalar,
    support,
)
from onnxcompress.passes.lower.transformer.mask import Mask, addend, find_mask
from onnxcompress.passes.lower.transformer.moves import MOVES, UNCHANGED, Path, read_only_by, transposed
from onnxcompress.passes.simplify.editor import Editor, is_op, only_reader, rank_of

Array = np.ndarray[Any, Any]

ZERO_POINT = 128
"""Of quantized queries, keys and values."""

MARGIN = 1.02
"""Room above the greatest values seen, for those of other inputs."""

MOST_BALANCE = 1e3
"""A channel of the queries is not made larger or smaller than this."""


class Block(NamedTuple):
    """Attention with the linear layers before it and the rounding behind it.

    Attributes:
        linears: of queries, keys and values; often one.
        columns: int64 [H, d] each, where the channels of the heads lie in the results of the linear layers.
        peaks: greatest magnitudes of these channels, float64 [H, d] each.
        scale: what scores are multiplied by.
        batch_first: the linear layers' rows are [B, S].
        y: what is made of the second product, rounded: the last value that is as `joined` says.
        given: scale and zero point of it.
        nodes: all that is replaced, Q and DQ apart.
    """

    linears: tuple[Linear, Linear, Linear]
    columns: tuple[Array, Array, Array]
    peaks: tuple[Array, Array, Array]
    scale: float
    mask: Mask | None
    batch_first: bool
    joined: Joined
    y: ir.Value
    given: Quantized
    nodes: tuple[ir.Node, ...]

    @property
    def heads(self) -> int:
        return int(self.columns[0].shape[0])


def attention_tensors(model: ir.Model) -> list[str]:
    """The results of the linear layers that make queries, keys and values in a float model.

    `LowerAttention` wants the greatest magnitudes of their channels, which are counted along the last axis.
    """
    names: dict[str, None] = {}
    for node in model.graph:
        core = find_core(node) if is_op(node, "Softmax") else None
        if isinstance(core, Core):
            paths = (core.q, core.k, core.v)
            if all(rank_of(path.source) == 3 and _is_linear(path.source) for path in paths):
                names.update((path.source.name or "", None) for path in paths)
    return list(names)


def _is_linear(value: ir.Value) -> bool:
    """Whether a value is what a product with a constant matrix makes, with a sum of a constant or without."""
    node = value.producer()
    for _ in range(2):
        if node is None or is_op(node, "MatMul", "Gemm"):
            break
        if not is_op(node, "Add", "Sum"):
            return False
        node = next((p for v in node.inputs if v is not None and is_op(p := v.producer(), "MatMul")), None)
    return node is not None and is_op(node, "MatMul", "Gemm") and rank_of(node.inputs[1]) == 2


class LowerAttention(Lowering):
    """Attention in float between quantized linear layers becomes one QLinear and QAttention.

    1. The core is one of `find_core`: two products, a Softmax, a scale or none, a mask of `find_mask` or none.
    2. Queries, keys and values are the results of linear layers of one input (`find_linear`), or parts of one,
       moved to the heads in any way: data movements and products with numbers, read by nobody else.
    3. They have the same heads, of the same size.
    4. What follows moves the heads side by side again, [B, S, C] (or [S, B, C], or one of them with the first two
       dimensions as one), and rounds it to uint8 by one scale and zero point, anywhere on the way.
    5. The greatest magnitudes of the channels are known.

    A channel of the queries is made larger or smaller by the same factor that one of the keys is made smaller or
    larger by, which changes no score, so that both have the same greatest magnitude.

    Args:
        channels: greatest magnitudes, `[N]`, of the results of the linear layers by name: `attention_tensors`.
    """

    anchors = ("Softmax",)

    def __init__(self, channels: Mapping[str, Array], standard: Iterable[str] = ()) -> None:
        super().__init__(standard)
        self.channels = channels

    def find(self, node: ir.Node) -> Block | str | None:
        core = find_core(node)
        if not isinstance(core, Core):
            return core
        linears = tuple(linear_before(path.source) for path in (core.q, core.k, core.v))
        q, k, v = linears
        if q is None or k is None or v is None:
            return "its queries, keys and values are not the results of quantized linear layers"
        if any(x.value is not q.x.value or not x.same_parameters(q.x) for x in (k.x, v.x)):
            return "its queries, keys and values come from different tensors"
        heads = [
            find_heads(core.q, core.factors[0], keys=False),
            find_heads(core.k, core.factors[1], keys=True),
            find_heads(core.v, core.factors[2], keys=False),
        ]
        for found in heads:
            if isinstance(found, str):
                return found
        return self._find_block(core, (q, k, v), [found for found in heads if isinstance(found, Heads)])

    def _find_block(self, core: Core, linears: tuple[Linear, Linear, Linear], heads: list[Heads]) -> Block | str:
        first = heads[0]
        if any(h.columns.shape != first.columns.shape or h.batch_first != first.batch_first for h in heads):
            return "its queries, keys and values have different heads"
        mask = None
        if core.mask is not None:
            found = find_mask(core.mask, core.form, len(first.columns))
            if isinstance(found, str):
                return found
            mask = found
        end = _find_end(core, first)
        if isinstance(end, str):
            return end
        y, given, joined, path = end
        peaks = [self._peaks(linear.result, found) for linear, found in zip(linears, heads, strict=True)]
        if any(isinstance(peak, str) for peak in peaks):
            return next(peak for peak in peaks if isinstance(peak, str))
        before = [node for linear in linears for node in linear.nodes] + [n for p in core.paths for n in p.nodes]
        nodes = list(dict.fromkeys((*before, *core.nodes, *path.nodes)))
        if not read_only_by(nodes, y):
            return "a value inside it is read elsewhere too"
        q_peaks, k_peaks, v_peaks = (peak for peak in peaks if not isinstance(peak, str))
        return Block(
            linears,
            (heads[0].columns, heads[1].columns, heads[2].columns),
            (q_peaks, k_peaks, v_peaks * abs(core.v.factor)),
            core.scale * core.q.factor * core.k.factor,
            mask,
            first.batch_first,
            joined,
            y,
            given,
            tuple(node for node in nodes if not is_op(node, *UNCHANGED)),
        )

    def _peaks(self, value: ir.Value, heads: Heads) -> Array | str:
        found = self.channels.get(value.name or "")
        if found is None:
            return f"the greatest magnitudes of the channels of {value.name} were not measured"
        peaks = np.asarray(found, np.float64).reshape(-1)
        width = value.shape[-1] if value.shape is not None else None
        if len(peaks) != width or not np.all(np.isfinite(peaks)):
            return f"the magnitudes of the channels of {value.name} are {len(peaks)} numbers, for {width} channels"
        return np.abs(peaks[heads.columns])

    def rewrite(self, node: ir.Node, found: Block, editor: Editor) -> str:
        last = found.y.producer()
        assert last is not None
        x = found.linears[0].x
        source = x.value if found.batch_first else transposed(editor, x.value, before=last)
        q_scale, k_scale, v_scale, qkv = _emit_linear(found, source, editor, last)
        mask = None if found.mask is None else found.mask.value
        if found.mask is not None and found.mask.form != "keys":
            mask = addend(editor, found.mask, before=last)
        shape = source.shape
        width = int(v_scale.size)
        attributes: dict[str, Any] = {"num_heads": found.heads, "scale": float(found.scale)}
        if found.mask is not None:
            attributes["mask_kind"] = "keep" if found.mask.form == "keys" else "add"
        inputs = [
            qkv,
            *[editor.constant(array.astype(np.float32), "attention_scale") for array in (q_scale, k_scale, v_scale)],
            mask,
            *[scalar(editor, value) for value in found.given[1:]],
        ]
        made = emit(
            editor,
            "QAttention",
            inputs,
            attributes,
            [Result(ir.DataType.UINT8, None if shape is None else ir.Shape([*shape[:2], width]))],
            before=last,
            replaces=[n for n in found.nodes if not any(n in linear.nodes for linear in found.linears)],
        )
        _put_back(editor, made.outputs[0], found, last)
        return "QLinear and QAttention" + ("" if found.mask is None else f", mask {found.mask.form}")


def _find_end(core: Core, heads: Heads) -> tuple[ir.Value, Quantized, Joined, Path] | str:
    """Down from the second product through movements and rounding: the last value that heads lie side by side in."""
    values, nodes, given = [core.result], [], None
    while (node := only_reader(values[-1])) is not None and is_op(node, *MOVES, *UNCHANGED):
        rounded = quantizer(node) or (dequantized(node.outputs[0]) if is_op(node, "DequantizeLinear") else None)
        if is_op(node, *UNCHANGED) and rounded is None:
            break
        if node.inputs[0] is not values[-1] or (rounded is not None and given and not rounded.same_parameters(given)):
            break
        given = given or rounded
        nodes.append(node)
        values.append(node.outputs[0])
    if given is None:
        return "its result is not quantized"
    for count in range(len(nodes), 0, -1):
        y, path = values[count], Path(core.result, 1.0, tuple(nodes[:count]))
        if is_op(nodes[count - 1], "DequantizeLinear") or not any(is_op(n, "QuantizeLinear") for n in path.nodes):
            continue
        joined = find_joined(path, y, core.q.source, heads)
        if joined is not None:
            return y, given, joined, path
    return "its heads are not put side by side again"


def _emit_linear(
    found: Block, source: ir.Value, editor: Editor, before: ir.Node
) -> tuple[Array, Array, Array, ir.Value]:
    """The linear layers as one; gives the scales of q and k [H] and of v [C], and the result [B, S, 3C]."""
    q, k, v = found.peaks
    with np.errstate(divide="ignore", invalid="ignore"):
        balance = np.clip(np.sqrt(k / q), 1 / MOST_BALANCE, MOST_BALANCE)
    balance = np.where((q > 0) & (k > 0), balance, 1.0)
    q_scale, k_scale = (_scale((p * f).max(axis=1)) for p, f in ((q, balance), (k, 1 / balance)))
    v_scale = _scale(v.reshape(-1) * MARGIN)
    factors = (balance, 1 / balance, np.ones_like(v))
    parts = [_part(*part) for part in zip(found.linears, found.columns, factors, strict=True)]
    biases = [bias if bias is not None else np.zeros(len(w), np.float32) for w, _, bias in parts]
    merged = found.linears[0]._replace(
        weight=np.concatenate([w for w, _, _ in parts]),
        scale=np.concatenate([scale for _, scale, _ in parts]),
        bias=np.concatenate(biases) if any(bias is not None for _, _, bias in parts) else None,
    )
    size = q.shape[1]
    y_scale = np.concatenate([np.repeat(q_scale, size), np.repeat(k_scale, size), v_scale])
    inputs = [
        *layer_inputs(merged, editor),
        None,
        editor.constant(y_scale.astype(np.float32), "attention_scale"),
        editor.constant(np.array(ZERO_POINT, np.uint8), "zero_point"),
    ]
    inputs[0] = source
    shape = None if source.shape is None else ir.Shape([*source.shape[:2], len(y_scale)])
    linear_nodes = dict.fromkeys(node for linear in found.linears for node in linear.nodes)
    made = emit(
        editor, "QLinear", inputs, {}, [Result(ir.DataType.UINT8, shape)], before=before, replaces=linear_nodes
    )  # fmt: skip
    return q_scale, k_scale, v_scale, made.outputs[0]


def _part(linear: Linear, columns: Array, factor: Array) -> tuple[Array, Array, Array | None]:
    """The rows of a linear layer that make some channels, their scales and biases multiplied by a factor."""
    rows, factor = columns.reshape(-1), factor.reshape(-1)
    bias = None if linear.bias is None else (linear.bias[rows] * factor).astype(np.float32)
    return linear.weight[rows], (linear.scale[rows] * factor).astype(np.float32), bias


def _scale(peaks: Array) -> Array:
    return np.asarray(np.where(peaks > 0, peaks, 1.0) / (255 - ZERO_POINT), np.float32)


def _put_back(editor: Editor, y: ir.Value, found: Block, before: ir.Node) -> None:
    """Bring y [B, S, C] to the form of what it replaces."""
    if not found.joined.batch_first:
        y = transposed(editor, y, before=before)
    if found.joined.rank == 2:
        shape = editor.constant(np.array([-1, found.columns[2].size], np.int64), "rows_shape")
        y = support(editor, "Reshape", [y, shape], {}, bytes_like(found.y), before=before)
    if found.y.dtype == ir.DataType.FLOAT:
        y = support(editor, "DequantizeLinear", [y, *found.given[1:]], {}, real(found.y), before=before)
    editor.supersede(found.y, y)
