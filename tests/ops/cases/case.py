"""One use of an operator, on which all its forms must agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Case:
    """Inputs of an operator.

    Attributes:
        op: its type.
        name: what is special here.
        inputs: in order; None is left out. Inputs whose port is constant become initializers.
        attributes: of the node.
        outputs: names of the outputs that are wanted.
        steps: most difference of quantized outputs, in steps, and `share` of the elements that may differ at all.
        share: see steps.
        tolerance: of float outputs: greatest difference over the greatest magnitude of the reference.
        device_tolerance: the same as tolerance for kernels on a device, where they are coarser (default: tolerance).
        body_steps: the same as steps for the function body, where it rounds in other places (default: steps).
        constants: names of inputs that are initializers here, though their port allows computed ones too.
        skip: forms that are not tried, and why: "body", "reference_evaluator", "torch", "kernel" -> reason.
    """

    op: str
    name: str
    inputs: Sequence[Array | None]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    outputs: tuple[str, ...] = ("y",)
    steps: int = 1
    share: float = 0.01
    tolerance: float = 1e-5
    device_tolerance: float | None = None
    body_steps: int | None = None
    constants: tuple[str, ...] = ()
    skip: Mapping[str, str] = field(default_factory=dict)

    def on_device(self) -> Case:
        """The same with a device's tolerance."""
        return replace(self, tolerance=self.device_tolerance or self.tolerance)

    def __str__(self) -> str:
        return f"{self.op}-{self.name}".replace(" ", "-")
