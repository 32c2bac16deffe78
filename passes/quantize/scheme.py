"""What is quantized, and how: the typed configuration of the quantization passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import ml_dtypes
import numpy as np
import onnx_ir as ir

ActivationKind = Literal["u8", "s8", "u16"]

ACTIVATION_TYPES: dict[str, ir.DataType] = {
    "u8": ir.DataType.UINT8,
    "s8": ir.DataType.INT8,
    "u16": ir.DataType.UINT16,
}


@dataclass(frozen=True)
class Scheme:
    """Static quantization.

    Attributes:
        activations: u8 asymmetric (CPUs), s8 symmetric (GPUs), or u16 asymmetric.
        exclude: names of nodes that stay float.
        wide: names of nodes whose input activations take 16 bits instead.
        elementwise: quantize adds, products, pooling and data movement between quantized nodes.
        activation_matmuls: quantize MatMul of two activations (attention) as well.
        reduced_range: 7-bit weights, for processors without VNNI, whose 16-bit sums saturate.
        minimum_weights: nodes with fewer weights stay float.
        native: place pairs for the operators of this project (u8 only): int8 flows through whole convolution
            networks, and ConvTranspose is quantized.
    """

    activations: ActivationKind = "u8"
    exclude: frozenset[str] = frozenset()
    wide: frozenset[str] = frozenset()
    elementwise: bool = True
    activation_matmuls: bool = False
    reduced_range: bool = False
    minimum_weights: int = 0
    native: bool = False

    @property
    def weight_limit(self) -> int:
        """The largest magnitude of a quantized weight."""
        return 63 if self.reduced_range else 127


def type_limits(dtype: ir.DataType) -> tuple[int, int]:
    """Least and greatest value of an integer type of quantized tensors (4-bit types included)."""
    if dtype in (ir.DataType.INT4, ir.DataType.UINT4):
        info4 = ml_dtypes.iinfo(dtype.numpy())
        return int(info4.min), int(info4.max)
    info = np.iinfo(dtype.numpy())
    return int(info.min), int(info.max)
