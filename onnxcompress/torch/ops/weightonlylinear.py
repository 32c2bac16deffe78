"""WeightOnlyLinear in torch."""

from __future__ import annotations

from typing import Any

import torch

from onnxcompress.torch.ops.activation import ACTIVATIONS


def weightonlylinear(
    attributes: Any,
    x: torch.Tensor,
    w: torch.Tensor,
    w_scale: torch.Tensor,
    w_zero_point: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
) -> tuple[torch.Tensor | None, ...]:
    """The operator's output, of the type of x; sums are at least single precision.

    Gradients reach x, the scales, the bias and the residual; the packed weights are integers.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    four = attributes["bits"] == 4
    codes = torch.stack([w & 15, w >> 4], dim=-1).flatten(-2) if four else w
    size = attributes["block_size"] or codes.shape[1]

    def spread(values: torch.Tensor) -> torch.Tensor:
        return values.to(dtype).repeat_interleave(size, dim=1)[:, : codes.shape[1]]

    zero = 2.0 ** (attributes["bits"] - 1) if w_zero_point is None else spread(w_zero_point)
    weights = ((codes.to(dtype) - zero) * spread(w_scale))[:, : x.shape[-1]]
    real = x.to(dtype) @ weights.mT
    if bias is not None:
        real = real + bias
    activation = ACTIVATIONS[attributes["activation"]]
    real = activation(real[..., ::2]) * real[..., 1::2] if attributes["gated"] else activation(real)
    if residual is not None:
        real = real + residual
    return (real.to(x.dtype),)
