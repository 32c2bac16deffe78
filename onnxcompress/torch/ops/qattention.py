"""QAttention in torch."""

from __future__ import annotations

from typing import Any

import torch

from onnxcompress.ops.qattention import MOST_BIAS, softmax_scale
from onnxcompress.torch.ops.rounding import quantize_through


def qattention(
    attributes: Any,
    qkv: torch.Tensor,
    q_scale: torch.Tensor,
    k_scale: torch.Tensor,
    v_scale: torch.Tensor,
    mask: torch.Tensor | None,
    y_scale: torch.Tensor,
    y_zero_point: torch.Tensor,
) -> tuple[torch.Tensor]:
    """softmax(q * k^T * scale + mask) * v in float, then quantized."""
    batch, length, width = qkv.shape
    heads, channels = int(attributes["num_heads"]), width // 3
    size = channels // heads
    scale = torch.cat([q_scale.repeat_interleave(size), k_scale.repeat_interleave(size), v_scale])
    real = (qkv.to(torch.float32) - 128) * scale
    q, k, v = real.reshape(batch, length, 3, heads, size).permute(2, 0, 3, 1, 4)
    scores = q @ k.transpose(-1, -2) * softmax_scale(attributes, size)
    if mask is not None and attributes["mask_kind"] == "keep":
        scores = scores.masked_fill(mask[:, None, None, :] == 0, -MOST_BIAS)
    elif mask is not None:
        scores = scores + mask.clamp(-MOST_BIAS, MOST_BIAS)
    y = torch.softmax(scores, -1) @ v
    return (quantize_through(y.permute(0, 2, 1, 3).reshape(batch, length, channels), y_scale, y_zero_point),)
