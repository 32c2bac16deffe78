"""Small networks, one for each way in which channels are coupled, and the reference that a cut is held to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from onnxcompress.passes.prune.channels import Group, PruneChannels
from onnxcompress.runtime import open_session
from onnxcompress.runtime.session import run
from tests.models import with_initializers

Array = np.ndarray[Any, Any]
Feed = dict[str, Array]

TOLERANCE = 1e-5
"""Norm of the difference over the norm."""


@dataclass(frozen=True)
class Network:
    """A graph as text, the shapes of its random weights, and the groups that are in it.

    Attributes:
        groups: name -> (kind, size, channels of a unit).
        constants: given arrays: shapes, slopes that must be positive.
    """

    text: str
    weights: Mapping[str, tuple[int, ...]]
    groups: Mapping[str, tuple[str, int, int]]
    constants: Mapping[str, Sequence[int] | Array] = field(default_factory=dict)
    opset: int = 21
    widths: bool = False

    def model(self, seed: int = 0) -> ir.Model:
        return build(self.text, self.weights, self.constants, opset=self.opset, seed=seed)


def build(
    text: str,
    weights: Mapping[str, tuple[int, ...]],
    constants: Mapping[str, Sequence[int] | Array] | None = None,
    *,
    opset: int = 21,
    seed: int = 0,
) -> ir.Model:
    """A checked model of a graph as text; random float32 weights, constants (plain numbers become int64)."""
    rng = np.random.default_rng(seed)
    arrays: dict[str, Array] = {
        name: (rng.uniform(0.5, 2, shape) if name.startswith("var") else rng.normal(0, 0.5, shape)).astype(np.float32)
        for name, shape in weights.items()
    }
    for name, value in (constants or {}).items():
        arrays[name] = value if isinstance(value, np.ndarray) else np.array(value, np.int64)
    model = ir.from_onnx_text(f'<ir_version: 10, opset_import: ["" : {opset}]>\ng {text}')
    model = with_initializers(model, arrays)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    return model


def feed_of(model: ir.Model, *, sizes: Mapping[str, int] | None = None, seed: int = 0) -> Feed:
    """Random inputs; integers are 0 or 1; open dimensions are 2, or as `sizes` says."""
    rng = np.random.default_rng(seed)
    feed: Feed = {}
    for value in model.graph.inputs:
        assert value.shape is not None and value.name is not None and value.dtype is not None
        shape = [d if isinstance(d, int) else (sizes or {}).get(str(d.value), 2) for d in value.shape]
        whole = value.dtype == ir.DataType.INT64
        feed[value.name] = rng.integers(0, 2, shape) if whole else rng.normal(0, 1, shape).astype(np.float32)
    return feed


def execute(model: ir.Model, feed: Feed) -> list[Array]:
    return run(open_session(model, threads=1, optimize=False), feed)


def masked(model: ir.Model, groups: Sequence[Group], keep: Mapping[str, Sequence[int]]) -> ir.Model:
    """The model with 0 in every constant of a unit that goes: what it gives to any reader is then 0."""
    result = model.clone()
    for group in groups:
        gone = np.setdiff1d(np.arange(group.size), keep.get(group.name, range(group.size)))
        for member in group.members:
            if member.op == "BatchNormalization" and member.initializer.startswith("var"):
                continue  # a variance of 0 would be divided by; scale and bias of 0 do it
            value = result.graph.initializers[member.initializer]
            assert value.const_value is not None
            array = value.const_value.numpy().copy()
            np.moveaxis(array, member.axis, 0)[np.isin(np.array(member.units), gone)] = 0
            value.const_value = ir.tensor(array, name=value.name)
    return result


def random_keep(groups: Sequence[Group], seed: int = 0, least: float = 0.2) -> dict[str, list[int]]:
    rng = np.random.default_rng(seed)
    counts = {group.name: max(1, int(group.size * rng.uniform(least, 1))) for group in groups}
    return {g.name: sorted(rng.choice(g.size, counts[g.name], replace=False).tolist()) for g in groups}


def cut(model: ir.Model, keep: Mapping[str, Sequence[int]], **options: Any) -> ir.Model:
    """A cut copy; checked, shapes inferred strictly."""
    result = model.clone()
    assert PruneChannels(keep, **options)(result).modified
    onnx.checker.check_model(ir.to_proto(result), full_check=True)
    return result


def relative(actual: Array, expected: Array) -> float:
    """Norm of the difference over the norm."""
    assert actual.shape == expected.shape
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def parameters(model: ir.Model) -> int:
    return sum(v.const_value.size for v in model.graph.initializers.values() if v.const_value is not None)
