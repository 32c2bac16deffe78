"""Small convolution networks as text, quantized for our operators, and lowered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir

from onnxcompress.ops import DOMAIN
from onnxcompress.passes.lower.convolution import LowerConvolutions
from onnxcompress.passes.lower.functions import AttachFunctions
from onnxcompress.passes.quantize import Decision, InsertQDQ, Scheme
from onnxcompress.passes.simplify import InferShapes
from onnxcompress.runtime import open_session
from onnxcompress.runtime.session import run
from tests.passes.quantize.models import Array, Feed, build, min_max, normal, relative

NATIVE = Scheme(native=True)
IMAGE = {"x": normal(2, 16, 12, 12, seed=1)}
WEIGHTS = {
    "w": normal(16, 16, 3, 3, seed=3, scale=0.1),
    "v": normal(16, 16, 1, 1, seed=4, scale=0.3),
    "u": normal(16, 16, 1, 1, seed=14, scale=0.3),
    "d": normal(16, 1, 3, 3, seed=5, scale=0.4),
    "stem": normal(16, 3, 3, 3, seed=12, scale=0.3),
    "wide": normal(16, 32, 1, 1, seed=13, scale=0.2),
    "t": normal(16, 16, 2, 2, seed=6, scale=0.2),
    "s1": normal(4, 16, 1, 1, seed=7, scale=0.3),
    "s2": normal(16, 4, 1, 1, seed=8, scale=0.5),
    "b": normal(16, seed=9),
    "b1": normal(4, seed=10),
    "half": np.array([0.5], np.float32),
    "two": np.array(2, np.float32),
    "zero": np.array(0, np.float32),
    "six": np.array(6, np.float32),
    "none": np.array([], np.float32),
    "double": np.array([1, 1, 2, 2], np.float32),
    "uneven": np.array([1, 1, 1.5, 1.5], np.float32),
    "rest": np.array([0, -1]),
    "spatial": np.array([2, 3]),
    "fc": normal(16, 8, seed=11, scale=0.3),
}


@dataclass
class Result:
    """A network before and after lowering."""

    qdq: ir.Model
    lowered: ir.Model
    decisions: list[Decision] = field(default_factory=list)

    @property
    def ops(self) -> Counter[str]:
        """Our operators, by type."""
        return Counter(node.op_type for node in self.lowered.graph if node.domain == DOMAIN)

    @property
    def others(self) -> Counter[str]:
        """Standard operators that stay."""
        return Counter(node.op_type for node in self.lowered.graph if node.domain != DOMAIN)

    def node(self, op: str) -> ir.Node:
        """The one node of a type."""
        (found,) = (node for node in self.lowered.graph if node.op_type == op)
        return found

    def reason(self, name: str) -> str:
        """Why a node stays."""
        (found,) = (d for d in self.decisions if d.name == name and not d.quantized)
        return found.reason

    def outputs(self, feed: Feed = IMAGE, *, native: bool = False) -> tuple[list[Array], list[Array]]:
        """Of the QDQ graph as it is written, and of the lowered one by its function bodies or its kernels."""
        expected = run(open_session(self.qdq, threads=1, optimize=False, native=False), feed)
        return expected, run(open_session(self.lowered, threads=1, native=native), feed)


def network(body: str, signature: str = "(float[N, 16, H, W] x) => (float[N, 16, P, Q] y)") -> ir.Model:
    """A float model; names of WEIGHTS are its initializers. "Same" is a 3x3 convolution that keeps the size."""
    body = body.replace("Same (", "Conv <pads = [1, 1, 1, 1]> (")
    words = set(body.replace("(", " ").replace(")", " ").replace(",", " ").split())
    model = build(f"g {signature} {{ {body} }}", {n: a for n, a in WEIGHTS.items() if n in words})
    InferShapes()(model)
    for i, node in enumerate(model.graph):
        node.name = node.name or f"{node.op_type}_{i}"
    return model


def quantized(model: ir.Model, feed: Feed = IMAGE, scheme: Scheme = NATIVE) -> ir.Model:
    """Q and DQ placed for our operators, with the ranges of one feed."""
    copy = model.clone()
    InsertQDQ(min_max(model, scheme, feed), scheme)(copy)
    onnx.checker.check_model(ir.to_proto(copy), full_check=True)
    return copy


def lowered(model: ir.Model, exclude: Set[str] = frozenset(), *, hints: bool = False) -> Result:
    """A QDQ graph and its lowered copy, with function bodies; lowering twice changes nothing.

    Without `hints`, the bodies look tables up; with them they compute what the tables nearly are.
    """
    copy = model.clone()
    step = LowerConvolutions(exclude)
    step(copy)
    decisions = step.decisions
    if not exclude:
        assert not LowerConvolutions()(copy).modified
    for node in copy.graph:
        if not hints:
            node.attributes.pop("table_as", None)
    AttachFunctions()(copy)
    onnx.checker.check_model(ir.to_proto(copy))
    return Result(model, copy, decisions)


def lower(body: str, signature: str | None = None, feed: Feed = IMAGE) -> Result:
    """All of it."""
    model = network(body) if signature is None else network(body, signature)
    return lowered(quantized(model, feed))


def assert_close(result: Result, feed: Feed = IMAGE, *, tolerance: float = 2e-3, native: bool = False) -> None:
    """Norm of the difference over the norm: sums that ONNX Runtime's float convolution, which runs the QDQ graph as it
    is written, rounds to the other side now and then."""
    for expected, actual in zip(*result.outputs(feed, native=native), strict=True):
        assert expected.shape == actual.shape
        assert relative(actual, expected) <= tolerance
