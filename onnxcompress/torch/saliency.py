"""Saliency by gradients: what removing each weight does to the model's outputs, not only to its own layer's.

No labels are needed. A loss against the model's own outputs has no gradient at the model itself, so what is
differentiated is the outputs, each scaled to a mean square of 1 (so that large outputs do not drown small ones).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
import torch

from onnxcompress.data import DataSet
from onnxcompress.errors import DataError
from onnxcompress.progress import Progress, silent
from onnxcompress.torch.module import OnnxModule

Array = np.ndarray[Any, Any]
Kind = Literal["taylor", "fisher"]


def gradient_saliency(
    model: ir.Model, data: DataSet, kind: Kind, *, seed: int = 0, progress: Progress = silent
) -> dict[str, Array]:
    """What removing each weight costs, by initializer: float32 of its shape, the mean over feeds.

    'fisher': w^2 E_v[(J^T v)^2] with J the outputs' derivatives and v random signs, one draw a feed: the expectation
    is w^2 diag(J^T J), the squared change of the outputs when the weight goes, to second order. It is the
    Gauss-Newton (for outputs read as Gaussians, the Fisher) diagonal of the squared error to the model's own outputs.

    'taylor': (w g)^2 with g the gradient of half the outputs' energy, |y|^2 / 2: how much of what the model puts out
    hangs on the weight, to first order (Molchanov et al., 2019, with the energy in the place of a labelled loss).

    Args:
        model: every float weight that `OnnxModule` makes a parameter of is measured.
        data: feeds; each is one step forward and back.
        seed: of the signs.

    Raises:
        DataError: no feeds, a feed that does not fit, or no output that depends on a weight.
        ModelError: the model has an operator without a torch form.
    """
    module = OnnxModule(model)
    parameters = {name: module.parameter_of(name) for name in module.weight_names}
    totals = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    random = torch.Generator().manual_seed(seed)
    count = 0
    for feed in data:
        module.zero_grad(set_to_none=True)
        _objective(module(feed), kind, random).backward()
        with torch.no_grad():
            for name, parameter in parameters.items():
                if parameter.grad is not None:
                    totals[name] += (parameter * parameter.grad) ** 2
        count += 1
        progress(f"{kind} saliency", count, None)
    if not count:
        raise DataError(f"{data.name}: no feeds; saliency needs at least one")
    return {name: (total / count).numpy().astype(np.float32) for name, total in totals.items()}


def _objective(outputs: Sequence[torch.Tensor], kind: Kind, random: torch.Generator) -> torch.Tensor:
    """The number whose gradient is taken."""
    parts = []
    for output in outputs:
        if not output.is_floating_point() or not output.requires_grad or not output.numel():
            continue
        size = output.detach().square().mean().sqrt()
        y = output / torch.where(size > 0, size, torch.ones_like(size))
        if kind == "taylor":
            parts.append(y.square().sum() / 2)
        else:
            signs = torch.randint(0, 2, y.shape, generator=random).to(y) * 2 - 1
            parts.append((y * signs).sum())
    if not parts:
        raise DataError("no float output depends on a weight: there is nothing to differentiate")
    return torch.stack(parts).sum()
