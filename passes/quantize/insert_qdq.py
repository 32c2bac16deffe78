"""Inserting QuantizeLinear / DequantizeLinear pairs where a plan says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcompress.passes.quantize import arithmetic, roles
from onnxcompress.passes.quantize.affine import affine_parameters, root_parameters
from onnxcompress.passes.quantize.arithmetic import Parameters
from onnxcompress.passes.quantize.offsets import whole_offsets
from onnxcompress.passes.quantize.plan import Plan, group_ranges, plan_quantization
from onnxcompress.passes.quantize.scheme import ACTIVATION_TYPES, Scheme

Array = np.ndarray[Any, Any]


class InsertQDQ(ir.passes.InPlacePass):
    """Static quantization of the main graph in the QDQ form.

    1. A planned tensor made by a quantized node: the pair stands right behind it and everybody reads the
       dequantized tensor, so that the node, its activation and the pair become one int8 kernel.
    2. A planned tensor made by a float node or fed in: only its quantized readers read the dequantized one.
    3. Weights become s8 initializers behind a DequantizeLinear, symmetric per output channel; a weight that
       several nodes read is quantized for each of them apart.
    4. A bias becomes an s32 initializer with scale (input scale * weight scale), zero point 0.
    5. A planned tensor that is a scalar affine image of another (`Plan.affines`): the pair stands at the other,
       and its Q and DQ differ in scale and zero point by the map, which so costs nothing (see `affine`).
    6. A planned HardSwish is written as int8 sum and product, x * clip(x + 3, 0, 6) / 6: saturation clips, and
       the division is a map as in 5.
    7. Placed for native operators: offsets behind activations become whole numbers of steps (see `offsets`).

    Args:
        ranges: (low, high) of every planned tensor, by name, in real units.
        scheme: types and exclusions.
        plan: made from this very model; None: made here.

    Raises:
        KeyError: a planned tensor has no range; its name is the message.
    """

    def __init__(self, ranges: Mapping[str, tuple[float, float]], scheme: Scheme, plan: Plan | None = None) -> None:
        super().__init__()
        self.ranges = ranges
        self.scheme = scheme
        self.plan = plan

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        plan = self.plan or plan_quantization(model, self.scheme)
        if not plan.compute:
            return ir.passes.PassResult(model, modified=False)
        ranges = group_ranges(plan, self.ranges)
        wide: set[str | None] = {
            value.name
            for node in plan.compute
            if (node.name or "") in self.scheme.wide
            for value in roles.activation_inputs(node)
        }
        known = whole_offsets(model, plan, ranges) if plan.native else {}
        pairs = _pairs(plan, ranges, self.ranges, wide, known, ACTIVATION_TYPES[self.scheme.activations])
        read = {pair.value.name or "": pair.read for pair in pairs}
        writer = _Writer(model.graph, plan)
        for node in plan.compute:
            writer.quantize_operands(node, read, self.scheme.weight_limit)
        pairs = [writer.expand_hard_swish(pair) for pair in pairs]
        for pair in pairs:
            writer.insert_pair(pair)
        _remove_unread(model.graph)
        return ir.passes.PassResult(model, modified=True)


@dataclass(frozen=True)
class _Pair:
    """A Q/DQ pair to be written: Q at `root` with `write`, DQ with `read` for those who read `value`."""

    value: ir.Value
    root: ir.Value
    write: Parameters
    read: Parameters


def _pairs(
    plan: Plan,
    ranges: Mapping[str, tuple[float, float]],
    observed: Mapping[str, tuple[float, float]],
    wide: set[str | None],
    known: Mapping[str, Parameters],
    dtype: ir.DataType,
) -> list[_Pair]:
    pairs = []
    for name, value in plan.tensors.items():
        own = ir.DataType.UINT16 if name in wide else dtype
        read = known.get(name) or arithmetic.parameters(*ranges[name], own)
        root = value
        affine = plan.affines.get(name)
        if affine is not None:
            taken_over = affine_parameters(*ranges[name], affine, own)
            if taken_over is None:  # its two ends get pairs of their own
                at_root = arithmetic.parameters(*observed[affine.root.name or ""], own)
                pairs.append(_Pair(affine.root, affine.root, at_root, at_root))
                affine = None
            else:
                read, root = taken_over, affine.root
        pairs.append(_Pair(value, root, root_parameters(read, affine) if affine else read, read))
    return pairs


class _Writer:
    """Writes pairs and quantized constants into a graph."""

    def __init__(self, graph: ir.Graph, plan: Plan) -> None:
        self.graph = graph
        self.inside = {id(node) for node in plan.quantized}
        # An activation that runs inside its Conv counts as that Conv's output.
        self.producers = set(self.inside)
        for node in plan.quantized:
            follower = roles.fused_output(node).producer()
            fuses = node.op_type not in ("Gemm", "MatMul") if plan.native else node.op_type == "Conv"
            if fuses and follower is not None:
                self.producers.add(id(follower))
        self.made: list[ir.Node] = []  # keeps new nodes alive, since `inside` knows nodes by identity
        self.parameters: dict[tuple[float, int, ir.DataType], tuple[ir.Value, ir.Value]] = {}

    def insert_pair(self, pair: _Pair) -> None:
        """Put a Q/DQ pair behind `pair.root`; cases 1 and 2 of `InsertQDQ`."""
        value, producer = pair.value, pair.root.producer()
        everybody = producer is not None and id(producer) in self.producers
        uses = [use for use in value.uses() if everybody or id(use.node) in self.inside]
        name = value.name
        assert name is not None
        quantize = ir.node("QuantizeLinear", [pair.root, *self._constants(pair.write)], name=f"{name}/quantize")
        quantized = quantize.outputs[0]
        quantized.name, quantized.dtype, quantized.shape = f"{name}/quantized", pair.read.dtype, value.shape
        dequantize = ir.node("DequantizeLinear", [quantized, *self._constants(pair.read)], name=f"{name}/dequantize")
        out = dequantize.outputs[0]
        out.name, out.dtype, out.shape = f"{name}/dequantized", ir.DataType.FLOAT, value.shape
        self._place(producer, [quantize, dequantize])
        for use in uses:
            if use.node is not quantize:
                use.node.replace_input_with(use.idx, out)
        if everybody and value.is_graph_output():
            self._hand_over_output(value, out)

    def expand_hard_swish(self, pair: _Pair) -> _Pair:
        """Write HardSwish as int8 kernels that ONNX Runtime has: x * clip(x + 3, 0, 6) / 6.

        The clip is the saturation of the sum's Q, the division by 6 a scale of the product's pair.
        """
        node = pair.root.producer()
        if node is None or node.op_type != "HardSwish" or id(node) not in self.inside:
            return pair
        x, y = node.inputs[0], node.outputs[0]
        assert x is not None and y.name is not None
        gate = arithmetic.parameters(0.0, 6.0, pair.read.dtype)
        three = self._initializer(f"{y.name}/three", gate.quantize(np.array(3.0, np.float32)))
        offset = ir.node("DequantizeLinear", [three, *self._constants(gate)], name=f"{y.name}/three/dequantize")
        total = ir.node("Add", [x, offset.outputs[0]], name=f"{y.name}/sum")
        product = ir.node("Mul", [x, total.outputs[0]], name=f"{y.name}/product")
        for made, label in ((offset, "three/dequantized"), (total, "sum"), (product, "product")):
            made.outputs[0].name, made.outputs[0].dtype = f"{y.name}/{label}", ir.DataType.FLOAT
        total.outputs[0].shape = product.outputs[0].shape = y.shape
        self.graph.insert_after(node, [offset, total, product])
        for made in (total, product):
            self.made.append(made)
            self.inside.add(id(made))
            self.producers.add(id(made))
        self.insert_pair(_Pair(total.outputs[0], total.outputs[0], gate, gate))
        write = replace(pair.write, scale=pair.write.scale * 6)
        return replace(pair, root=product.outputs[0], write=write)

    def quantize_operands(self, node: ir.Node, given: Mapping[str, Parameters], limit: int) -> None:
        """Quantize the weight and the bias of a compute node; cases 3 and 4 of `InsertQDQ`."""
        index = roles.weight_index(node)
        if index is None:
            return
        weight = node.inputs[index]
        assert weight is not None and weight.const_value is not None and node.inputs[0] is not None
        array = weight.const_value.numpy()
        axis = roles.channel_axis(node, array.ndim)
        scales = arithmetic.weight_scales(array, axis, limit)
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        activation_scale = given[node.inputs[0].name or ""].scale
        bias_array = None
        if bias is not None:
            assert bias.const_value is not None
            bias_array = bias.const_value.numpy().reshape(-1)
            scales = _wide_enough(scales, bias_array, activation_scale)
        quantized = arithmetic.quantize_weight(array, scales, axis, limit)
        self._replace_operand(node, index, weight, quantized, scales, axis)
        if bias is not None and bias_array is not None:
            bias_scales = (scales * np.float32(activation_scale)).astype(np.float32)
            integers = np.rint(bias_array.astype(np.float64) / bias_scales).astype(np.int32)
            self._replace_operand(node, 2, bias, integers, bias_scales, 0)

    def _replace_operand(
        self, node: ir.Node, index: int, value: ir.Value, integers: Array, scales: Array, axis: int
    ) -> None:
        name = f"{value.name}/{node.name or node.outputs[0].name}"
        stored = self._initializer(f"{name}/quantized", integers)
        scale = self._initializer(f"{name}/scale", scales)
        zero = self._initializer(f"{name}/zero_point", np.zeros(scales.shape, integers.dtype))
        dequantize = ir.node("DequantizeLinear", [stored, scale, zero], {"axis": axis}, name=f"{name}/dequantize")
        out = dequantize.outputs[0]
        out.name, out.dtype, out.shape = f"{name}/dequantized", ir.DataType.FLOAT, ir.Shape(integers.shape)
        self.graph.insert_before(node, dequantize)
        node.replace_input_with(index, out)

    def _constants(self, parameters: Parameters) -> tuple[ir.Value, ir.Value]:
        key = (parameters.scale, parameters.zero_point, parameters.dtype)
        if key not in self.parameters:
            number = len(self.parameters)
            scale = self._initializer(f"activation_scale_{number}", np.array(parameters.scale, np.float32))
            zero = self._initializer(
                f"activation_zero_point_{number}", np.array(parameters.zero_point, parameters.dtype.numpy())
            )
            self.parameters[key] = scale, zero
        return self.parameters[key]

    def _initializer(self, name: str, array: Array) -> ir.Value:
        while name in self.graph.initializers:
            name += "_"
        value = ir.Value(
            name=name, shape=ir.Shape(array.shape), type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
            const_value=ir.tensor(array, name=name),
        )  # fmt: skip
        self.graph.register_initializer(value)
        return value

    def _place(self, producer: ir.Node | None, nodes: list[ir.Node]) -> None:
        if producer is not None:
            self.graph.insert_after(producer, nodes)
        elif len(self.graph):
            self.graph.insert_before(self.graph[0], nodes)

    def _hand_over_output(self, value: ir.Value, out: ir.Value) -> None:
        """The dequantized tensor takes over the graph output and its name."""
        name = value.name
        value.name = f"{name}/float"
        out.name = name
        out.shape = value.shape
        for i, existing in enumerate(self.graph.outputs):
            if existing is value:
                self.graph.outputs[i] = out


def _wide_enough(scales: Array, bias: Array, activation_scale: float) -> Array:
    """Widen the scales of channels whose bias would not fit 31 bits (tiny weights under a large bias)."""
    least = np.abs(bias).astype(np.float64) / (activation_scale * 2.0**30)
    return np.maximum(scales, least.astype(np.float32))


def _remove_unread(graph: ir.Graph) -> None:
    """Drop the nodes whose work a pair took over, and the float constants that nobody reads any more."""
    for node in reversed(graph):
        if not any(out.uses() or out.is_graph_output() for out in node.outputs):
            graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
            del graph.initializers[name]
