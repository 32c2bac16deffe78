"""How the time of `optimize` grows with the nodes: `python tests/bench/optimize_scale.py [NODES ...]`.

The graph is a long chain of blocks, each with a convolution and its BatchNormalization, a hard swish written
out, a matrix product with a bias, no-ops, constants in nodes, and shape arithmetic.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import onnx_ir as ir

from onnxcompress.optimizer import optimize
from onnxcompress.passes.simplify import count_nodes

CHANNELS, WIDTH = 4, 8
BLOCK_NODES = 20
"""Nodes of a block, Constant nodes counted."""


class Builder:
    """Grows a chain of blocks; the value flows as [batch, 4, 8]."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(0)
        self.nodes: list[ir.Node] = []
        self.constants: list[ir.Value] = []

    def node(self, op_type: str, *inputs: ir.Value | None, **attributes: object) -> ir.Value:
        node = ir.node(op_type, list(inputs), attributes)  # type: ignore[arg-type]
        node.name = f"n{len(self.nodes)}"
        node.outputs[0].name = f"v{len(self.nodes)}"
        self.nodes.append(node)
        return node.outputs[0]

    def weight(self, *shape: int) -> ir.Value:
        array = (self.random.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)
        name = f"w{len(self.constants)}"
        value = ir.Value(name=name, const_value=ir.tensor(array, name=name), shape=ir.Shape(shape))
        value.type = ir.TensorType(ir.DataType.FLOAT)
        self.constants.append(value)
        return value

    def constant(self, array: object, dtype: type = np.float32) -> ir.Value:
        return self.node("Constant", value=ir.tensor(np.array(array, dtype)))

    def block(self, x: ir.Value) -> ir.Value:
        c = CHANNELS
        y = self.node("Conv", x, self.weight(c, c, 3), pads=[1, 1], kernel_shape=[3])
        ones = [self.weight(c) for _ in range(3)]
        variance = self.weight(c)
        variance.const_value = ir.tensor(np.ones(c, np.float32), name=variance.name)
        y = self.node("BatchNormalization", y, *ones, variance)
        gate = self.node("Clip", self.node("Add", y, self.constant(3)), self.constant(0), self.constant(6))
        y = self.node("Div", self.node("Mul", y, gate), self.constant(6))
        y = self.node("Identity", y)
        y = self.node("Add", self.node("MatMul", y, self.weight(WIDTH, WIDTH)), self.weight(WIDTH))
        batch = self.node("Gather", self.node("Shape", y), self.constant([0], np.int64), axis=0)
        shape = self.node("Concat", batch, self.constant([c, WIDTH], np.int64), axis=0)
        y = self.node("Reshape", y, shape)
        return self.node("Tanh", self.node("Relu", y))


def synthetic(nodes: int) -> ir.Model:
    """A model of about `nodes` nodes, input x and output y: float32 [batch, 4, 8]."""
    builder = Builder()
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["batch", CHANNELS, WIDTH]))
    y = x
    while len(builder.nodes) < nodes:
        y = builder.block(y)
    y.name, y.type, y.shape = "y", x.type, ir.Shape(["batch", CHANNELS, WIDTH])
    graph = ir.Graph(
        [x],
        [y],
        nodes=builder.nodes,
        initializers=builder.constants,
        opset_imports={"": 15},
        name="synthetic",
    )
    return ir.Model(graph, ir_version=8)


def measure(nodes: int) -> tuple[float, int, int]:
    """Seconds that `optimize` takes, and the nodes before and after."""
    model = synthetic(nodes)
    before = count_nodes(model)
    start = time.perf_counter()
    result = optimize(model)
    return time.perf_counter() - start, before, count_nodes(result)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nodes", nargs="*", type=int, default=[5_000, 10_000, 50_000])
    for nodes in parser.parse_args().nodes:
        seconds, before, after = measure(nodes)
        print(f"{nodes:7d} nodes: {seconds:6.1f} s, {1e6 * seconds / nodes:5.0f} us a node; {before} -> {after} nodes")


if __name__ == "__main__":
    main()
