"""Zeros that stay: a pruned weight's zeros are its mask."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from onnxcompress.distillation.matching import QUANTIZERS, WEIGHTED
from onnxcompress.torch import OnnxModule

Array = np.ndarray[Any, Any]

PRUNED_SHARE = 0.01
"""A float weight with at least this share of exact zeros was pruned."""

PRUNED_SHARE_QUANTIZED = 0.25
"""The same of an int8 weight, where small weights become zero by rounding alone (a few per cent)."""


@dataclass(frozen=True)
class Gradual:
    """Pruning while training.

    Attributes:
        masks_at: `masks_at(step, weight)` is called before step 0, 1, ... `until`, and gives masks (True: kept) by
            initializer, or None where they stay what they were; `weight(name)` is the array as it is now.
        until: the step from which the masks stay; only states after it count as results.
        name: what it does; a run is gone on with by one of the same name.
    """

    masks_at: Callable[[int, Callable[[str], Array]], Mapping[str, Array] | None]
    until: int
    name: str = ""


def zero_masks(model: ir.Model, module: OnnxModule) -> dict[str, Tensor]:
    """Masks by initializer (True: kept) of the weights that were pruned.

    1. The weight is read by a Conv, ConvTranspose, Gemm or MatMul, as it is or through quantizers.
    2. A float weight has PRUNED_SHARE of zeros; one of 8 bits PRUNED_SHARE_QUANTIZED. Narrower ones have many zeros
       by rounding, so none of theirs is a mask.
    """
    masks = {}
    for name in dict.fromkeys(_weights(model)):
        if name not in module.weight_names:
            continue
        tensor = model.graph.initializers[name].const_value
        assert tensor is not None
        bits = tensor.dtype.itemsize * 8
        least = PRUNED_SHARE if tensor.dtype.is_floating_point() else PRUNED_SHARE_QUANTIZED
        kept = module.weight(name).detach() != 0
        if bits >= 8 and 1 - kept.double().mean().item() >= least:
            masks[name] = kept
    return masks


def _weights(model: ir.Model) -> list[str]:
    found: list[str] = []
    for node in model.graph.all_nodes():
        if node.op_type not in WEIGHTED or len(node.inputs) < 2:
            continue
        value = node.inputs[1]
        while value is not None and (producer := value.producer()) is not None and producer.op_type in QUANTIZERS:
            value = producer.inputs[0]
        if value is not None and value.name and value.name in model.graph.initializers:
            found.append(value.name)
    return found


def set_masks(module: OnnxModule, masks: Mapping[str, Array | Tensor]) -> dict[str, Tensor]:
    """Put masks on a module's weights; gives them as tensors."""
    tensors = {name: torch.as_tensor(mask).to(torch.bool) for name, mask in masks.items()}
    for name, mask in tensors.items():
        module.set_mask(name, mask)
    return tensors
