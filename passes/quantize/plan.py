"""Deciding where quantization goes: which nodes run in int8 and which tensors get a Q/DQ pair."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from onnxcompress.passes.quantize import roles
from onnxcompress.passes.quantize.affine import Affine, find_affine
from onnxcompress.passes.quantize.native import CONVOLUTIONS, NativePlacement
from onnxcompress.passes.quantize.roles import Decision
from onnxcompress.passes.quantize.scheme import Scheme


@dataclass
class Plan:
    """The outcome of planning; a value that other passes read.

    Attributes:
        compute: the Conv, Gemm and MatMul nodes that will run in int8, in graph order.
        followers: element-wise, pooling and data-movement nodes that run in int8 between them.
        tensors: the tensors that get a Q/DQ pair, by name.
        groups: tensor name to the name of its group; the tensors of a group share a scale and zero point.
        affines: tensor name to the scalar affine map that its pair takes over; the pair stands at the root.
        offsets: tensor name to the scalar affine map that makes it; its offset had better be a whole number of steps.
        limits: tensor name to the interval outside which its readers are constant, where placement has found it.
        decisions: what became of every node that could have been quantized, and why.
        native: placed for the operators of this project.
    """

    compute: list[ir.Node] = field(default_factory=list)
    followers: list[ir.Node] = field(default_factory=list)
    tensors: dict[str, ir.Value] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    affines: dict[str, Affine] = field(default_factory=dict)
    offsets: dict[str, Affine] = field(default_factory=dict)
    limits: dict[str, tuple[float, float]] = field(default_factory=dict)
    decisions: list[Decision] = field(default_factory=list)
    native: bool = False

    @property
    def observed(self) -> list[str]:
        """The tensors whose ranges are needed: the planned ones, and the roots of the maps taken over."""
        return [*self.tensors, *(affine.root.name or "" for affine in self.affines.values())]

    @property
    def quantized(self) -> list[ir.Node]:
        """All nodes that run in int8."""
        return [*self.compute, *self.followers]


def plan_quantization(model: ir.Model, scheme: Scheme) -> Plan:
    """Decide what runs in int8. Only the main graph is touched: subgraphs and functions stay float, and are said.

    The placement is the fused one: a pair around Conv + activation as a whole; MatMul by its inputs only (a
    pair on its output costs accuracy and gains nothing); the inputs and the output of a Concat, a pooling or a
    data movement share one scale.
    """
    plan = Plan()
    for node in model.graph:
        if node.domain in roles.STANDARD and (node.op_type in roles.COMPUTE or node.op_type in roles.NO_KERNEL):
            _decide_compute(node, scheme, plan)
    for graph in model.graphs():
        if graph is model.graph:
            continue
        for node in graph:
            if node.domain in roles.STANDARD and (node.op_type in roles.COMPUTE or node.op_type in roles.NO_KERNEL):
                plan.decisions.append(Decision(node.name or "", node.op_type, False, "it lies in a subgraph"))
    if scheme.native:
        _place_natively(model.graph, plan, scheme)
        return plan
    if scheme.elementwise:
        _extend(model.graph, plan, scheme)
        _share(plan)
        _absorb_affines(plan)
        _drop_idle_followers(plan)
    _share(plan)
    return plan


def _decide_compute(node: ir.Node, scheme: Scheme, plan: Plan) -> None:
    name = node.name or node.outputs[0].name or ""
    reason = roles.refusal(
        node, activation_matmuls=scheme.activation_matmuls, minimum_weights=scheme.minimum_weights, native=scheme.native
    )
    if reason is None and name in scheme.exclude:
        reason = "excluded"
    plan.decisions.append(Decision(name, node.op_type, reason is None, reason or "int8"))
    if reason is not None:
        return
    plan.compute.append(node)
    for value in node.inputs[: 2 if roles.weight_index(node) is None else 1]:
        assert value is not None
        _mark(plan, value)
    # ONNX Runtime's int8 Conv and Gemm write int8; its int8 MatMul writes float.
    if node.op_type == "Conv" and not scheme.native:
        _mark(plan, roles.fused_output(node))


def _mark(plan: Plan, value: ir.Value) -> None:
    assert value.name is not None
    plan.tensors[value.name] = value


def _place_natively(graph: ir.Graph, plan: Plan, scheme: Scheme) -> None:
    """Let the placement for our own operators say what else runs in int8; see `native`."""
    convolutions = [node for node in plan.compute if node.op_type in CONVOLUTIONS]
    placement = NativePlacement(graph, convolutions, lambda node: (node.name or "") in scheme.exclude)
    plan.native = True
    plan.followers += placement.cores
    plan.tensors |= placement.tensors
    plan.limits |= placement.limits
    _share(plan, placement.groups)
    sizes = Counter(plan.groups.values())
    for name, value in plan.tensors.items():
        affine = find_affine(value)
        if affine is not None and sizes[plan.groups[name]] == 1:
            plan.offsets[name] = affine


def _extend(graph: ir.Graph, plan: Plan, scheme: Scheme) -> None:
    """Let int8 flow through the nodes between quantized ones: one walk down the graph, one walk up.

    Down: a node joins when all its activations are quantized already. Up: a data movement joins when its output
    must be quantized anyway (its inputs then are instead), and so does an addition with one quantized operand.
    A node whose output is a graph output stays float: quantizing it would cost accuracy for nothing.
    """
    inside = {id(node) for node in plan.compute}
    candidates = [node for node in graph if id(node) not in inside and _can_follow(node, scheme)]
    for node in candidates:
        if all(value.name in plan.tensors for value in roles.activation_inputs(node)):
            inside.add(id(node))
            plan.followers.append(node)
            for out in node.outputs:
                _mark(plan, out)
    for node in reversed(candidates):
        if id(node) in inside or any(out.name not in plan.tensors for out in node.outputs):
            continue
        inputs = roles.activation_inputs(node)
        # Not a product: x * sigmoid(x) is faster in float than as two int8 kernels.
        half = node.op_type == "Add" and any(value.name in plan.tensors for value in inputs)
        if node.op_type in roles.SAME_RANGE or half or _is_channel_gate(node):
            inside.add(id(node))
            plan.followers.append(node)
            for value in inputs:
                _mark(plan, value)


def _is_channel_gate(node: ir.Node) -> bool:
    """Is this the product of a feature map with one number a channel (squeeze and excitation)?"""
    if node.op_type != "Mul" or any(value is None or value.shape is None for value in node.inputs):
        return False
    ones = [[d == 1 for d in value.shape[2:]] for value in node.inputs if value is not None and value.shape]
    return len(ones) == 2 and any(o and all(o) for o in ones) and not all(all(o) for o in ones)


def _absorb_affines(plan: Plan) -> None:
    """Let pairs take over scalar affine maps before them, where nobody else sees the values between."""
    inside = {id(node) for node in plan.quantized}
    sizes = Counter(plan.groups.values())
    for name, value in list(plan.tensors.items()):
        affine = find_affine(value)
        if affine is None or affine.root.name is None or value.is_graph_output():
            continue
        if any(id(user) not in inside for user in value.consumers()):
            continue
        if sizes[plan.groups[name]] > 1:
            continue
        plan.tensors.pop(affine.root.name, None)
        plan.affines[name] = affine


def _can_follow(node: ir.Node, scheme: Scheme) -> bool:
    if node.domain not in roles.STANDARD or (node.name or "") in scheme.exclude:
        return False
    if any(out.is_graph_output() or not roles.is_float(out) for out in node.outputs):
        return False
    if not roles.activation_inputs(node) or not all(map(roles.is_float, roles.activation_inputs(node))):
        return False
    if node.op_type in roles.ELEMENTWISE:
        return not any(roles.is_constant(value) for value in node.inputs)
    if node.op_type == "MaxPool":
        return len(node.outputs) == 1
    if node.op_type == "HardSwish":  # its gate is cut off at 0 by saturation, which symmetric types have not
        return scheme.activations != "s8"
    return node.op_type in roles.SAME_RANGE or node.op_type in roles.POOLING


def _drop_idle_followers(plan: Plan) -> None:
    """Take out followers whose outputs no quantized node reads: their int8 would be turned back at once."""
    inside = {id(node) for node in plan.quantized}
    roots = {affine.root.name for affine in plan.affines.values()}
    for node in reversed(plan.followers.copy()):
        if node.op_type in roles.ELEMENTWISE:
            continue  # reading two int8 tensors is cheaper than two float ones, whoever reads the sum
        if any(out.name in roots for out in node.outputs):
            continue
        if any(id(user) in inside for out in node.outputs for user in out.consumers()):
            continue
        inside.discard(id(node))
        plan.followers.remove(node)
        for out in node.outputs:
            assert out.name is not None
            if not any(id(user) in inside for user in out.consumers()):
                plan.tensors.pop(out.name, None)


def _share(plan: Plan, pairs: Iterable[tuple[str, str]] | None = None) -> None:
    """Union the tensors around data movements (or the `pairs` given) into groups (union-find with path halving)."""
    parent = {name: name for name in plan.tensors}

    def find(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for first, second in _moved(plan) if pairs is None else pairs:
        if first in parent and second in parent:
            parent[find(second)] = find(first)
    plan.groups = {name: find(name) for name in parent}


def _moved(plan: Plan) -> Iterator[tuple[str, str]]:
    """Pairs of tensors on the two sides of a data movement."""
    for node in plan.followers:
        if node.op_type in roles.SAME_RANGE:
            names = [value.name or "" for value in (*roles.activation_inputs(node), *node.outputs)]
            known = [name for name in names if name in plan.tensors]
            yield from ((known[0], name) for name in known[1:])


def group_ranges(plan: Plan, ranges: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """The range of every quantized tensor: the union over its group, cut where its readers saturate.

    Raises:
        KeyError: a tensor has no range.
    """
    joined: dict[str, tuple[float, float]] = {}
    for name, group in plan.groups.items():
        low, high = _cut(plan, name, *ranges[name])
        if group in joined:
            low, high = min(low, joined[group][0]), max(high, joined[group][1])
        joined[group] = (low, high)
    return {name: joined[group] for name, group in plan.groups.items()}


def _cut(plan: Plan, name: str, low: float, high: float) -> tuple[float, float]:
    """Cut a range to what its readers can tell apart, when all of them saturate."""
    if name in plan.limits:
        least, greatest = plan.limits[name]
        return max(low, least), min(high, greatest)
    bounds = list(_reader_bounds(plan.tensors[name]))
    if not bounds or None in bounds:
        return low, high
    least = min(bound[0] for bound in bounds if bound)
    greatest = max(bound[1] for bound in bounds if bound)
    return max(low, least), min(high, greatest)


def _reader_bounds(value: ir.Value) -> Iterator[tuple[float, float] | None]:
    if value.is_graph_output():
        yield None
    users = value.consumers()
    for node in users:
        gate = next((other for other in users if node.op_type == "Mul" and _gates(node, value, other)), None)
        if gate is None:
            yield roles.saturation(node)
        else:  # value * gate(value), as SiLU and HardSwish are: the gate is 0 below, the product grows above
            bounds = roles.saturation(gate)
            yield (bounds[0], math.inf) if bounds else None


def _gates(product: ir.Node, value: ir.Value, gate: ir.Node) -> bool:
    """Is `product` value * gate(value), with a gate that ends at 0 below?"""
    if gate.op_type not in ("HardSigmoid", "Sigmoid"):
        return False
    return value in product.inputs and gate.outputs[0] in product.inputs
