"""Attention of the standard domain (version 23 and 24)."""

from __future__ import annotations

import math
from typing import Any

import torch

from onnxcompress.torch.standard.operator import Call, Function, Operator, Table


def attention(call: Call) -> Function:
    """softmax(Q K^T * scale + mask) V. Q float [B, heads, S, size], or [B, S, heads * size] with the heads counted.

    Raises:
        ModelError: keys and values of the past, soft caps, and outputs but the first are not supported.
    """
    if any(call.has(i) for i in (4, 5, 6)) or any(call.wanted[1:]) or call.get("softcap"):
        raise call.refusal("past keys, soft caps and further outputs are not supported")
    query_heads, key_heads = call.get("q_num_heads"), call.get("kv_num_heads")
    causal, factor = bool(call.get("is_causal", 0)), call.get("scale")

    def apply(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: Any = None) -> torch.Tensor:
        flat = q.dim() == 3
        if flat:
            q, k, v = _heads(q, query_heads), _heads(k, key_heads), _heads(v, key_heads)
        if k.shape[1] != q.shape[1]:
            times = q.shape[1] // k.shape[1]
            k, v = k.repeat_interleave(times, 1), v.repeat_interleave(times, 1)
        scores = q @ k.transpose(-1, -2) * (factor or 1.0 / math.sqrt(q.shape[-1]))
        if causal:
            ahead = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
            scores = scores.masked_fill(ahead, -torch.inf)
        if mask is not None:
            missing = scores.shape[-1] - mask.shape[-1]
            if missing > 0:
                mask = torch.nn.functional.pad(mask, (0, missing), value=_nothing(mask))
            scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        y = torch.softmax(scores, -1) @ v
        return y.transpose(1, 2).reshape(y.shape[0], y.shape[2], -1) if flat else y

    return apply


def _heads(x: torch.Tensor, count: int) -> torch.Tensor:
    return x.reshape(x.shape[0], x.shape[1], count, -1).transpose(1, 2)


def _nothing(mask: torch.Tensor) -> float:
    return 0.0 if mask.dtype == torch.bool else -math.inf


def rotary_embedding(call: Call) -> Function:
    """Rotate pairs of channels by angles whose cosines and sines are given for each position."""
    interleaved, heads = bool(call.get("interleaved", 0)), call.get("num_heads", 0)
    rotated = call.get("rotary_embedding_dim", 0)

    def apply(x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor, places: Any = None) -> torch.Tensor:
        y = _heads(x, heads) if x.dim() == 3 else x
        size = rotated or y.shape[-1]
        turning, rest = y[..., :size], y[..., size:]
        cos, sin = (t if places is None else t[places] for t in (cosines, sines))
        cos, sin = cos[:, None], sin[:, None]
        a, b = (turning[..., 0::2], turning[..., 1::2]) if interleaved else turning.chunk(2, -1)
        parts = (a * cos - b * sin, a * sin + b * cos)
        turned = torch.stack(parts, -1).flatten(-2) if interleaved else torch.cat(parts, -1)
        y = torch.cat((turned, rest), -1)
        return y.transpose(1, 2).reshape(x.shape) if x.dim() == 3 else y

    return apply


ATTENTION: Table = {
    "Attention": Operator(attention),
    "RotaryEmbedding": Operator(rotary_embedding),
}
