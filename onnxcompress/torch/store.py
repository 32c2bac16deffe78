"""The tensors of a module: weights, learned scales and constants, and how they are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import nn
from torch.nn.utils import parametrize

from onnxcompress.errors import ModelError
from onnxcompress.torch.constants import escaped
from onnxcompress.torch.facts import Facts
from onnxcompress.torch.quantization import Grid, dequantize, fake_quantize, integers, quantize
from onnxcompress.torch.standard import Function
from onnxcompress.torch.types import Types, to_numpy, to_torch
from onnxcompress.torch.weights import Weight

Array = np.ndarray[Any, Any]


class Mask(nn.Module):  # type: ignore[misc]
    """Keeps a weight zero where the mask is; `torch.nn.utils.parametrize` runs it whenever the weight is read."""

    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight * self.mask


@dataclass
class Store:
    """Reads and writes the tensors of a module.

    Attributes:
        weights: holds a parameter for each weight, by its escaped name; parametrized where it is masked or transformed.
        steps: holds a parameter for each learned scale: the scale is that of the model times exp(step).
        constants: holds the rest as buffers, once they are needed on the device.
    """

    facts: Facts
    weights: nn.Module
    steps: nn.Module
    constants: nn.Module
    types: Types

    def fill(self) -> None:
        """Make the parameters."""
        for name, weight in self.facts.weights.items():
            self.weights.register_parameter(escaped(name), nn.Parameter(self._initial(weight)))
        for name in self.facts.scales.learned:
            self.steps.register_parameter(escaped(name), nn.Parameter(torch.zeros_like(self.stored(name))))

    def _initial(self, weight: Weight) -> torch.Tensor:
        tensor = self.stored(weight.name)
        if weight.quantized is None:
            return tensor
        zero = weight.quantized.zero_point
        scale = self.stored(weight.quantized.scale)
        return dequantize(tensor, scale, None if zero is None else self.stored(zero), weight.quantized.grid)

    def stored(self, name: str) -> torch.Tensor:
        """A copy of a constant, as the model has it.

        Raises:
            ModelError: its type is one that torch has no tensors of.
        """
        try:
            return to_torch(self.facts.tensor(name))
        except KeyError:
            raise ModelError(f"{name}: torch has no tensors of type {self.facts.kind(name).name}") from None

    def load(self, name: str, on_host: bool) -> Function:
        """A function that gives a constant as it is now; as the model has it where it is read on the host."""
        key, scales = escaped(name), self.facts.scales
        weight = self.facts.weights.get(name)
        if weight is not None and weight.quantized is not None and weight.quantized.whole:
            return lambda: quantize(self._raw(name), *self._quantization(weight))
        if weight is not None:
            return lambda: self._raw(name)
        if name in scales.learned or name in scales.same or name in scales.products:
            return lambda: self.scale(name)
        if on_host:
            tensor = self.stored(name)
            return lambda: tensor
        self._buffer(name)
        buffers = self.constants._buffers
        return lambda: buffers[key]

    def _raw(self, name: str) -> torch.Tensor:
        """A weight through its transforms and its mask, before it is put on a grid."""
        key = escaped(name)
        parameter = self.weights._parameters.get(key)
        return getattr(self.weights, key) if parameter is None else parameter

    def _buffer(self, name: str) -> torch.Tensor:
        key = escaped(name)
        if key not in self.constants._buffers:
            tensor = self.stored(name).to(self.types.device, self.types.of(self.facts.kind(name)))
            self.constants.register_buffer(key, tensor, persistent=False)
        return self.constants._buffers[key]

    def scale(self, name: str) -> torch.Tensor:
        """The scale of a quantizer as it is now."""
        scales = self.facts.scales
        if name in scales.products:
            first, second = (self.scale(factor) for factor in scales.products[name])
            return (first * second).reshape(tuple(self.facts.tensor(name).shape))
        name = scales.same.get(name, name)
        step = self.steps._parameters.get(escaped(name))
        return self._buffer(name) if step is None else self._buffer(name) * torch.exp(step)

    def weight(self, name: str) -> torch.Tensor:
        """A weight as it is used now, or a learned scale."""
        if name in self.facts.scales.learned:
            return self.scale(name)
        weight, value = self.known(name), self._raw(name)
        return value if weight.quantized is None else fake_quantize(value, *self._quantization(weight))

    def _quantization(self, weight: Weight) -> tuple[torch.Tensor, torch.Tensor | None, Grid]:
        quantized = weight.quantized
        assert quantized is not None
        zero = None if quantized.zero_point is None else self._buffer(quantized.zero_point)
        return self.scale(quantized.scale), zero, quantized.grid

    def written(self, name: str) -> ir.TensorProtocol:
        """A weight or scale as the model stores it: floats, or the integers of its grid."""
        kind, weight = self.facts.kind(name), self.facts.weights.get(name)
        if weight is None:
            tensor = self.scale(name)
        elif weight.quantized is None:
            tensor = self.weight(name)
        else:
            tensor = integers(self._raw(name), *self._quantization(weight))
        return ir.Tensor(to_numpy(tensor, kind), name=name, dtype=kind)

    def parameter(self, name: str) -> nn.Parameter:
        """The parameter of a weight, before transforms and masks; of a learned scale, its step."""
        key = escaped(name)
        if name in self.facts.scales.learned:
            return self.steps._parameters[key]
        self.known(name)
        if parametrize.is_parametrized(self.weights, key):
            return self.weights.parametrizations[key].original
        return self.weights._parameters[key]

    def known(self, name: str) -> Weight:
        """What a weight is.

        Raises:
            ModelError: no such weight.
        """
        if name not in self.facts.weights:
            reason = "is not trained" if name in self.facts.constants else "is no initializer of the model"
            raise ModelError(f"{name} {reason}; `weight_names` lists the weights")
        return self.facts.weights[name]

    def set_mask(self, name: str, mask: torch.Tensor | Array) -> None:
        """Keep a weight zero where the mask is zero."""
        self.known(name)
        parameter = self.parameter(name)
        kept = torch.as_tensor(mask).to(parameter.device, torch.bool)
        if kept.shape != parameter.shape:
            raise ModelError(f"the mask of {name} has shape {list(kept.shape)}, the weight {list(parameter.shape)}")
        earlier = self._mask(name)
        if earlier is None:
            parametrize.register_parametrization(self.weights, escaped(name), Mask(kept.clone()))
        else:
            earlier.mask = kept.clone()

    def _mask(self, name: str) -> Mask | None:
        if not parametrize.is_parametrized(self.weights, escaped(name)):
            return None
        return next((m for m in self.weights.parametrizations[escaped(name)] if isinstance(m, Mask)), None)

    def add_transform(self, name: str, transform: nn.Module) -> None:
        """Read a weight through a module; the mask stays last."""
        self.known(name)
        mask = self._mask(name)
        try:
            parametrize.register_parametrization(self.weights, escaped(name), transform)
        except ValueError as error:
            raise ModelError(f"the transform of {name} must keep its shape and type ({error})") from error
        if mask is not None:
            chain = self.weights.parametrizations[escaped(name)]
            for i, module in enumerate([*(module for module in chain if module is not mask), mask]):
                chain[i] = module
