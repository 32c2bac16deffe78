"""What convolution networks are lowered to, before it is written: operators on uint8 tensors of the old graph."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcompress.passes.lower.convolution.tables import IDENTITY
from onnxcompress.passes.quantize.arithmetic import Parameters

Array = np.ndarray[Any, Any]
Table = bytes
"""256 bytes: a function of uint8 to uint8, comparable and hashable."""


class Refused(Exception):
    """Why a node is not lowered; its message is the reason."""


@dataclass(frozen=True)
class Operand:
    """A uint8 tensor that a step reads.

    Attributes:
        root: in the old graph.
        table: the function of it that is read; None: itself.
        given: what the bytes that are read mean.
        upsample: nearest upsampling that comes with reading.
        nodes: old nodes whose work `table` is.
        then: a further function, which the reader can apply itself (QConcat requantizes).
    """

    root: ir.Value
    table: Table | None
    given: Parameters
    upsample: int = 1
    nodes: tuple[ir.Node, ...] = ()
    then: Table | None = None


@dataclass(frozen=True)
class Result:
    """What a step writes.

    Attributes:
        value: of the old graph: uint8, or float where `given` is None.
        given: what its bytes mean.
        clip: a Relu or Clip before the rounding, as a function of the rounded bytes; None where saturation does it.
        nodes: the old nodes behind the core whose work is done here.
    """

    value: ir.Value
    given: Parameters | None
    clip: Table | None = None
    nodes: tuple[ir.Node, ...] = ()


@dataclass(eq=False)
class Step:
    """One operator to be written.

    Attributes:
        op: its type.
        core: the old node whose place it takes (the last one, of several).
        nodes: all old nodes that it replaces, but for element-wise ones in operands' tables.
        operands: by port: x, residual; a, b; x_0, x_1, ...
        result: what it writes.
        constants: further constant inputs, by port.
        attributes: of the operator.
    """

    op: str
    core: ir.Node
    nodes: list[ir.Node]
    operands: dict[str, Operand]
    result: Result
    constants: dict[str, Array] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)


def as_table(values: Array) -> Table | None:
    """The table, or None where it is the identity."""
    return None if np.array_equal(values, IDENTITY) else values.astype(np.uint8).tobytes()


def as_array(table: Table | None) -> Array:
    """uint8 [256]."""
    return IDENTITY if table is None else np.frombuffer(table, np.uint8)


def composed(first: Table | None, then: Table | None) -> Table | None:
    """then[first[q]]."""
    return as_table(as_array(then)[as_array(first)])


def constants_of(name: str, given: Parameters) -> dict[str, Array]:
    """The constant inputs NAME_scale and NAME_zero_point."""
    return {
        f"{name}_scale": np.array(given.scale, np.float32),
        f"{name}_zero_point": np.array(given.zero_point, np.uint8),
    }
