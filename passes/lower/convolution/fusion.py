"""Steps that become one: upsampling and residual sums inside their neighbours, squeeze-and-excite blocks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from onnxcompress.passes.lower.convolution.flow import Flow
from onnxcompress.passes.lower.convolution.steps import Operand, Step, as_array, composed, constants_of
from onnxcompress.passes.lower.convolution.tables import IDENTITY
from onnxcompress.passes.simplify.editor import attribute


def fuse(flow: Flow) -> None:
    """Make one step of several, wherever that can be done."""
    for rule in (_fuse_resize, _fuse_gate, _fuse_gate_residual, _fuse_residual):
        for step in list(flow.steps):
            if step in flow.steps:
                rule(step, flow)


def _fuse_resize(step: Step, flow: Flow) -> None:
    """A sum, product or concatenation reads a small tensor and upsamples it itself.

    1. The operand is written by a QResize of equal factors, which nobody else reads.
    2. In QElementwise it is the second operand, or may become it, and the first one is not upsampled too.
    """
    if step.op not in ("QElementwise", "QConcat"):
        return
    for port, operand in list(step.operands.items()):
        resize = flow.source(operand, "QResize")
        if resize is None or flow.only_reader(operand.root) is None or len(set(resize.attributes["scales"])) != 1:
            continue
        small = resize.operands["x"]
        table = composed(composed(small.table, resize.result.clip), operand.table)
        factor = int(resize.attributes["scales"][0])
        taken = replace(operand, root=small.root, table=table, upsample=factor, nodes=(*small.nodes, *operand.nodes))
        if step.op == "QElementwise":
            other = step.operands["b" if port == "a" else "a"]
            if other.upsample != 1 or (port == "a" and step.attributes["operation"] == "sub"):
                continue
            step.operands = {"a": other, "b": taken}
        else:
            step.operands[port] = taken
        _absorb(step, [resize], flow)


def _fuse_gate(step: Step, flow: Flow) -> None:
    """x * gate(w2 * activation(w1 * mean(x) + b1) + b2) is one step.

    1. A product of x and of what a 1x1 convolution writes, through Sigmoid or HardSigmoid and nothing else.
    2. That convolution reads another 1x1 convolution, through Relu, SiLU or HardSwish and nothing else.
    3. That one reads the mean of x over rows and columns; of x the same function is read twice.
    4. Nobody else reads what is between.
    """
    if step.op != "QElementwise" or step.attributes["operation"] != "mul" or step.result.clip is not None:
        return
    x, gate = step.operands["a"], step.operands["b"]
    second = _pointwise(gate, flow)
    first = None if second is None else _pointwise(second.operands["x"], flow)
    mean = None if first is None else flow.source(first.operands["x"], "QPool")
    if second is None or first is None or mean is None or mean.attributes["mode"] != "global_average":
        return
    if flow.only_reader(mean.result.value) is None or first.operands["x"].table is not None:
        return
    squeezed = mean.operands["x"]
    if (squeezed.root, squeezed.table, squeezed.given) != (x.root, x.table, x.given) or x.upsample != 1:
        return
    attributes = _gate_attributes(gate, second) | _activation_attributes(second.operands["x"], first)
    if len(attributes) != 4:
        return
    step.op, step.operands, step.attributes = "QSqueezeExcite", {"x": x}, attributes
    for number, conv in (("1", first), ("2", second)):
        weight = conv.constants["w"]
        step.constants[f"w{number}"] = weight.reshape(weight.shape[0], weight.shape[3])
        step.constants[f"w{number}_scale"] = conv.constants["w_scale"]
        if "bias" in conv.constants:
            step.constants[f"b{number}"] = conv.constants["bias"]
    step.nodes += [*second.operands["x"].nodes, *gate.nodes]
    _absorb(step, [mean, first, second], flow)


def _pointwise(operand: Operand, flow: Flow) -> Step | None:
    """The 1x1 convolution without padding or groups that alone writes an operand, for nobody else."""
    step = flow.source(operand, "QConv")
    if step is None or flow.only_reader(operand.root) is None or "residual" in step.operands:
        return None
    kernel = step.constants["w"].shape[1:3]
    plain = kernel == (1, 1) and not any(step.attributes["pads"]) and step.attributes["group"] == 1
    return step if plain and step.attributes["strides"] == (1, 1) else None


def _gate_attributes(operand: Operand, conv: Step) -> dict[str, Any]:
    """gate, alpha and beta; empty where the operand is no such function of the convolution's result."""
    nodes = operand.nodes
    if conv.result.clip is not None or conv.result.nodes or len(nodes) != 1:
        return {}
    node = nodes[0]
    if node.op_type == "Sigmoid":
        return {"gate": "sigmoid", "alpha": 1.0, "beta": 0.0}
    if node.op_type == "HardSigmoid":
        return {"gate": "hardsigmoid", "alpha": attribute(node, "alpha", 0.2), "beta": attribute(node, "beta", 0.5)}
    return {}


