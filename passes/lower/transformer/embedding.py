"""Token embeddings: rows of tables, their sum and its normalization as EmbedLayerNorm."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

from onnxcompress.passes.lower.transformer.lowering import Lowering, Result, bytes_like, emit, real
from onnxcompress.passes.lower.transformer.moves import assignments, evaluate, trials
from onnxcompress.passes.lower.transformer.normalization import (
    Rounded,
    find_rounded,
    is_read,
    layer_norm,
    rounding_inputs,
    take_results,
)
from onnxcompress.passes.quantize import arithmetic
from onnxcompress.passes.simplify.editor import (
    Editor,
    array_of,
    attribute,
    dims_of,
    only_reader,
    producer,
    rank_of,
    tensor_of,
)

Array = np.ndarray[Any, Any]

INDICES = (ir.DataType.INT64, ir.DataType.INT32)

MOST_LEAVES = 3
"""Words, types, positions."""


class Rows(NamedTuple):
    """Rows of a constant table.

    Attributes:
        table: float32 [V, C], or int8 with `scale`.
        scale: float32 [V], or None.
        ids: which rows.
        nodes: the Gather, and what makes real numbers of int8 rows.
    """

    table: ir.TensorProtocol
    scale: Array | None
    ids: ir.Value
    nodes: tuple[ir.Node, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return dims_of(self.table)

    def real(self) -> Array:
        """float32 [V, C]."""
        array = self.table.numpy()
        return array if self.scale is None else (array.astype(np.float32) * self.scale[:, None]).astype(np.float32)


class Embedding(NamedTuple):
    """A sum of rows, normalized.

    Attributes:
        words: by ids [B, S].
        types: by ids [B, S], or None.
        positions: by the same ids for all of a batch, or None.
        offset: position ids are this, this + 1, ...; None: they are computed.
    """

    words: Rows
    types: Rows | None
    positions: Rows | None
    offset: int | None
    rounded: Rounded | None
    is_read: bool
    gamma: ir.Value
    beta: ir.Value | None
    epsilon: float
    result: ir.Value
    nodes: tuple[ir.Node, ...]


class LowerEmbedding(Lowering):
    """Embeddings of tokens, their sum and its LayerNormalization become EmbedLayerNorm.

    1. The normalization is over the last axis, in float32, with constant vectors; nobody else reads the sum.
    2. The sum is one of rows of up to three constant matrices, float32 or int8 with a scale a row: the largest by
       ids [B, S] is that of words; of the others one may be by ids [B, S] (types), one by positions.
    3. Positions are n, n + 1, ... as far as the words' ids go, or any ids of the shapes [S], [1, S], [B, S].
    4. Float32 tables of words and positions become int8 with a scale a row if `tables` allows it; otherwise one of
       words keeps the embedding as it is, and one of positions goes in in float32.
    5. The QuantizeLinear behind it goes in as in `LowerNormalizations`.

    Args:
        tables: case 4.
    """

    anchors = ("LayerNormalization",)

    def __init__(self, *, tables: bool = True, standard: Iterable[str] = ()) -> None:
        super().__init__(standard)
        self.tables = tables

    def find(self, node: ir.Node) -> Embedding | str | None:
        total = node.inputs[0]
        gathered = _gathered(total) if total is not None else None
        if gathered is None or total is None:
            return None
        leaves, sums = gathered
        if not leaves or len(leaves) > MOST_LEAVES:
            return None
        described = layer_norm(node)
        if isinstance(described, str):
            return described
        if any(only_reader(v) is None for v in (total, *(s.outputs[0] for s in sums))):
            return "the sum of its embeddings is read elsewhere too"
        sorted_rows = _sorted(leaves)
        if isinstance(sorted_rows, str):
            return sorted_rows
        words, types, positions, offset = sorted_rows
        if words.scale is None and not self.tables:
            return "its table of words is float32, and tables stay as they are"
        rounded = find_rounded(node.outputs[0])
        nodes = [n for rows in leaves for n in rows.nodes] + [*sums, node]
        nodes += [rounded.product] if rounded is not None and rounded.product is not None else []
        gamma, beta, epsilon = described
        result = node.outputs[0]
        return Embedding(
            words, types, positions, offset, rounded, is_read(result, rounded), gamma, beta, epsilon, result,
            tuple(nodes),
        )  # fmt: skip

    def rewrite(self, node: ir.Node, found: Embedding, editor: Editor) -> str:
        words, types, positions = found.words, found.types, found.positions
        table, scale = _as_int8(words)
        stem = found.nodes[0].name or "embedding"
        beta = found.beta or editor.constant(np.zeros(words.shape[1], np.float32), "zeros")
        places, place_scale = (None, None) if positions is None else self._positions(positions)
        inputs = [
            words.ids,
            editor.constant(table, f"{stem}/table"),
            editor.constant(scale, f"{stem}/table_scale"),
            None if types is None else types.ids,
            None if types is None else editor.constant(types.real(), f"{stem}/types"),
            None if places is None else editor.constant(places, f"{stem}/positions"),
            None if positions is None or found.offset is not None else positions.ids,
            found.gamma,
            beta,
            *rounding_inputs(found.rounded, editor),
            None if place_scale is None else editor.constant(place_scale, f"{stem}/positions_scale"),
        ]
        attributes: dict[str, Any] = {"epsilon": found.epsilon}
        if found.offset:
            attributes["position_offset"] = found.offset
        outputs: list[Result | None] = [
            real(found.result) if found.is_read else None,
            None if found.rounded is None else bytes_like(found.rounded.q.value),
        ]
        made = emit(editor, "EmbedLayerNorm", inputs, attributes, outputs, before=node, replaces=found.nodes)
        take_results(made, found.result if found.is_read else None, found.rounded, editor)
        return "EmbedLayerNorm"

    def _positions(self, rows: Rows) -> tuple[Array, Array | None]:
        """The table of positions, as int8 with a scale a row if it is so already or may be; else in float."""
        return _as_int8(rows) if self.tables or rows.scale is not None else (rows.real(), None)


def _gathered(value: ir.Value) -> tuple[list[Rows], list[ir.Node]] | None:
    """The rows that a value is the sum of, and the sums."""
    rows = _rows(value)
    if rows is not None:
        return [rows], []
    node = producer(value, "Add", "Sum")
    if node is None:
        return None
    leaves: list[Rows] = []
    sums: list[ir.Node] = [node]
    for operand in node.inputs:
        part = _gathered(operand) if operand is not None else None
        if part is None or len(leaves) > MOST_LEAVES:
            return None
        leaves += part[0]
        sums = [*part[1], *sums]
    return leaves, sums


def _rows(value: ir.Value) -> Rows | None:
    """A Gather from a constant matrix: of float32, or of int8 whose rows are then multiplied by their scales."""
    node = producer(value, "Gather")
    if node is not None:
        found = _table(node)
        if found is None or found[0].dtype != ir.DataType.FLOAT:
            return None
        return Rows(found[0], None, found[1], (node,))
    product = producer(value, "Mul")
    cast = producer(product.inputs[0], "Cast") if product is not None else None
    column = producer(product.inputs[1], "Unsqueeze") if product is not None else None
    gathers = [producer(part.inputs[0], "Gather") if part is not None else None for part in (cast, column)]
    if product is None or cast is None or column is None or gathers[0] is None or gathers[1] is None:
        return None
    table = _table(gathers[0])
    scale = array_of(gathers[1].inputs[0])
    if table is None or scale is None or table[0].dtype != ir.DataType.INT8 or table[1] is not gathers[1].inputs[1]:
        return None
    if scale.shape != dims_of(table[0])[:1] or rank_of(product.outputs[0]) != (rank_of(table[1]) or 0) + 1:
        return None
    return Rows(table[0], scale, table[1], (gathers[0], cast, gathers[1], column, product))


def _table(node: ir.Node) -> tuple[ir.TensorProtocol, ir.Value] | None:
    table, ids = tensor_of(node.inputs[0]), node.inputs[1]
    if table is None or len(table.shape) != 2 or ids is None or attribute(node, "axis", 0) not in (0, -2):
        return None
    return table, ids


def _sorted(leaves: list[Rows]) -> tuple[Rows, Rows | None, Rows | None, int | None] | str:
    """Words, types, positions and the first position (None: they are computed)."""
    words = max((r for r in leaves if rank_of(r.ids) == 2), key=lambda r: r.shape[0], default=None)
    if words is None or words.ids.dtype not in INDICES or tensor_of(words.ids) is not None:
        return "its ids of words are not integers [batch, sequence]"
    types, positions, offset = None, None, None
    for rows in (r for r in leaves if r is not words):
        first = _first_position(rows.ids, words.ids)
        per_token = rank_of(rows.ids) == 2 and rows.ids.dtype in INDICES and tensor_of(rows.ids) is None
        if positions is None and first is not None:
            positions, offset = rows, first
        elif types is None and per_token and _same_dimensions(rows.ids, words.ids):
            types = rows
        elif positions is None and rows.ids.dtype in INDICES and _along_sequence(rows.ids, words.ids):
            positions = rows
        else:
            return "it sums other rows than those of words, types and positions"
    if any(rows.shape[1] != words.shape[1] for rows in leaves):
        return "its tables differ in width"
    return words, types, positions, offset


def _along_sequence(ids: ir.Value, words: ir.Value) -> bool:
    """Whether ids are [S], [1, S] or [B, S], where those of words are [B, S]."""
    if ids.shape is None or words.shape is None or len(ids.shape) not in (1, 2) or ids.shape[-1] != words.shape[1]:
        return False
    return len(ids.shape) == 1 or ids.shape[0] in (1, words.shape[0])


def _same_dimensions(a: ir.Value, b: ir.Value) -> bool:
    return a.shape is not None and b.shape is not None and list(a.shape) == list(b.shape)


def _first_position(ids: ir.Value, words: ir.Value) -> int | None:
    """n, where ids are n, n + 1, ... along the sequence, whatever the dimensions of the words' ids; else None."""
    found = None
    for sizes, names in trials(words):
        constant = array_of(ids)
        guesses = [{}] if constant is not None else assignments([ids], sizes, names)
        results = (constant if constant is not None else evaluate(ids, {}, guess) for guess in guesses)
        here = next((r for r in results if r is not None and r.size and r.shape[-1] == sizes[1]), None)
        if here is None or not np.all(here == here.reshape(-1)[0] + np.arange(sizes[1])):
            return None
        first = int(here.reshape(-1)[0])
        if found not in (None, first):
            return None
        found = first
    return found


def _as_int8(rows: Rows) -> tuple[Array, Array]:
    """A table as int8 and the scales of its rows."""
    if rows.scale is not None:
        return rows.table.numpy(), rows.scale.astype(np.float32)
    table = rows.table.numpy()
    scale = arithmetic.weight_scales(table, 0)
    return arithmetic.quantize_weight(table, scale, 0), scale
