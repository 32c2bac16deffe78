"""Small models as text, and the comparison of two models in ONNX Runtime."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

Array = np.ndarray[Any, Any]


def parse(body: str, *, opset: int = 21, ir_version: int = 10, domains: str = "") -> ir.Model:
    """A model from the text of its graph: `g (float[2] x) => (float[2] y) { ... }`."""
    header = f'<ir_version: {ir_version}, opset_import: ["" : {opset}{domains}]>'
    return ir.from_proto(onnx.parser.parse_model(f"{header}\n{body}"))


def ops(model: ir.Model) -> Counter[str]:
    """How often each op occurs, in the main graph and subgraphs; Constant nodes not counted."""
    nodes = ir.traversal.RecursiveGraphIterator(model.graph)
    return Counter(node.op_type for node in nodes if node.op_type != "Constant")


def run(model: ir.Model, feeds: dict[str, Array], *, optimized: bool = False) -> list[Array]:
    """The outputs in stock ONNX Runtime; by default the graph runs as it is written."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    data = ir.to_proto(model).SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def random_feeds(model: ir.Model, *, free: int = 3, seed: int = 0) -> dict[str, Array]:
    """Normal floats, and integers 0 to 3; dynamic dimensions are `free`."""
    random = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for value in model.graph.inputs:
        assert value.shape is not None and value.dtype is not None and value.name is not None
        shape = [d if isinstance(d, int) else free for d in value.shape]
        dtype = value.dtype.numpy()
        if dtype.kind == "f":
            feeds[value.name] = random.standard_normal(shape).astype(dtype)
        else:
            feeds[value.name] = random.integers(0, 2 if dtype.kind == "b" else 4, shape).astype(dtype)
    return feeds


def distance(a: Array, b: Array) -> float:
    """The norm of the difference over the norm of the first; infinite for other shapes or types."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return float("inf")
    x, y = a.astype(np.float64), b.astype(np.float64)
    return float(np.linalg.norm(x - y) / max(float(np.linalg.norm(x)), 1e-30))


def assert_same(
    before: ir.Model, after: ir.Model, *, tolerance: float = 1e-6, free: tuple[int, ...] = (3, 1, 5)
) -> None:
    """Both models check, and give the same outputs, dynamic dimensions set to each of `free` in turn."""
    proto = ir.to_proto(after)
    onnx.checker.check_model(proto, full_check="com.microsoft" not in after.graph.opset_imports)
    assert [v.name for v in before.graph.inputs] == [v.name for v in after.graph.inputs]
    assert [v.name for v in before.graph.outputs] == [v.name for v in after.graph.outputs]
    for size in free:
        feeds = random_feeds(before, free=size)
        pairs = zip(run(before, feeds), run(after, feeds), strict=True)
        assert max(distance(a, b) for a, b in pairs) <= tolerance
