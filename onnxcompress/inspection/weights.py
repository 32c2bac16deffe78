"""Stored tensors: size, and zeros counted piece by piece, so that a model may be larger than memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnxcompress.errors import ModelError
from onnxcompress.inspection.facts import Array, Facts, Visit, type_name
from onnxcompress.inspection.native import is_body, is_native, is_parameter, matrix, named_inputs
from onnxcompress.inspection.operators import attribute_tensor
from onnxcompress.inspection.results import TensorReport, WeightStatistics

PIECE_BYTES = 16 << 20
PATTERN_LIMIT = 1 << 24
"""Tensors of more elements are not looked at for zero patterns: that needs them whole, and turned."""
PATTERN_LEAST = 0.2
"""Below this share of zeros there is no pattern worth looking for."""

NOT_WEIGHTS = {ir.DataType.INT64, ir.DataType.BOOL, ir.DataType.STRING}

ZERO_POINTS = {
    "DequantizeLinear": ((0, 2),),
    "com.microsoft::DequantizeLinear": ((0, 2),),
    "MatMulInteger": ((1, 3),),
    "ConvInteger": ((1, 3),),
    "QLinearConv": ((3, 5),),
    "QLinearMatMul": ((3, 5),),
    "com.microsoft::QGemm": ((3, 5),),
    "com.microsoft::MatMulIntegerToFloat": ((1, 5),),
    "com.microsoft::DynamicQuantizeMatMul": ((1, 3),),
    "com.microsoft::DynamicQuantizeLSTM": ((1, 9), (2, 11)),
}
"""By operator: indices of a quantized weight and of its zero point."""

SCALES = {
    "QuantizeLinear": (1, 2),
    "DequantizeLinear": (1, 2),
    "com.microsoft::QuantizeLinear": (1, 2),
    "com.microsoft::DequantizeLinear": (1, 2),
    "MatMulInteger": (2, 3),
    "ConvInteger": (2, 3),
    "QLinearConv": (1, 2, 4, 5, 6, 7),
    "QLinearMatMul": (1, 2, 4, 5, 6, 7),
    "com.microsoft::QGemm": (1, 2, 4, 5, 7, 8),
    "com.microsoft::QLinearAdd": (1, 2, 4, 5, 6, 7),
    "com.microsoft::QLinearMul": (1, 2, 4, 5, 6, 7),
    "com.microsoft::MatMulIntegerToFloat": (2, 3, 4, 5),
    "com.microsoft::DynamicQuantizeMatMul": (2, 3),
    "com.microsoft::DynamicQuantizeLSTM": (8, 9, 10, 11),
    "com.microsoft::MatMulNBits": (2, 3),
}
"""By operator: indices of scales and zero points, which are no parameters of the model."""


class Uses:
    """How weights are used: the number that stands for zero, and the matrix view of each.

    Attributes:
        packed: of weights that are not stored one by one: bits of each (0: those of the type, but zeros are left out)
            and their number.
    """

    def __init__(self, visits: Iterable[Visit]) -> None:
        self.zero: dict[ir.Value, int | None] = {}
        self.packed: dict[ir.Value, tuple[int, int]] = {}
        self.transposed: dict[ir.Value, bool] = {}
        self.convolution: set[ir.Value] = set()
        self.channels_last: set[ir.Value] = set()
        self.scales: set[ir.Value] = set()
        for visit in visits:
            self._read(visit)

    def elements(self, value: ir.Value, tensor: ir.TensorProtocol) -> int:
        """Parameters that a stored tensor holds; 0 for shapes, indices, scales and zero points."""
        if tensor.dtype in NOT_WEIGHTS or value in self.scales:
            return 0
        return self.packed.get(value, (0, tensor.size))[1]

    def _read(self, visit: Visit) -> None:
        if is_native(visit):
            self._read_native(visit)
            return
        for weight, zero_point in ZERO_POINTS.get(visit.op, ()):
            for root in _stored(visit.input(weight)):
                self.zero[root] = _uniform(visit.input(zero_point))
        for index in SCALES.get(visit.op, ()):
            self.scales.update(_stored(visit.input(index)))
        if visit.op == "com.microsoft::MatMulNBits":
            bits = int(visit.attribute("bits", 4))
            for root in _stored(visit.input(1)):
                self.packed[root] = (bits, int(visit.attribute("N", 0)) * int(visit.attribute("K", 0)))
                self.zero[root] = 1 << (bits - 1) if visit.input(3) is None else None
        op = visit.node.op_type
        facts = visit.input(3 if op in ("QLinearConv", "QLinearMatMul", "QGemm") else 1)
        for root in _same_shape(facts):
            if op in ("Conv", "ConvInteger", "QLinearConv", "FusedConv"):
                self.convolution.add(root)
            elif op in (
                "MatMul",
                "MatMulInteger",
                "QLinearMatMul",
                "MatMulIntegerToFloat",
                "DynamicQuantizeMatMul",
            ):
                self.transposed[root] = True
            elif op in ("Gemm", "QGemm"):
                self.transposed[root] = not visit.attribute("transB", 0)

    def _read_native(self, visit: Visit) -> None:
        op, whole = visit.node.op_type, matrix(visit)
        for name, facts in named_inputs(visit):
            for root in _stored(facts):
                if not is_parameter(op, name):
                    self.scales.add(root)
                elif op == "QLinear4" and name == "w" and whole is not None:
                    self.packed[root], self.zero[root] = (4, math.prod(whole)), 8
                elif op == "WeightOnlyLinear" and name == "w" and whole is not None:
                    bits = int(visit.attribute("bits", 4))
                    self.packed[root] = (bits, math.prod(whole))
                    zero_points = visit.input(3) is not None
                    self.zero[root] = None if zero_points else 1 << (bits - 1)
                elif name == "values" and whole is not None:
                    self.packed[root] = (0, math.prod(whole))
                elif name in ("w", "w1", "w2") and op in ("QConv", "QConvTranspose"):
                    self.channels_last.add(root)
                elif name in ("w", "w1", "w2"):
                    self.transposed[root] = False


def stored_tensors(model: ir.Model) -> Iterator[tuple[ir.Value, ir.TensorProtocol]]:
    """Every initializer and Constant value, of subgraphs and functions too."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value, value.const_value
    for owner in owners(model):
        for node in owner.all_nodes():
            if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
                tensor = attribute_tensor(node.attributes)
                if tensor is not None:
                    yield node.outputs[0], tensor


