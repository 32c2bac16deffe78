"""What is known about a value while a model is walked, and about a node once it was visited."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

Dim = int | str | None
Shape = tuple[Dim, ...]
Array = np.ndarray[Any, Any]


@dataclass(eq=False)
class Facts:
    """One value in one place where it is computed; compared by identity.

    A function called twice gives two `Facts` for each of its values.

    Attributes:
        name: as in the graph or function body.
        dtype: None where unknown, and for sequences, optionals and maps.
        shape: dimensions in elements; a str is a symbol, None unknown.
        data: the value itself, where it is small and does not depend on the model's inputs' contents.
        constant: it depends on no input of the model at all (a weight, or computed from weights).
        roots: the initializers and Constant outputs that a constant is computed from.
        source: the node that computes it; None for inputs and initializers.
        other: the type of what is not a tensor.
    """

    name: str
    dtype: ir.DataType | None = None
    shape: Shape | None = None
    data: Array | None = None
    constant: bool = False
    roots: tuple[ir.Value, ...] = ()
    source: Visit | None = None
    other: onnx.TypeProto | None = None

    @property
    def size(self) -> int | None:
        """Number of elements, or None."""
        return product(self.shape)

    @property
    def nbytes(self) -> int | None:
        """Bytes of the value, or None."""
        if self.size is None or self.dtype in (None, ir.DataType.STRING, ir.DataType.UNDEFINED):
            return None
        return math.ceil(self.size * self.dtype.itemsize)

    def type_proto(self) -> onnx.TypeProto | None:
        """The ONNX type; None where the element type is unknown."""
        if self.other is not None or self.dtype is None:
            return self.other
        proto = onnx.TypeProto()
        proto.tensor_type.elem_type = int(self.dtype)
        if self.shape is not None:
            proto.tensor_type.shape.SetInParent()
            for dim in self.shape:
                place = proto.tensor_type.shape.dim.add()
                if isinstance(dim, int):
                    place.dim_value = dim
                elif dim is not None:
                    place.dim_param = dim
        return proto


@dataclass(eq=False)
class Visit:
    """A node at one place where it is run.

    Attributes:
        scope: names of the nodes around it (If, Loop, Scan, function calls), outermost first.
        attributes: with references to the caller's attributes resolved.
        version: opset version of the node's domain.
        executions: times it is run in one run of the model, as far as that is known.
        counted: False in the branch of an If that is not taken, or is the cheaper of two.
        container: its own cost is that of the nodes inside it.
        macs: multiply-accumulates in one run of the model, all executions; None where unknown.
    """

    node: ir.Node
    name: str
    scope: tuple[str, ...]
    attributes: Mapping[str, ir.Attr]
    inputs: list[Facts | None]
    version: int = 1
    executions: int = 1
    counted: bool = True
    container: bool = False
    outputs: list[Facts] = field(default_factory=list)
    macs: int | None = 0

    @property
    def op(self) -> str:
        """`Conv`, or `com.microsoft::MatMulNBits` outside the standard domain."""
        domain = self.node.domain
        return self.node.op_type if domain in ("", "ai.onnx") else f"{domain}::{self.node.op_type}"

    def attribute(self, name: str, default: Any) -> Any:
        """Value of an attribute, or the default."""
        attribute = self.attributes.get(name)
        return default if attribute is None else attribute.value

    def input(self, index: int) -> Facts | None:
        """The input at an index; None if it is absent."""
        return self.inputs[index] if index < len(self.inputs) else None


def product(shape: Shape | None) -> int | None:
    """Product of dimensions; None unless all are known."""
    if shape is None:
        return None
    dims = [dim for dim in shape if isinstance(dim, int)]
    return math.prod(dims) if len(dims) == len(shape) else None


def type_name(dtype: ir.DataType | None) -> str | None:
    """`float`, `int8`: as ONNX's text format spells it."""
    return None if dtype is None else dtype.name.lower()


def common(a: Facts, b: Facts) -> Facts:
    """What holds for both values."""
    facts = Facts(a.name, a.dtype or b.dtype, other=a.other or b.other)
    if a.shape is not None and b.shape is not None and len(a.shape) == len(b.shape):
        facts.shape = tuple(x if x == y else None for x, y in zip(a.shape, b.shape, strict=True))
    return facts


def stack(facts: Facts, trips: int | None, axis: int) -> Facts:
    """What is known of a value stacked `trips` times along a new axis."""
    if facts.shape is None:
        return Facts(facts.name, facts.dtype)
    place = axis % (len(facts.shape) + 1)
    return Facts(facts.name, facts.dtype, (*facts.shape[:place], trips, *facts.shape[place:]))
