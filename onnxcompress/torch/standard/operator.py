"""What the table of operators holds, and what a builder sees of a node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir
import torch

from onnxcompress.errors import ModelError
from onnxcompress.torch.types import Types

Function = Callable[..., Any]
"""function(*inputs) -> a tensor, or a tuple of one for each output. Absent inputs are None."""


@dataclass(frozen=True)
class Call:
    """A node, as the builder of its operator sees it.

    Attributes:
        op, domain, name: of the node.
        version: of the operator set.
        attributes: plain values; tensors as torch tensors.
        given: which inputs there are; absent trailing ones are left out.
        kinds: their element types, None where they are not known.
        outputs: how many outputs the node has, and `wanted` which of them have a name.
        types: what the module computes in now.
    """

    op: str
    domain: str
    name: str
    version: int
    attributes: Mapping[str, Any]
    given: tuple[bool, ...]
    kinds: tuple[ir.DataType | None, ...]
    wanted: tuple[bool, ...]
    types: Types

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute."""
        return self.attributes.get(name, default)

    def has(self, index: int) -> bool:
        """Is this input given?"""
        return index < len(self.given) and self.given[index]

    def kind(self, index: int) -> ir.DataType | None:
        """The element type of an input."""
        return self.kinds[index] if self.has(index) else None

    @property
    def outputs(self) -> int:
        return len(self.wanted)

    def refusal(self, reason: str) -> ModelError:
        """The error that says why this node has no torch form."""
        domain = self.domain or "ai.onnx"
        return ModelError(f"node {self.name} ({domain}::{self.op}, version {self.version}): {reason}")


Builder = Callable[[Call], Function]


@dataclass(frozen=True)
class Integers:
    """An input of quantized weights: which inputs are its scale and zero point, and the axis they lie along."""

    scale: int
    zero_point: int | None
    axis: int


@dataclass(frozen=True)
class Operator:
    """How a node of one type becomes a function.

    Attributes:
        build: called once for each node, when the module is made.
        numbers: inputs that are read as plain numbers: shapes, axes, bounds. They stay on the host.
        fixed: further inputs that are never trained: statistics, quantization parameters.
        scales: those of `fixed` that are scales which may be learned.
        integers: inputs of quantized weights, which are trained as floats.
        weights: inputs where even a constant of one element is a weight, and not a number of a formula.
        elementwise: a formula over elements, in which constants of whole numbers are grids and strides.
        shapes: gives the shape of its input and nothing of its values.
    """

    build: Builder
    numbers: tuple[int, ...] = ()
    fixed: tuple[int, ...] = ()
    scales: tuple[int, ...] = ()
    integers: Mapping[int, Integers] = field(default_factory=dict)
    weights: tuple[int, ...] = ()
    elementwise: bool = False
    shapes: bool = False


Table = dict[str, Operator]


def plain(function: Function, **roles: Any) -> Operator:
    """An operator that is one function of its inputs, attributes aside."""
    return Operator(lambda call: function, **roles)


def numbers(tensor: torch.Tensor) -> list[Any]:
    """A tensor as a flat list of Python numbers."""
    result = tensor.tolist()
    return result if isinstance(result, list) else [result]


def number(tensor: torch.Tensor | None, default: Any = None) -> Any:
    """The number in a tensor of one element; the default for an absent one."""
    return default if tensor is None or not tensor.numel() else tensor.reshape(-1)[0].item()
