"""What operators are timed on: one operator at one shape, and the same computation in float."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxcompress.ops import DOMAIN, OPS
from onnxcompress.ops.blocks import to_blocks
from onnxcompress.passes.lower.functions import AttachFunctions

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, npt.ArrayLike]
Step = tuple[str, Sequence[str], Mapping[str, Any]]

OPSET = 21


@dataclass(frozen=True)
class Workload:
    """One operator at one shape.

    Attributes:
        op: its type.
        label: the shape, for people.
        inputs: by name of the port.
        attributes: of the node.
        macs: multiply-accumulates of the dense operator.
        float_nodes: the same computation in float: (op type, inputs, attributes) one after another; "x" is the
            activation, other names are weights in `float_weights`, "" the result of the node before.
        float_x: the activation of the float computation.
        sparsity: share of the weight blocks that are zero.
        output: name of the output that is wanted.
    """

    op: str
    label: str
    inputs: Arrays
    attributes: Mapping[str, Any]
    macs: int
    float_nodes: Sequence[Step]
    float_weights: Arrays
    float_x: Array
    sparsity: float = 0.0
    output: str = "y"


def workloads() -> list[Callable[[], Workload]]:
    """What is timed: makers, since some hold many megabytes."""
    made: list[Callable[[], Workload]] = []
    for m, k, n in (
        (1, 768, 3072), (16, 384, 1536), (128, 384, 384), (128, 384, 1536), (128, 1536, 384), (512, 3072, 768),
    ):  # fmt: skip
        made.append(partial(linear, m, k, n))
        block = (16, 4) if m <= 16 else (4, 4)
        made += [partial(sparse_linear, m, k, n, sparsity, block) for sparsity in (0.5, 0.8, 0.9)]
    images = (
        (160, 16, 32, 1, 1, 1), (80, 96, 96, 1, 1, 1), (20, 384, 384, 1, 1, 1), (56, 64, 64, 3, 1, 1),
        (28, 128, 128, 3, 1, 1), (14, 256, 256, 3, 2, 1), (160, 48, 48, 3, 1, 48), (160, 48, 48, 3, 2, 48),
        (40, 192, 192, 5, 1, 192), (20, 384, 384, 5, 1, 384),
    )  # fmt: skip
    made += [partial(convolution, *image) for image in images]
    made += [partial(attention, 1, tokens, 12, 32) for tokens in (16, 128, 512)]
    return made


def linear(m: int, k: int, n: int) -> Workload:
    """A linear layer with a bias, u8 to u8."""
    rng = np.random.default_rng(0)
    w = rng.integers(-127, 128, (n, k)).astype(np.int8)
    return _linear("QLinear", f"{m}x{k}x{n}", m, w, {"w": w}, {}, 0.0)


def sparse_linear(m: int, k: int, n: int, sparsity: float, block: tuple[int, int]) -> Workload:
    """The same with random zero blocks (outputs x inputs)."""
    rng = np.random.default_rng(0)
    w = rng.integers(-127, 128, (n, k)).astype(np.int8)
    keep = rng.random((n // block[0], k // block[1])) >= sparsity
    w *= np.kron(keep, np.ones(block)).astype(np.int8)
    values, row_start, column = to_blocks(w, *block)
    stored = {"values": values, "row_start": row_start, "column": column}
    label = f"{m}x{k}x{n} {block[0]}x{block[1]}"
    return _linear("QSparseLinear", label, m, w, stored, {"in_features": k}, sparsity)


def _linear(
    op: str, label: str, m: int, w: Array, stored: Mapping[str, Array], attributes: Mapping[str, Any], sparsity: float
) -> Workload:
    rng = np.random.default_rng(1)
    n, k = w.shape
    inputs: Arrays = {
        "x": rng.integers(0, 256, (m, k)).astype(np.uint8), "x_scale": np.float32(0.02), "x_zero_point": np.uint8(128),
        **stored, "w_scale": np.full(n, 0.01, np.float32), "bias": np.zeros(n, np.float32),
        "y_scale": np.float32(1.0), "y_zero_point": np.uint8(128),
    }  # fmt: skip
    weights: Arrays = {"w": (w.T * np.float32(0.01)).astype(np.float32), "b": np.zeros(n, np.float32)}
    nodes: list[Step] = [("MatMul", ("x", "w"), {}), ("Add", ("", "b"), {})]
    x = rng.standard_normal((m, k)).astype(np.float32)
    return Workload(op, label, inputs, attributes, m * k * n, nodes, weights, x, sparsity)


def convolution(size: int, c_in: int, c_out: int, kernel: int, stride: int, group: int) -> Workload:
    """A convolution with "same" padding and a bias on size x size pixels, u8 to u8."""
    rng = np.random.default_rng(0)
    w = rng.integers(-127, 128, (c_out, kernel, kernel, c_in // group)).astype(np.int8)
    inputs: Arrays = {
        "x": rng.integers(0, 256, (1, size, size, c_in)).astype(np.uint8), "x_scale": np.float32(0.02),
        "x_zero_point": np.uint8(128), "w": w, "w_scale": np.full(c_out, 0.01, np.float32),
        "bias": np.zeros(c_out, np.float32), "y_scale": np.float32(1.0), "y_zero_point": np.uint8(128),
    }  # fmt: skip
    pads = (kernel // 2,) * 4
    attributes = {"strides": (stride, stride), "pads": pads, "group": group}
    weights: Arrays = {"w": (w.transpose(0, 3, 1, 2) * np.float32(0.01)).copy(), "b": np.zeros(c_out, np.float32)}
    out = math.ceil(size / stride)
    kind = "depthwise " if group == c_in else ""
    label = f"{kind}{size}x{size} {c_in}->{c_out} {kernel}x{kernel}/{stride}"
    macs = out * out * c_out * kernel * kernel * c_in // group
    x = rng.standard_normal((1, c_in, size, size)).astype(np.float32)
    nodes: list[Step] = [("Conv", ("x", "w", "b"), attributes)]
    return Workload("QConv", label, inputs, attributes, macs, nodes, weights, x)


def attention(batch: int, tokens: int, heads: int, size: int) -> Workload:
    """Self-attention without a mask; float: the operators between the projections."""
    rng = np.random.default_rng(0)
    c = heads * size
    inputs: Arrays = {
        "qkv": rng.integers(0, 256, (batch, tokens, 3 * c)).astype(np.uint8),
        "q_scale": np.full(heads, 0.02, np.float32), "k_scale": np.full(heads, 0.02, np.float32),
        "v_scale": np.full(c, 0.02, np.float32), "y_scale": np.float32(0.02), "y_zero_point": np.uint8(128),
    }  # fmt: skip
    weights: Arrays = {
        "split": np.array([batch, tokens, 3, heads, size]), "first": np.array(0), "second": np.array(1),
        "third": np.array(2), "root": np.float32(1 / math.sqrt(size)), "join": np.array([batch, tokens, c]),
    }  # fmt: skip
    nodes: list[Step] = [
        ("Reshape", ("x", "split"), {}),
        ("Transpose", ("",), {"perm": (2, 0, 3, 1, 4)}),
        ("Gather", ("@1", "first"), {"axis": 0}),
        ("Gather", ("@1", "second"), {"axis": 0}),
        ("Gather", ("@1", "third"), {"axis": 0}),
        ("Transpose", ("@3",), {"perm": (0, 1, 3, 2)}),
        ("MatMul", ("@2", "@5"), {}),
        ("Mul", ("", "root"), {}),
        ("Softmax", ("",), {"axis": -1}),
        ("MatMul", ("", "@4"), {}),
        ("Transpose", ("",), {"perm": (0, 2, 1, 3)}),
        ("Reshape", ("", "join"), {}),
    ]
    x = rng.standard_normal((batch, tokens, 3 * c)).astype(np.float32)
    macs = 2 * batch * heads * tokens * tokens * size
    label = f"{batch}x{tokens}, {heads} heads of {size}"
    return Workload("QAttention", label, inputs, {"num_heads": heads}, macs, nodes, weights, x)


def native_model(load: Workload) -> tuple[ir.Model, dict[str, Array]]:
    """One node, with its function body; constants are initializers."""
    op = OPS[load.op]
    values: list[ir.Value | None] = []
    feed = {}
    for port in op.inputs:
        x = load.inputs.get(port.name)
        if x is None:
            values.append(None)
            continue
        x = np.asarray(x)
        value = ir.Value(name=port.name, type=ir.TensorType(ir.DataType.from_numpy(x.dtype)), shape=ir.Shape(x.shape))
        if port.name in ("x", "qkv"):
            feed[port.name] = x
        else:
            value.const_value = ir.tensor(x, name=port.name)
        values.append(value)
    while values[-1] is None:
        values.pop()
    place = [port.name for port in op.outputs].index(load.output)
    types = op.outputs[place].types
    kind = (
        ir.DataType[types[0].upper()] if len(types) == 1 else ir.DataType.from_numpy(np.asarray(load.inputs["x"]).dtype)
    )
    output = ir.Value(name=load.output, type=ir.TensorType(kind))
    outputs = [*(ir.Value(name="") for _ in range(place)), output]
    node = ir.node(op.name, values, dict(load.attributes), domain=DOMAIN, outputs=outputs)
    model = _model([v for v in values if v is not None], output, [node])
    AttachFunctions()(model)
    return model, feed


def float_model(load: Workload) -> ir.Model:
    """The same computation by standard operators."""
    real = ir.TensorType(ir.DataType.from_numpy(load.float_x.dtype))
    x = ir.Value(name="x", type=real, shape=ir.Shape(load.float_x.shape))
    known = {"x": x}
    for name, array in load.float_weights.items():
        tensor = ir.tensor(np.asarray(array), name=name)
        shape = ir.Shape(np.shape(array))
        known[name] = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=shape, const_value=tensor)
    nodes: list[ir.Node] = []
    for i, (kind, names, attributes) in enumerate(load.float_nodes):
        inputs = [known[name] if name else nodes[-1].outputs[0] for name in names]
        nodes.append(ir.node(kind, inputs, dict(attributes)))
        nodes[-1].outputs[0].name = f"float_{i}"
        known[f"@{i}"] = nodes[-1].outputs[0]
    output = nodes[-1].outputs[0]
    output.type = real
    return _model([x, *(known[name] for name in load.float_weights)], output, nodes)


def _model(values: Sequence[ir.Value], output: ir.Value, nodes: Sequence[ir.Node]) -> ir.Model:
    graph = ir.Graph(
        [v for v in values if v.const_value is None], [output], nodes=nodes,
        initializers=[v for v in values if v.const_value is not None],
        opset_imports={"": OPSET, DOMAIN: 1}, name="workload",
    )  # fmt: skip
    return ir.Model(graph, ir_version=10)
