"""What is done to models before a student is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from onnxcompress.data import DataSet, Feed
from onnxcompress.errors import DataError
from onnxcompress.optimizer import optimize
from onnxcompress.passes.quantize.detect import quantized_operators
from onnxcompress.torch import OnnxModule


def prepared(model: ir.Model) -> ir.Model:
    """Optimized to standard operators; a quantized model as it is, since its integers are what is trained."""
    return model.clone() if quantized_operators(model) else optimize(model, portable=True)


def first_feed(data: DataSet) -> Feed:
    """The first feed of a data set.

    Raises:
        DataError: there is none.
    """
    feed = next(iter(data), None)
    if feed is None:
        raise DataError(f"{data.name}: no feeds to train on")
    return feed


def frozen(module: OnnxModule, device: torch.device) -> OnnxModule:
    """The module on a device, with nothing to train."""
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    module.to(device)
    return module


def shared_tables(student: ir.Model, teacher: ir.Model | None) -> list[str]:
    """Embedding tables of the student that a table of the teacher equals: training sees few of their rows."""
    if teacher is None:
        return []
    tables = {name: array for name, array in _tables(student).items()}
    others = list(_tables(teacher).values())
    return [
        name for name, array in tables.items()
        if any(array.shape == other.shape and np.array_equal(array, other) for other in others)
    ]  # fmt: skip


def _tables(model: ir.Model) -> Mapping[str, np.ndarray[Any, Any]]:
    found = {}
    for node in model.graph.all_nodes():
        value = node.inputs[0] if node.op_type == "Gather" else None
        tensor = None if value is None else value.const_value
        if value is None or tensor is None or not value.name or not value.is_initializer():
            continue
        if tensor.dtype == ir.DataType.FLOAT and len(tensor.shape) == 2:
            found[value.name] = tensor.numpy()
    return found


def relative(one: torch.Tensor, other: torch.Tensor) -> float:
    """Norm of the difference over the norm; of integers 1 unless they are equal."""
    if not one.is_floating_point():
        return 0.0 if torch.equal(one, other) else 1.0
    return float((one - other).norm() / other.norm().clamp_min(1e-12))
