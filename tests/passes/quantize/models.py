"""Building small models from text, and running them in two independent ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx.reference
import onnx_ir as ir
from onnx import numpy_helper

from onnxcompress.passes.quantize import Decision, Scheme, plan_quantization
from onnxcompress.runtime import open_session
from onnxcompress.runtime.session import run

Array = np.ndarray[Any, Any]
Feed = dict[str, Array]

HEADER = '<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>\n'


def build(text: str, weights: Mapping[str, Array] | None = None, *, check: bool = True) -> ir.Model:
    """A model of a graph as text; its initializers are given apart. Checked, and its shapes inferred."""
    proto = onnx.parser.parse_model(HEADER + text)
    for name, array in (weights or {}).items():
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    if check:
        onnx.checker.check_model(proto)
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> Array:
    """float32 normal numbers."""
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def execute(model: ir.Model, feed: Feed, *, optimize: bool = False) -> list[Array]:
    """Outputs in ONNX Runtime; as the graph is written unless `optimize`."""
    return run(open_session(model, threads=1, optimize=optimize), feed)


def reference(model: ir.Model, feed: Feed) -> list[Array]:
    """Outputs in onnx's ReferenceEvaluator."""
    return list(onnx.reference.ReferenceEvaluator(ir.to_proto(model)).run(None, feed))


def observe(model: ir.Model, feed: Feed, names: list[str]) -> dict[str, Array]:
    """Tensors of the main graph for one feed."""
    known = {value.name: value for value in model.graph.inputs}
    inner = [name for name in names if name not in known]
    proto = ir.to_proto(model)
    present = {output.name for output in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner if name not in present)
    session = open_session(ir.from_proto(proto), threads=1, optimize=False)
    return {name: feed[name] for name in names if name in known} | dict(
        zip(inner, session.run(inner, feed) if inner else [], strict=True)
    )


def min_max(model: ir.Model, scheme: Scheme, feed: Feed) -> dict[str, tuple[float, float]]:
    """The ranges that `InsertQDQ` needs, of one feed."""
    tensors = observe(model, feed, list(dict.fromkeys(plan_quantization(model, scheme).observed)))
    return {name: (float(array.min()), float(array.max())) for name, array in tensors.items()}


def ops(model: ir.Model) -> list[str]:
    """Operators of the main graph, in order."""
    return [node.op_type for node in model.graph]


def node_named(model: ir.Model, name: str) -> ir.Node:
    return next(node for node in model.graph if node.name == name)


def decision(decisions: list[Decision], name: str) -> tuple[bool, str]:
    """What was decided about a node, and why; there is exactly one decision."""
    (found,) = (d for d in decisions if d.name == name)
    return found.quantized, found.reason


def relative(actual: Array, expected: Array) -> float:
    """Norm of the difference over the norm."""
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))
