"""What an operator of the domain `onnxcompress` is, apart from its kernels: signature, reference and function body."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir

DOMAIN = "onnxcompress"
VERSION = 1

Array = np.ndarray[Any, Any]
AttributeValue = int | float | str | tuple[int, ...] | tuple[float, ...]
Attributes = Mapping[str, AttributeValue]


@dataclass(frozen=True)
class Port:
    """An input or an output.

    Attributes:
        name: as in the schema.
        types: element types in ONNX's spelling: "uint8", "int8", "float", "int64", ...
        optional: may be left out.
        variadic: stands for one or more; the last input only.
        constant: an input that must be an initializer.
    """

    name: str
    types: tuple[str, ...]
    optional: bool = False
    variadic: bool = False
    constant: bool = False


def parameters(name: str, optional: bool = False) -> tuple[Port, Port]:
    """The constant scale and zero point of a quantized tensor: float [] and uint8 []."""
    return (
        Port(f"{name}_scale", ("float",), optional, constant=True),
        Port(f"{name}_zero_point", ("uint8",), optional, constant=True),
    )


TABLE = Port("table", ("uint8",), optional=True, constant=True)
"""uint8 [256] that is applied to a quantized result, or to an input, element by element."""


@dataclass(frozen=True)
class Variant:
    """One way to use an operator, for which a function body is written.

    Attributes:
        inputs: name of each input given -> its element type ("uint8", ...). Variadic ones are called name_0, name_1.
        shapes: shapes of the constant inputs given, and of others where they are known.
        outputs: names of the outputs that are wanted.
        attributes: all of the operator's, defaults filled in.
        opset: of the model's standard domain.
        sizes: last dimensions of the inputs given, where they are known.
    """

    inputs: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    outputs: tuple[str, ...]
    attributes: Attributes
    opset: int
    sizes: Mapping[str, int] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        """Is this input given?"""
        return name in self.inputs


Reference = Callable[..., tuple[Array | None, ...]]
Body = Callable[[Variant], str]


@dataclass(frozen=True)
class Op:
    """An operator.

    Attributes:
        name: its type.
        inputs, outputs: its signature.
        attributes: name -> default value.
        reference: reference(attributes, *inputs) gives the outputs (None: not defined for these inputs), with numpy.
            Inputs that are left out are None. All outputs are computed that the inputs allow.
        body: the nodes of the function body, in the syntax of onnx.parser, for one variant. Formal names are those of
            the ports. Attribute values are written out. Standard operators only.
        doc: what it computes.
    """

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    reference: Reference
    body: Body
    attributes: Attributes = field(default_factory=dict)
    doc: str = ""

    def names(self, count: int) -> list[str]:
        """Formal names of `count` actual inputs."""
        named = [port.name for port in self.inputs if not port.variadic]
        return named[:count] + [f"{self.inputs[-1].name}_{i}" for i in range(count - len(named))]

    def variant(self, node: ir.Node, opset: int) -> Variant:
        """How a node uses the operator."""
        names = self.names(len(node.inputs))
        given = {name: value for name, value in zip(names, node.inputs, strict=True) if value is not None}
        types = {name: _type_name(value) for name, value in given.items()}
        shapes = {name: _fixed_shape(value) for name, value in given.items()}
        wanted = tuple(
            port.name for port, value in zip(self.outputs, node.outputs, strict=False) if value.name or value.uses()
        )
        attributes = dict(self.attributes)
        attributes |= {name: _attribute_value(attribute) for name, attribute in node.attributes.items()}
        known = {name: shape for name, shape in shapes.items() if shape is not None}
        lasts = {name: value.shape[-1] for name, value in given.items() if value.shape}
        sizes = {name: size for name, size in lasts.items() if isinstance(size, int)}
        return Variant(types, known, wanted, attributes, opset, sizes)

    def function(self, variant: Variant) -> ir.Function:
        """The body as a model-local function. Its overload tells variants apart.

        Raises:
            onnx.parser.ParseError: the body's text is wrong.
        """
        formal = ", ".join(self._formal(variant))
        produced = self._produced(variant)
        outputs = ", ".join(port.name for port in produced)
        text = self.body(variant).strip()
        for port in produced:
            if port.name not in variant.outputs:  # every formal output must be computed; this one nobody reads
                text += f"\n{port.name} = Constant <value_float = 0.0> ()"
        header = f'<domain: "{DOMAIN}", opset_import: ["" : {variant.opset}]>'
        proto = onnx.parser.parse_function(f"{header}\n{self.name} ({formal}) => ({outputs})\n{{\n{text}\n}}")
        proto.attribute.extend(self.attributes)
        proto.overload = hashlib.sha256(f"{formal}\n{text}".encode()).hexdigest()[:12]
        return ir.serde.deserialize_function(proto)

    def _produced(self, variant: Variant) -> tuple[Port, ...]:
        """Outputs of the function: up to the last one wanted, as a runtime refuses more than the node has."""
        last = max((i for i, port in enumerate(self.outputs) if port.name in variant.outputs), default=0)
        return self.outputs[: last + 1]

    def _formal(self, variant: Variant) -> list[str]:
        """Inputs of the function: all that precede the last given one, so that positions are those of the node."""
        variadic = [name for name in variant.inputs if name not in {port.name for port in self.inputs}]
        named = [port.name for port in self.inputs if not port.variadic]
        if variadic:
            return named + variadic
        last = max((i for i, name in enumerate(named) if variant.has(name)), default=-1)
        return named[: last + 1]


def _type_name(value: ir.Value) -> str:
    dtype = value.dtype if value.dtype is not None else None
    if dtype is None and value.const_value is not None:
        dtype = value.const_value.dtype
    if dtype is None:
        raise ValueError(f"the element type of {value.name} is not known")
    return dtype.name.lower()


def _fixed_shape(value: ir.Value) -> tuple[int, ...] | None:
    shape = value.const_value.shape if value.const_value is not None else value.shape
    if shape is None or not all(isinstance(d, int) for d in shape):
        return None
    return tuple(d for d in shape if isinstance(d, int))


def _attribute_value(attribute: ir.Attr) -> AttributeValue:
    value = attribute.value
    return tuple(value) if isinstance(value, (list, tuple)) else value
