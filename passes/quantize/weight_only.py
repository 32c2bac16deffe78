"""Weight-only quantization: weights in 8 or 4 bits, activations and arithmetic in float.

It makes files and memory traffic smaller; it is for models bound by their weights (decoding with one row at
a time). ONNX Runtime does not fold DequantizeLinear of a constant. Before a MatMul or Gemm, 1.31 turns it into
MatMulNBits by itself, whose activations are int8 in blocks unless the session's configuration entry
`session.qdq_matmulnbits_accuracy_level` is 0; what it does not turn (older versions, convolutions) is
dequantized on every run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from onnxcompress.passes.quantize import roles
from onnxcompress.passes.quantize.roles import Decision
from onnxcompress.passes.quantize.storage import Blocks, Form, Storage, store
from onnxcompress.passes.simplify.editor import Editor, all_nodes

READERS = {"MatMul": 1, "Gemm": 1, "Conv": 1, "Gather": 0}
"""Operators that are taken, and which of their inputs is the weight."""

NO_FORM = {"ConvTranspose", "LSTM", "GRU", "RNN", "Einsum"}
"""Operators with weights that have no weight-only form here; they are reported."""

LEAST_OPSET = 21


@dataclass(frozen=True)
class _Reader:
    """A node that reads a weight, directly or through a transpose of a matrix.

    Attributes:
        channel_axis: the output channels (Gather: the rows) in the weight as it is stored.
    """

    node: ir.Node
    weight: ir.Value
    transpose: ir.Node | None
    channel_axis: int

    @property
    def direct(self) -> ir.Node:
        """The node that has the weight as its input."""
        return self.transpose or self.node


class QuantizeWeights(ir.passes.InPlacePass):
    """Store the weights of MatMul, Gemm, Conv and Gather in 8 or 4 bits. Subgraphs are handled; functions are not.

    1. 8 bits: s8, symmetric, a scale per output channel, behind a DequantizeLinear; with `block_size`, a scale
       per block of a MatMul's or Gemm's inputs.
    2. 4 bits, MatMul and Gemm: a scale (and a zero point, unless `symmetric`) per block of inputs, behind a
       DequantizeLinear of opset 21; where the inputs are not a multiple of the block: as 1.
    3. Form 'nbits': MatMul and Gemm become com.microsoft MatMulNBits, which pads; a Gemm that it cannot
       express (transA, alpha or beta other than 1, a bias that is not a constant vector): as 1 or 2.
    4. Gather (axis 0 of a matrix: an embedding table): s8 with a scale per row; the rows are gathered as s8 and
       scaled after, so that the float table never exists. Always 8 bits, as Conv.
    5. A weight read through a Transpose by products only counts as the product's own.
    6. A weight that several nodes read is stored once for those who need the same form. Where one of its
       readers stays float, all do: a second copy would make the model larger.

    Weights outside memory (external data) are read when the model is saved, one at a time, and then let go of;
    the float model must stay where it is until then.

    Args:
        bits: 8 or 4.
        block_size: inputs that share a scale, a power of two and at least 16; None: 32 for 4 bits and for
            'nbits', whole channels for 8.
        form: 'dequantize' for standard operators only, 'nbits' for ONNX Runtime's own.
        symmetric: block-wise weights without zero points; 8 bits in 'dequantize' always are.
        accuracy_level: of MatMulNBits: 0 for ONNX Runtime's choice, 1 float32, 4 int8 activations.
        exclude: names of nodes (of their first outputs, where they have none) that stay float.
        minimum_weights: weights with fewer elements stay float.
        solved: integers to store in the place of rounded ones, by initializer (`storages` says of which).

    Attributes:
        decisions: what became of every node with a weight, and why; set by the call.

    Raises:
        ValueError: arguments outside what is said above.
        onnx_ir.passes.PreconditionError: the model's opset is below 21.
    """

    def __init__(
        self,
        bits: Literal[4, 8] = 8,
        *,
        block_size: int | None = None,
        form: Form = "dequantize",
        symmetric: bool = False,
        accuracy_level: int = 0,
        exclude: frozenset[str] = frozenset(),
        minimum_weights: int = 1024,
        solved: Mapping[str, Blocks] | None = None,
    ) -> None:
        super().__init__()
        if bits not in (4, 8):
            raise ValueError(f"weights can have 4 or 8 bits, not {bits}")
        if form not in ("dequantize", "nbits"):
            raise ValueError(f"form must be 'dequantize' or 'nbits', not {form!r}")
        if block_size is None and (bits == 4 or form == "nbits"):
            block_size = 32
        if block_size is not None and (block_size < 16 or block_size & (block_size - 1)):
            raise ValueError(f"block_size must be a power of two and at least 16, not {block_size}")
        self.bits = bits
        self.block_size = block_size
        self.form: Form = form
        self.symmetric = symmetric
        self.accuracy_level = accuracy_level
        self.exclude = exclude
        self.minimum_weights = minimum_weights
        self.solved = solved or {}
        self.decisions: list[Decision] = []

    def requires(self, model: ir.Model) -> None:
        opset = model.graph.opset_imports.get("", 0)
        if opset < LEAST_OPSET:
            raise ir.passes.PreconditionError(f"opset {opset}: convert the model to {LEAST_OPSET} first")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        outcomes = self._outcomes(model)
        writer = _Writer(Editor(model), self.accuracy_level, self.solved)
        self.decisions = []
        for node, outcome in outcomes.items():
            name, op = node.name or node.outputs[0].name or "", node.op_type
            if isinstance(outcome, str):
                self.decisions.append(Decision(name, op, False, outcome))
                continue
            storage = self._storage(outcome)
            writer.write(outcome, storage)
            self.decisions.append(Decision(name, op, True, str(storage) + self._remark(outcome, storage)))
        return ir.passes.PassResult(model, modified=writer.editor.changes > 0)

    def storages(self, model: ir.Model) -> dict[str, Storage]:
        """How the weights that the call would store in blocks are stored, by initializer; the model is unchanged."""
        readers = [outcome for outcome in self._outcomes(model).values() if isinstance(outcome, _Reader)]
        found = {reader.weight.name or "": self._storage(reader) for reader in readers}
        return {name: storage for name, storage in found.items() if storage.block_size is not None}

    def _outcomes(self, model: ir.Model) -> dict[ir.Node, str | _Reader]:
        outcomes: dict[ir.Node, str | _Reader] = {}
        for node in all_nodes(model):
            outcome = self._examine(node)
            if outcome is not None:
                outcomes[node] = outcome
        _refuse_partly_read(outcomes)
        return outcomes

    def _examine(self, node: ir.Node) -> str | _Reader | None:
        """The reader that a node is, why it is none, or None where nobody would ask."""
        if node.domain not in roles.STANDARD:
            return None
        if node.op_type in NO_FORM:
            return "it has no weight-only form"
        if node.op_type not in READERS:
            return None
        source = node.inputs[READERS[node.op_type]]
        transpose = None if source is None else _matrix_transpose(source.producer(), node)
        weight = source if transpose is None else transpose.inputs[0]
        if weight is None or not weight.is_initializer() or weight.is_graph_input() or weight.const_value is None:
            return None if node.op_type == "Gather" else "its weight is not a constant second input"
        if weight.const_value.dtype != ir.DataType.FLOAT:
            integers = weight.const_value.dtype not in (
                ir.DataType.FLOAT16,
                ir.DataType.BFLOAT16,
                ir.DataType.DOUBLE,
            )
            return None if node.op_type == "Gather" and integers else "its weight is not float32"
        if (node.name or node.outputs[0].name) in self.exclude:
            return "excluded"
        if weight.const_value.size < max(self.minimum_weights, 1):
            return f"it has fewer than {max(self.minimum_weights, 1)} weights"
        reason = _form_refusal(node, weight)
        return reason or _Reader(node, weight, transpose, _channel_axis(node, transpose is not None))

    def _storage(self, reader: _Reader) -> Storage:
        """How a reader wants its weight stored; cases 1 to 4."""
        whole = Storage("dequantize", 8, reader.channel_axis)
        if reader.node.op_type == "Gather":
            return replace(whole, form="rows")
        if reader.node.op_type == "Conv" or self.block_size is None:
            return whole
        assert reader.weight.const_value is not None
        shape = [int(size) for size in reader.weight.const_value.shape]  # type: ignore[arg-type]
        outputs, inputs = shape[reader.channel_axis], shape[1 - reader.channel_axis]
        blocks = Storage(
            "dequantize", self.bits, reader.channel_axis, self.block_size, self.symmetric or self.bits == 8
        )
        if self.form == "nbits" and _fits_nbits(reader.node, outputs):
            return replace(blocks, form="nbits", symmetric=self.symmetric)
        return whole if inputs % self.block_size else blocks

    def _remark(self, reader: _Reader, storage: Storage) -> str:
        """Why a reader got another storage than was asked for."""
        if storage.form == "rows" or reader.node.op_type == "Conv":
            return "" if self.bits == 8 else f": {reader.node.op_type} has no 4-bit form"
        if self.block_size is not None and storage.block_size is None:
            return f": its inputs are not a multiple of {self.block_size}"
        if self.form != storage.form:
            return ": MatMulNBits cannot express it"
        return ""


def _matrix_transpose(producer: ir.Node | None, node: ir.Node) -> ir.Node | None:
    """The Transpose between a matrix and a product that reads it; case 5."""
    if producer is None or producer.op_type != "Transpose" or producer.domain not in roles.STANDARD:
        return None
    value = producer.inputs[0]
    if node.op_type not in ("MatMul", "Gemm") or value is None or value.shape is None or len(value.shape) != 2:
        return None
    swaps = list(producer.attributes.get_ints("perm", [1, 0])) == [1, 0]
    return producer if swaps and not producer.outputs[0].is_graph_output() else None


def _form_refusal(node: ir.Node, weight: ir.Value) -> str | None:
    assert weight.const_value is not None
    rank = len(weight.const_value.shape)
    if weight.is_graph_output():
        return "its weight is an output of the model"
    if node.op_type in ("MatMul", "Gemm", "Gather") and rank != 2:
        return "its weight is not a matrix"
    if node.op_type == "Gather" and node.attributes.get_int("axis", 0) not in (0, -2):
        return "it does not gather rows"
    if any(value is weight for i, value in enumerate(node.inputs) if i != READERS[node.op_type]):
        return "its weight is also another of its inputs"
    return None


def _channel_axis(node: ir.Node, transposed: bool) -> int:
    if node.op_type in ("Conv", "Gather"):
        return 0
    own = node.op_type == "Gemm" and node.attributes.get_int("transB", 0) != 0
    first = own != transposed
    return 0 if first else 1


def _fits_nbits(node: ir.Node, outputs: int) -> bool:
    if node.op_type == "MatMul":
        return True
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    vector = bias is None or (
        roles.is_constant(bias) and bias.const_value is not None and tuple(bias.const_value.shape) == (outputs,)
    )
    plain = all(node.attributes.get_float(name, 1.0) == 1.0 for name in ("alpha", "beta"))
    return plain and vector and not node.attributes.get_int("transA", 0)


def _refuse_partly_read(outcomes: dict[ir.Node, str | _Reader]) -> None:
    """Turn away the readers of weights that somebody else reads in float; case 6."""
    readers: dict[ir.Value, list[_Reader]] = {}
    for outcome in outcomes.values():
        if isinstance(outcome, _Reader):
            readers.setdefault(outcome.weight, []).append(outcome)
    for weight, group in readers.items():
        known = {reader.node for reader in group} | {reader.direct for reader in group}
        other = next((node for node in _everybody(weight, known) if node not in known), None)
        if other is not None:
            for reader in group:
                outcomes[reader.node] = f"its weight is also read by {other.name or other.op_type}, which stays float"


def _everybody(weight: ir.Value, known: set[ir.Node]) -> Iterator[ir.Node]:
    for node in weight.consumers():
        yield node
        if node in known and node.op_type == "Transpose":
            yield from node.outputs[0].consumers()


class _Writer:
    """Puts stored weights into a model; the same weight in the same form is stored once."""

    def __init__(self, editor: Editor, accuracy_level: int, solved: Mapping[str, Blocks]) -> None:
        self.editor = editor
        self.solved = solved
        self.accuracy_level = accuracy_level
        self.stored: dict[tuple[ir.Value, Storage], dict[str, ir.Value]] = {}

    def write(self, reader: _Reader, storage: Storage) -> None:
        forms: dict[Form, Callable[[_Reader, Storage, dict[str, ir.Value]], None]] = {
            "dequantize": self._dequantize,
            "nbits": self._nbits,
            "rows": self._rows,
        }
        forms[storage.form](reader, storage, self._parts(reader.weight, storage))

    def _parts(self, weight: ir.Value, storage: Storage) -> dict[str, ir.Value]:
        key = (weight, replace(storage, form="dequantize") if storage.form == "rows" else storage)
        if key not in self.stored:
            assert weight.const_value is not None
            self.stored[key] = {
                part: self.editor.constant(tensor, f"{weight.name}/{part}")
                for part, tensor in store(weight.const_value, storage, self.solved.get(weight.name or "")).items()
            }
        return self.stored[key]

    def _dequantize(self, reader: _Reader, storage: Storage, parts: dict[str, ir.Value]) -> None:
        node = reader.direct
        index = 0 if reader.transpose is not None else READERS[node.op_type]
        if node.inputs[index] is not reader.weight:
            return  # another reader of the same Transpose was here
        attributes = {"axis": storage.axis}
        if storage.block_size is not None:
            attributes = {"axis": 1 - storage.axis, "block_size": storage.block_size}
        inputs = [parts["quantized"], parts["scale"]]
        if "zero_point" in parts:
            inputs.append(parts["zero_point"])
        made = self.editor.insert("DequantizeLinear", inputs, attributes, before=node, like=reader.weight)
        self.editor.set_input(node, index, made.outputs[0])

    def _nbits(self, reader: _Reader, storage: Storage, parts: dict[str, ir.Value]) -> None:
        node, weight = reader.node, reader.weight
        assert weight.const_value is not None
        outputs, inputs = (int(weight.const_value.shape[i]) for i in (storage.axis, 1 - storage.axis))  # type: ignore[arg-type]
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        new: list[ir.Value | None] = [parts["quantized"], parts["scale"], parts.get("zero_point"), None, bias]
        while new[-1] is None:
            new.pop()
        if bias is not None:
            node.replace_input_with(2, None)
        for index, value in enumerate(new, start=1):
            self.editor.set_input(node, index, value)
        node.op_type, node.domain, node.version = "MatMulNBits", "com.microsoft", None
        for name in list(node.attributes):
            self.editor.set_attribute(node, name, None)
        attributes: dict[str, Any] = {"K": inputs, "N": outputs, "bits": storage.bits}
        attributes["block_size"] = storage.block_size
        if self.accuracy_level:
            attributes["accuracy_level"] = self.accuracy_level
        for name, number in attributes.items():
            self.editor.set_attribute(node, name, number)
        self.editor.model.graph.opset_imports.setdefault("com.microsoft", 1)

    def _rows(self, reader: _Reader, storage: Storage, parts: dict[str, ir.Value]) -> None:
        node, insert = reader.node, self.editor.insert
        out, name = node.outputs[0], node.name
        rows = insert("Gather", [parts["quantized"], node.inputs[1]], {"axis": 0}, before=node, like=out)
        rows.outputs[0].type = ir.TensorType(ir.DataType.INT8)
        real = insert("Cast", [rows.outputs[0]], {"to": int(ir.DataType.FLOAT)}, before=node, like=out)
        scales = insert("Gather", [parts["scale"], node.inputs[1]], {"axis": 0}, before=node, stem=f"{out.name}/scale")
        scales.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        last = self.editor.constant(np.array([-1], np.int64), "last_axis")
        column = insert("Unsqueeze", [scales.outputs[0], last], before=node, stem=f"{out.name}/scale")
        column.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        product = insert("Mul", [real.outputs[0], column.outputs[0]], before=node, like=out).outputs[0]
        label = out.name
        self.editor.replace(out, product)
        product.name, rows.name = label, name