def _activation_attributes(operand: Operand, conv: Step) -> dict[str, Any]:
    """activation; empty where what stands between the two convolutions is none that the operator has."""
    nodes = (*conv.result.nodes, *operand.nodes)
    types = tuple(node.op_type for node in nodes)
    if types == ("Relu",):
        return {"activation": "relu"}
    if types == ("HardSwish",):
        return {"activation": "hardswish"}
    is_silu = types == ("Sigmoid", "Mul") and set(nodes[1].inputs) == {nodes[0].inputs[0], nodes[0].outputs[0]}
    if is_silu or (types == ("QuickGelu",) and attribute(nodes[0], "alpha", 1.702) == 1.0):
        return {"activation": "silu"}
    return {}


def _fuse_gate_residual(step: Step, flow: Flow) -> None:
    """x + x * gate is one step.

    1. A sum of x and of a QSqueezeExcite of the same function of x, which nobody else reads and no table follows.
    """
    if step.op != "QElementwise" or step.attributes["operation"] != "add" or step.result.clip is not None:
        return
    for port, other in (("a", "b"), ("b", "a")):
        gated = flow.source(step.operands[port], "QSqueezeExcite")
        x = step.operands[other]
        if gated is None or flow.only_reader(step.operands[port].root) is None or x.upsample != 1:
            continue
        inner = gated.operands["x"]
        plain = step.operands[port].table is None and step.operands[port].given == gated.result.given
        if not plain or (inner.root, inner.table, inner.given) != (x.root, x.table, x.given):
            continue
        step.op, step.operands, step.constants = "QSqueezeExcite", {"x": x}, gated.constants
        step.attributes = gated.attributes | {"residual": 1}
        _absorb(step, [gated], flow)
        return


def _fuse_residual(step: Step, flow: Flow) -> None:
    """conv + other is one step.

    1. A sum, of no upsampled operand, of what a convolution without a residual writes for nobody else.
    2. Where bytes are read as they are written, the convolution's own rounding is dropped (residual_after = 0).
    3. Where a function of them is read, that stays between (residual_after = 1), and the sum has no table.
    """
    if step.op != "QElementwise" or step.attributes["operation"] != "add":
        return
    for port, other in (("b", "a"), ("a", "b")):
        own, residual = step.operands[port], step.operands[other]
        conv = flow.source(own, "QConv")
        if conv is None or "residual" in conv.operands or flow.only_reader(own.root) is None:
            continue
        if own.upsample != 1 or residual.upsample != 1 or _is_gate(residual, step):
            continue
        table = composed(conv.result.clip, own.table)
        plain = table is None and own.given == conv.result.given
        if not plain and step.result.clip is not None:
            continue
        _become_convolution(step, conv, own, residual, None if plain else table or IDENTITY.tobytes())
        _absorb(step, [conv], flow)
        return


def _become_convolution(step: Step, conv: Step, own: Operand, residual: Operand, table: bytes | None) -> None:
    """`table`: between the convolution and the sum; None: nothing is."""
    assert conv.result.given is not None and step.result.given is not None
    step.op, step.operands = "QConv", {**conv.operands, "residual": residual}
    step.attributes, step.constants = dict(conv.attributes), dict(conv.constants)
    step.constants |= constants_of("inner", conv.result.given if table is None else own.given)
    if table is None:
        return
    step.attributes["residual_after"] = 1
    step.constants |= constants_of("y", conv.result.given) | constants_of("final", step.result.given)
    if table != IDENTITY.tobytes():
        step.constants["table"] = as_array(table)
    step.nodes += own.nodes


def _is_gate(operand: Operand, step: Step) -> bool:
    """Is the operand one number a channel, and the sum larger?"""
    shape, whole = operand.root.shape, step.core.outputs[0].shape
    if shape is None or whole is None:
        return True
    return list(shape)[2:] == [1, 1] and list(whole)[2:] != [1, 1]


def _absorb(step: Step, others: list[Step], flow: Flow) -> None:
    """The others' nodes are replaced by this step."""
    step.nodes = [*(node for other in others for node in other.nodes), *step.nodes]
    flow.drop(others)