def owners(model: ir.Model) -> list[ir.Graph | ir.Function]:
    """The main graph and the functions: what holds nodes, subgraphs' included; not the bodies of our own operators."""
    return [model.graph, *(function for function in model.functions.values() if not is_body(function))]


def report_tensor(value: ir.Value, tensor: ir.TensorProtocol, uses: Uses) -> TensorReport:
    """Size and zeros of a tensor; at most 16 MB of one that is external are in memory at a time."""
    parameter = tensor.dtype not in NOT_WEIGHTS and value not in uses.scales
    bits, elements = uses.packed.get(value, (0, tensor.size))
    zero = uses.zero.get(value, 0)
    zeros: int | None = None
    groups: float | None = None
    blocks: float | None = None
    if parameter and zero is not None and bits in (0, 4, 8):
        zeros = _count_zeros(tensor, zero, bits)
        if bits and zeros is not None and elements < zeros:
            zeros = elements  # the padding of the last block holds zeros too
        elif not bits and value in uses.packed:
            zeros = max(elements - (tensor.size - zeros), 0)
        if zeros > PATTERN_LEAST * elements and tensor.size <= PATTERN_LIMIT and not bits:
            groups, blocks = _patterns(value, tensor, zero, uses)
    external = isinstance(tensor, ir.ExternalTensor)
    return TensorReport(
        value.name or "",
        type_name(tensor.dtype) or "",
        tuple(tensor.shape.numpy()),
        elements,
        tensor.nbytes,
        zeros,
        groups,
        blocks,
        str(tensor.location) if external else None,  # type: ignore[attr-defined]
        parameter,
    )


def weight_statistics(model: ir.Model, names: Iterable[str]) -> list[WeightStatistics]:
    """Smallest, largest, mean and standard deviation of stored tensors, in the model's order; empty ones left out."""
    wanted = set(names)
    return [
        _statistics(value.name or "", tensor)
        for value, tensor in stored_tensors(model)
        if value.name in wanted and tensor.size and tensor.dtype not in NOT_WEIGHTS
    ]


