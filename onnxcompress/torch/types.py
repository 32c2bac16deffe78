"""Element types: what torch holds a tensor of an ONNX type in."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import torch
from torch import nn

Array = np.ndarray[Any, Any]

D = ir.DataType

TORCH_TYPES: dict[ir.DataType, torch.dtype] = {
    D.FLOAT: torch.float32, D.DOUBLE: torch.float64, D.FLOAT16: torch.float16, D.BFLOAT16: torch.bfloat16,
    D.BOOL: torch.bool, D.INT64: torch.int64, D.INT32: torch.int32, D.INT16: torch.int16, D.INT8: torch.int8,
    D.UINT8: torch.uint8, D.UINT16: torch.int32, D.UINT32: torch.int64, D.UINT64: torch.int64,
    D.INT4: torch.int8, D.UINT4: torch.uint8,
}  # fmt: skip
"""Types that torch computes in; narrower or unsigned ones are held in the next that is wide enough."""

FLOATS = (D.FLOAT, D.DOUBLE, D.FLOAT16, D.BFLOAT16)

INTEGER_RANGES: dict[ir.DataType, tuple[int, int]] = {
    D.UINT8: (0, 255), D.INT8: (-128, 127), D.UINT16: (0, 65535), D.INT16: (-32768, 32767), D.UINT4: (0, 15),
    D.INT4: (-8, 7), D.INT32: (-(2**31), 2**31 - 1),
}  # fmt: skip
"""What a quantized tensor of the type holds."""


def to_torch(tensor: ir.TensorProtocol) -> torch.Tensor:
    """A copy of a constant, in the type of `TORCH_TYPES`.

    Raises:
        KeyError: a type that torch has no tensors of (strings, 8-bit floats).
    """
    dtype = TORCH_TYPES[ir.DataType(tensor.dtype)]
    array = tensor.numpy()
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(np.array(array, dtype=np.float32)).to(dtype)
    if dtype.is_floating_point or dtype in (torch.bool, torch.uint8, torch.int8):
        kind = str(dtype).removeprefix("torch.")
        return torch.from_numpy(np.array(array).astype(kind))
    return torch.from_numpy(np.array(array).astype(np.int64)).to(dtype)


def to_numpy(tensor: torch.Tensor, dtype: ir.DataType) -> Array:
    """The tensor as an array of an ONNX type (the way back of `to_torch`)."""
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    array: Array = tensor.numpy().astype(dtype.numpy())
    return array


class Types(nn.Module):  # type: ignore[misc]
    """Follows what a module is converted to: its floating types, and its device.

    `module.double()` turns tensors of float32 into float64; casts inside the graph must go there too.
    """

    def __init__(self) -> None:
        super().__init__()
        for kind in FLOATS:
            self.register_buffer(kind.name, torch.zeros(1, dtype=TORCH_TYPES[kind]), persistent=False)

    def of(self, kind: ir.DataType | int) -> torch.dtype:
        """The type that tensors of an ONNX type have now."""
        kind = ir.DataType(kind)
        return self._buffers[kind.name].dtype if kind in FLOATS else TORCH_TYPES[kind]

    @property
    def device(self) -> torch.device:
        """Where the module is."""
        return self._buffers[ir.DataType.FLOAT.name].device
