"""An ONNX model as a torch module."""

from __future__ import annotations

import copy
import os
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from onnxcompress.errors import DataError, ModelError
from onnxcompress.model_io import clone_model, load_model
from onnxcompress.torch.calls import imports_of, kind_of
from onnxcompress.torch.constants import find_constants, put_tensor, tensor_of
from onnxcompress.torch.facts import Facts
from onnxcompress.torch.program import Program
from onnxcompress.torch.store import Store
from onnxcompress.torch.tape import Sources, Tape
from onnxcompress.torch.types import FLOATS, Types

Array = np.ndarray[Any, Any]
Feed = Mapping[str, torch.Tensor | Array]


class OnnxModule(nn.Module):  # type: ignore[misc]
    """An ONNX model as a torch module: the same computation, its weights as parameters, and a way back.

    Weights are parameters by the name of their initializer (`weights.find_weights` says which they are): one where
    several nodes read it. Integers under a DequantizeLinear, and those of operators that know their scale
    (MatMulIntegerToFloat, QLinearConv, ours), are trained as floats on their grid; pairs of QuantizeLinear and
    DequantizeLinear are fake quantization whose rounding lets gradients through. All else is constant: packed weights
    (MatMulNBits, QLinear4) and the integers of MatMulInteger and ConvInteger, whose scale stands elsewhere, too.
    `double`, `half` and `to(device)` convert the whole computation; shape arithmetic stays on the host.
    `copy.deepcopy` gives a module that can be trained apart.

    Args:
        model: a path, or a model, which is not changed and must not be.
        learn_scales: the scales of quantizers are learned too: scale * exp(step), with a step that starts at zero
            and LSQ's gradient (Esser et al., 2020). Zero points are not. The scale of a 32-bit bias follows those
            of its input and weight.
        freeze: names of initializers that stay what they are.

    Attributes:
        input_names, output_names: of the graph; inputs that are initializers too are left out.
        weight_names: initializers that are parameters.
        scale_names: scales that are learned.

    Raises:
        ModelError: the model cannot be read, or has a node that has no torch form: names it.
    """

    def __init__(
        self, model: ir.Model | str | os.PathLike[str], *, learn_scales: bool = False, freeze: Collection[str] = ()
    ) -> None:
        super().__init__()
        self._facts = Facts.of(load_model(model), learn_scales, freeze)
        self.weights, self.steps, self.constants, self.types = nn.Module(), nn.Module(), nn.Module(), Types()
        self._store = Store(self._facts, self.weights, self.steps, self.constants, self.types)
        graph, constants = self._facts.model.graph, set(self._facts.constants.values())
        self._inputs = {str(value.name): value.dtype for value in graph.inputs if value not in constants}
        self.input_names: tuple[str, ...] = tuple(self._inputs)
        self.output_names: tuple[str, ...] = tuple(str(value.name) for value in graph.outputs)
        self.weight_names: tuple[str, ...] = tuple(self._facts.weights)
        self.scale_names: tuple[str, ...] = tuple(self._facts.scales.learned)
        self._store.fill()
        self._compile()

    def forward(self, feed: Feed) -> tuple[torch.Tensor, ...]:
        """The outputs, in the graph's order.

        Args:
            feed: input name to tensor or array; converted to the input's type and the module's device. More than
                the inputs may be there.

        Raises:
            DataError: an input is missing.
            ModelError: a node cannot compute with this feed; names it.
        """
        results = self._program(self.output_names).run(self._tensors(feed))
        graph_outputs = self._facts.model.graph.outputs
        return tuple(self._finished(value, y) for value, y in zip(graph_outputs, results, strict=True))

    def values(self, feed: Feed, names: Collection[str]) -> dict[str, torch.Tensor]:
        """Any values of the main graph by name: inner ones, inputs, outputs, weights. Computes what they need only.

        Quantized values are floats that hold whole numbers.

        Raises:
            DataError: an input is missing.
            ModelError: no such value, or a node cannot compute with this feed.
        """
        wanted = tuple(dict.fromkeys(names))
        return dict(zip(wanted, self._program(wanted).run(self._tensors(feed)), strict=True))

    def weight(self, name: str) -> torch.Tensor:
        """A weight as it is used now: transformed, masked, on its grid. Of a learned scale: the scale.

        Raises:
            ModelError: no such weight.
        """
        return self._store.weight(name)

    def parameter_of(self, name: str) -> nn.Parameter:
        """The parameter of a weight, before transforms and masks; of a learned scale, its step.

        Raises:
            ModelError: no such weight.
        """
        return self._store.parameter(name)

    def set_mask(self, name: str, mask: torch.Tensor | Array) -> None:
        """Keep a weight zero where the mask is zero; takes the place of an earlier mask.

        Args:
            mask: bool (or 0 and 1), of the weight's shape.

        Raises:
            ModelError: no such weight, or another shape.
        """
        self._store.set_mask(name, mask)

    def add_transform(self, name: str, transform: nn.Module) -> None:
        """Read a weight through a module from now on; after earlier transforms, before the mask.

        Args:
            transform: takes the weight and gives a tensor of its shape and type. Its parameters become the module's.

        Raises:
            ModelError: no such weight, or the transform changes its shape or type.
        """
        self._store.add_transform(name, transform)

    def write_back(self, model: ir.Model | None = None) -> ir.Model:
        """A model with the weights as they are used now, and with learned scales.

        Args:
            model: takes them by name, and is given back; None: a copy of the model that the module was made from.

        Raises:
            ModelError: the model given lacks one of the weights, or has another type or shape for it.
        """
        target = clone_model(self._facts.model) if model is None else model
        constants, scales = find_constants(target), self._facts.scales
        with torch.no_grad():
            for name in (*self.weight_names, *scales.learned, *scales.same, *scales.products):
                tensor, value = self._store.written(name), constants.get(name)
                there = None if value is None else tensor_of(value)
                if value is None or there is None or _signature(there) != _signature(tensor):
                    raise ModelError(f"the model has no initializer {name} of the same type and shape to write back to")
                put_tensor(value, tensor)
        return target

    def __deepcopy__(self, memo: dict[int, Any]) -> OnnxModule:
        result = type(self).__new__(type(self))
        memo[id(self)] = result
        compiled = ("_tape", "_programs")
        own = {name: value for name, value in self.__dict__.items() if name not in compiled}
        result.__dict__.update(copy.deepcopy(own, memo))
        result._compile()
        return result

    def _compile(self) -> None:
        facts = self._facts
        names = {value: name for name, value in facts.constants.items()}
        imports = imports_of(facts.model)
        sources = Sources(names, facts.weights, self._store.load, facts.placement, imports, self.types)
        self._tape = Tape(facts.model.graph, sources)
        self._programs: dict[tuple[str, ...], Program] = {}
        self._program(self.output_names)

    def _program(self, names: tuple[str, ...]) -> Program:
        if names not in self._programs:
            self._programs[names] = self._tape.program([self._value(name) for name in names])
        return self._programs[names]

    def _value(self, name: str) -> ir.Value:
        graph = self._facts.model.graph
        if name in self._facts.constants:
            return self._facts.constants[name]
        for value in (*graph.inputs, *(output for node in graph for output in node.outputs)):
            if value.name == name:
                return value
        raise ModelError(f"the graph has no value {name!r}")

    def _tensors(self, feed: Feed) -> list[torch.Tensor]:
        missing = [name for name in self._inputs if name not in feed]
        if missing:
            raise DataError(f"the feed lacks the input {missing[0]!r}; it has {', '.join(sorted(feed)) or 'nothing'}")
        result = []
        for name, kind in self._inputs.items():
            given = feed[name]
            tensor = given if isinstance(given, torch.Tensor) else torch.from_numpy(np.array(given))
            result.append(tensor.to(self.types.device, tensor.dtype if kind is None else self.types.of(kind)))
        return result

    def _finished(self, value: ir.Value, result: torch.Tensor) -> torch.Tensor:
        """Whole floats as the integers that the graph declares."""
        kind = kind_of(value)
        if kind is None or kind in FLOATS or not result.is_floating_point():
            return result
        return result.to(self.types.of(kind))


def _signature(tensor: ir.TensorProtocol) -> tuple[ir.DataType, tuple[int, ...]]:
    return ir.DataType(tensor.dtype), tuple(d for d in tensor.shape if isinstance(d, int))