def _statistics(name: str, tensor: ir.TensorProtocol) -> WeightStatistics:
    low, high, total, squares, count = np.inf, -np.inf, 0.0, 0.0, 0
    for piece in pieces(tensor):
        numbers = piece.astype(np.float64)
        if tensor.dtype == ir.DataType.INT4:  # pieces are unsigned codes
            numbers = np.where(numbers > 7, numbers - 16, numbers)
        finite = numbers[np.isfinite(numbers)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
            total, squares, count = (
                total + float(finite.sum()),
                squares + float(finite @ finite),
                count + finite.size,
            )
    mean = total / count if count else np.nan
    std = max(squares / count - mean**2, 0.0) ** 0.5 if count else np.nan
    return WeightStatistics(name, low, high, mean, std, tensor.size - count)


def tensor_of(value: ir.Value) -> ir.TensorProtocol | None:
    """The tensor behind a root: an initializer's, or a Constant node's."""
    if value.const_value is not None:
        return value.const_value
    producer = value.producer()
    tensor: ir.TensorProtocol | None = None if producer is None else attribute_tensor(producer.attributes)
    return tensor


def pieces(tensor: ir.TensorProtocol) -> Iterator[Array]:
    """A tensor's elements, flat, in order; 4- and 2-bit ones as their unsigned codes, one a byte.

    External data is read from the file piece by piece: a map's pages would count as the process's memory.
    """
    bits = int(tensor.dtype.itemsize * 8)
    if not isinstance(tensor, ir.ExternalTensor):
        if bits >= 8:
            try:
                yield tensor.numpy().reshape(-1)
            except ValueError as error:
                raise ModelError(f"tensor {tensor.name!r} does not hold what its shape says: {error}") from error
        else:
            yield _codes(np.frombuffer(tensor.tobytes(), np.uint8), bits)[: tensor.size]
        return
    dtype = np.dtype(np.uint8) if bits < 8 else tensor.dtype.numpy()
    left, total = tensor.nbytes, tensor.size
    with open(Path(tensor.path), "rb") as stream:
        stream.seek(tensor.offset or 0)
        while left:
            part = stream.read(min(PIECE_BYTES, left))
            if not part or len(part) % dtype.itemsize:
                raise ModelError(f"{tensor.path}: ends before tensor {tensor.name!r} does")
            left -= len(part)
            array = np.frombuffer(part, dtype)
            if bits < 8:
                array = _codes(array, bits)[:total]
                total -= array.size
            yield array


def _count_zeros(tensor: ir.TensorProtocol, zero: int, packed_bits: int) -> int:
    bits = packed_bits or int(tensor.dtype.itemsize * 8)
    count = 0
    for piece in pieces(tensor):
        if packed_bits == 4:
            piece = _codes(piece, 4)
        # Codes are unsigned: -1 in 4 bits is 15.
        wanted = zero & ((1 << bits) - 1) if bits < 8 else zero
        count += piece.size - int(np.count_nonzero(piece if wanted == 0 else piece != piece.dtype.type(wanted)))
    return count


def _codes(array: Array, bits: int) -> Array:
    """Split bytes into codes of `bits` bits, lowest first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    return ((array[:, None] >> shifts) & np.uint8((1 << bits) - 1)).reshape(-1)


def _patterns(value: ir.Value, tensor: ir.TensorProtocol, zero: int, uses: Uses) -> tuple[float | None, float | None]:
    """Shares of 2:4 groups and of zero 4x4 blocks in the [outputs, inputs] view, channels innermost."""
    bits = int(tensor.dtype.itemsize * 8)
    shape = tuple(tensor.shape.numpy())
    images = value in uses.convolution or value in uses.channels_last
    if bits < 8 or not (images or (value in uses.transposed and len(shape) == 2)):
        return None, None
    flat = np.concatenate(list(pieces(tensor)))
    weight = flat.reshape(shape) == flat.dtype.type(zero)
    if value in uses.convolution:
        weight = np.moveaxis(weight, 1, -1).reshape(shape[0], -1)
    elif value in uses.channels_last:
        weight = weight.reshape(shape[0], -1)
    elif uses.transposed[value]:
        weight = weight.T
    rows, columns = (dim // 4 * 4 for dim in weight.shape)
    if not rows or not columns:
        return None, None
    groups = weight[:, :columns].reshape(weight.shape[0], -1, 4).sum(-1) >= 2
    blocks = weight[:rows, :columns].reshape(rows // 4, 4, columns // 4, 4).all(axis=(1, 3))
    return float(groups.mean()), float(blocks.mean())


def _same_shape(facts: Facts | None) -> list[ir.Value]:
    """The stored tensor that a weight is or is dequantized from (not its scale): the one of its shape."""
    if facts is None or not facts.constant or facts.shape is None or len(facts.shape) < 2:
        return []
    tensors = [(root, tensor_of(root)) for root in facts.roots]
    return [root for root, tensor in tensors if tensor is not None and tuple(tensor.shape.numpy()) == facts.shape]


def _stored(facts: Facts | None) -> tuple[ir.Value, ...]:
    """The tensor itself, if the input is one and is not computed."""
    return facts.roots if facts is not None and facts.source is None else ()


def _uniform(facts: Facts | None) -> int | None:
    """A zero point that is one number for the whole tensor; 0 where there is none."""
    if facts is None:
        return 0
    values = facts.data
    if values is None and len(facts.roots) == 1 and facts.source is None:
        tensor = tensor_of(facts.roots[0])
        values = None if tensor is None else tensor.numpy()
    if values is None or not values.size:
        return None
    numbers = np.unique(values.astype(np.int64))
    return int(numbers[0]) if numbers.size == 1 else None
