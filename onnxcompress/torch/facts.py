"""What is found out about a model before it becomes a module."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from onnxcompress.errors import ModelError
from onnxcompress.passes.simplify import InlineFunctions
from onnxcompress.torch.constants import Constants, find_constants, tensor_of
from onnxcompress.torch.placement import Placement
from onnxcompress.torch.scales import Scales, find_scales
from onnxcompress.torch.weights import Weight, find_weights


@dataclass(frozen=True)
class Facts:
    """A model and what its constants are. Nothing changes it, so copies of a module share it.

    Attributes:
        model: without functions but those of our own operators.
        constants: by name.
        weights: those that are trained.
        scales: those of quantizers that are learned.
        placement: what is on the host.
    """

    model: ir.Model
    constants: Constants
    weights: dict[str, Weight]
    scales: Scales
    placement: Placement

    @classmethod
    def of(cls, model: ir.Model, learn_scales: bool, freeze: Collection[str]) -> Facts:
        """Of a model, which is not changed.

        Raises:
            ModelError: a name in `freeze` is no initializer.
        """
        if model.functions:
            model = model.clone()
            InlineFunctions()(model)
        constants = find_constants(model)
        unknown = sorted(set(freeze) - set(constants))
        if unknown:
            raise ModelError(f"freeze names {', '.join(unknown)}, which the model has no initializer of")
        placement = Placement(model, set(constants.values()))
        scales = find_scales(model, constants, freeze) if learn_scales else Scales()
        return cls(model, constants, find_weights(constants, placement, freeze), scales, placement)

    def tensor(self, name: str) -> ir.TensorProtocol:
        """The tensor of a constant, as the model has it."""
        tensor = tensor_of(self.constants[name])
        assert tensor is not None, name
        return tensor

    def kind(self, name: str) -> ir.DataType:
        """The element type of a constant."""
        return ir.DataType(self.tensor(name).dtype)

    def __deepcopy__(self, memo: dict[int, Any]) -> Facts:
        return self
