"""Which inner values of a student and its teacher stand for the same thing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np
import onnx_ir as ir

from onnxcompress.calibration.taps import computed_values

NORMALIZATIONS = ("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization", "SkipLayerNormalization")
ACTIVATIONS = (
    "Relu", "LeakyRelu", "PRelu", "Clip", "HardSwish", "Swish", "Gelu", "Elu", "Selu", "Mish", "Softplus", "Tanh",
    "Sigmoid", "HardSigmoid",
)  # fmt: skip
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
MOST_ENDS = 16
"""Values that are compared at most: each one is held until the backward pass."""

ALIKE = 0.2
"""A weight of which 80 % were pruned at random has a cosine of 0.45 with what it was."""

Shapes = Mapping[str, tuple[int, ...]]
Pair = tuple[str, str]


def block_ends(model: ir.Model) -> list[str]:
    """The values where one block ends and the next begins, in graph order.

    1. Residual sums: Adds of two values that were computed by different layers; where a normalization alone reads
       the sum, what the normalization gives.
    2. With fewer than two of those: results of activations after a weighted node.

    Values of the main graph that depend on its inputs, its outputs left out.
    """
    computed = computed_values(model.graph)
    outputs = {value.name for value in model.graph.outputs}
    sums = [_end_of(node) for node in model.graph if _is_residual(node, computed)]
    ends = [value for value in sums if value.name not in outputs]
    if len(ends) < 2:
        ends = [
            node.outputs[0] for node in model.graph
            if node.op_type in ACTIVATIONS and _after_weight(node, computed) and node.outputs[0].name not in outputs
        ]  # fmt: skip
    position = {name: index for index, name in enumerate(computed)}
    return sorted({value.name for value in ends if value.name in computed and value.name}, key=position.__getitem__)


def match(
    student: ir.Model, teacher: ir.Model, student_shapes: Shapes, teacher_shapes: Shapes, most: int | None = MOST_ENDS
) -> list[Pair]:
    """Pairs of block ends, the student's first, in its graph order; at most `most`, spread evenly.

    Only values of equal shape are paired.

    1. By readers, if the student was cut out of its teacher (its weights are like those of the same names there):
       the two are read by nodes of the same name and operator. Where layers were dropped, what comes before them
       learns to do their work too. It counts only if the pairs keep the teacher's order, the student's last end is
       paired with the teacher's last, and at least half of the student's ends are paired.
    2. Else by position: within each run of ends of one shape, the student's k-th of n with the teacher's
       round(k m / n)-th of m (the last with the last).

    Args:
        student_shapes, teacher_shapes: of block ends, on the same feed.
    """
    ends = [name for name in block_ends(student) if name in student_shapes]
    wanted = [name for name in block_ends(teacher) if name in teacher_shapes]
    pairs: list[Pair] = []
    if _is_cut_out(student, teacher):
        pairs = _by_readers(student, teacher, ends, wanted, student_shapes, teacher_shapes)
    pairs = pairs or _by_position(ends, wanted, student_shapes, teacher_shapes)
    if most is None or len(pairs) <= most:
        return pairs
    return [pairs[round((index + 1) * len(pairs) / most) - 1] for index in range(most)]


def _is_cut_out(student: ir.Model, teacher: ir.Model) -> bool:
    """Are weights of the same name and shape alike (median cosine at least ALIKE), as far as there are any?

    A network of its own may have the teacher's names by chance; its weights then have cosines of about 0.
    """
    cosines = []
    for name, value in student.graph.initializers.items():
        other = teacher.graph.initializers.get(name)
        one, two = value.const_value, None if other is None else other.const_value
        if one is None or two is None or one.dtype != ir.DataType.FLOAT or one.dtype != two.dtype:
            continue
        if len(one.shape) >= 2 and one.size > 1 and tuple(one.shape) == tuple(two.shape):
            a, b = (tensor.numpy().reshape(-1).astype(np.float64) for tensor in (one, two))
            norm = float(np.linalg.norm(a) * np.linalg.norm(b))
            cosines.append(float(a @ b) / norm if norm else 0.0)
    return not cosines or float(np.median(cosines)) >= ALIKE


def _by_readers(
    student: ir.Model, teacher: ir.Model, ends: Sequence[str], wanted: Sequence[str], shapes: Shapes, others: Shapes
) -> list[Pair]:
    readers = {key: name for name in wanted for key in _readers(teacher, name)}
    pairs = []
    for name in ends:
        found = [readers[key] for key in _readers(student, name) if key in readers]
        fitting = [other for other in found if shapes[name] == others[other]]
        if fitting:
            pairs.append((name, max(fitting, key=wanted.index)))
    order = [wanted.index(other) for _, other in pairs]
    last = bool(pairs) and pairs[-1] == (ends[-1], wanted[-1])
    fits = last and order == sorted(set(order)) and 2 * len(pairs) >= len(ends)
    return pairs if fits else []


def _readers(model: ir.Model, name: str) -> set[tuple[str, str]]:
    """Names and operators of the nodes that read a value, quantizers left out; an unnamed node is no sign."""
    found, left = set(), [computed_values(model.graph)[name]]
    while left:
        for use in left.pop().uses():
            if use.node.op_type in QUANTIZERS:
                left.append(use.node.outputs[0])
            elif use.node.name:
                found.add((use.node.name, use.node.op_type))
    return found


def _by_position(ends: Sequence[str], wanted: Sequence[str], shapes: Shapes, others: Shapes) -> list[Pair]:
    runs = [(shape, list(names)) for shape, names in groupby(ends, key=shapes.__getitem__)]
    left = [(shape, list(names)) for shape, names in groupby(wanted, key=others.__getitem__)]
    pairs: list[Pair] = []
    for shape, names in runs:
        place = next((index for index, (other, _) in enumerate(left) if other == shape), None)
        if place is None:
            continue
        candidates = left[place][1]
        left = left[place + 1 :]
        share = len(candidates) / len(names)
        places = [max(1, int((k + 1) * share + 0.5)) - 1 for k in range(len(names))]
        pairs += [(name, candidates[at]) for name, at in zip(names, places, strict=True)]
    return pairs


def _is_residual(node: ir.Node, computed: Mapping[str, ir.Value]) -> bool:
    """An Add of two values that come from different nodes with constants, one of them a weighted node.

    So neither the sum of scores and a mask, nor a polynomial of one value (a GELU in parts), nor a sum of embeddings.
    """
    if node.op_type != "Add" or not all(value is not None and value.name in computed for value in node.inputs):
        return False
    one, other = (_sources(value, computed) for value in node.inputs if value is not None)
    return bool(one and other) and one != other and any(source.op_type in WEIGHTED for source in one | other)


def _sources(value: ir.Value, computed: Mapping[str, ir.Value]) -> set[ir.Node]:
    """The nearest nodes with constants of their own that a value was computed from: weighted ones, embeddings,
    normalizations."""
    found: set[ir.Node] = set()
    seen: set[ir.Value] = set()
    left = [value]
    while left:
        current = left.pop()
        node = current.producer()
        if node is None or current in seen:
            continue
        seen.add(current)
        inner = [other for other in node.inputs if other is not None and other.name in computed]
        if node.op_type in NORMALIZATIONS or (node.op_type in (*WEIGHTED, "Gather") and len(inner) == 1):
            found.add(node)
        else:
            left += inner
    return found


def _end_of(node: ir.Node) -> ir.Value:
    """The sum, or what the normalization gives that alone reads it (through quantizers)."""
    value = node.outputs[0]
    readers = {use.node for use in value.uses()}
    while len(readers) == 1 and next(iter(readers)).op_type in QUANTIZERS:
        value = next(iter(readers)).outputs[0]
        readers = {use.node for use in value.uses()}
    if len(readers) == 1 and next(iter(readers)).op_type in NORMALIZATIONS:
        return next(iter(readers)).outputs[0]
    return node.outputs[0]


def _after_weight(node: ir.Node, computed: Mapping[str, ir.Value]) -> bool:
    value = node.inputs[0]
    producer = None if value is None else value.producer()
    while producer is not None and producer.op_type in (*QUANTIZERS, "BatchNormalization", "Add"):
        following = [v for v in producer.inputs if v is not None and v.name in computed]
        producer = following[0].producer() if following else None
    return producer is not None and producer.op_type in WEIGHTED
