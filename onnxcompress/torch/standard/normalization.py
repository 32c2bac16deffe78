"""Normalizations."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from onnxcompress.torch.standard.operator import Call, Function, Operator, Table


def batch_norm(call: Call) -> Function:
    """With the statistics of the model, which are not trained."""
    epsilon = call.get("epsilon", 1e-5)
    if call.get("training_mode", 0) or (call.version < 7 and not call.get("is_test", 0)):
        raise call.refusal("training mode is not supported; export the model for inference")

    def apply(x: torch.Tensor, scale: Any, shift: Any, mean: Any, variance: Any) -> torch.Tensor:
        return F.batch_norm(x, mean, variance, scale, shift, False, 0.0, epsilon)

    return apply


def instance_norm(call: Call) -> Function:
    epsilon = call.get("epsilon", 1e-5)

    def apply(x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        return F.group_norm(x, x.shape[1], scale, shift, epsilon)

    return apply


def group_norm(call: Call) -> Function:
    """Scale and shift are per group before version 21, per channel since."""
    epsilon, groups = call.get("epsilon", 1e-5), call.attributes["num_groups"]

    def apply(x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        if call.version < 21:
            each = x.shape[1] // groups
            scale, shift = scale.repeat_interleave(each), shift.repeat_interleave(each)
        return F.group_norm(x, groups, scale, shift, epsilon)

    return apply


def layer_norm(call: Call) -> Function:
    """Over the axes from `axis` on; also gives the mean and the inverse deviation."""
    axis, epsilon = call.get("axis", -1), call.get("epsilon", 1e-5)
    with_statistics = any(call.wanted[1:])

    def apply(x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor | None = None) -> Any:
        shape = x.shape[axis % x.dim() :]
        if scale.shape == shape and (shift is None or shift.shape == shape):
            y = F.layer_norm(x, shape, scale, shift, epsilon)
        else:  # they may be broadcast
            y = F.layer_norm(x, shape, eps=epsilon) * scale
            y = y if shift is None else y + shift
        if not with_statistics:
            return y
        axes = tuple(range(axis % x.dim(), x.dim()))
        variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
        return y, mean, torch.rsqrt(variance + epsilon)

    return apply


def rms_norm(call: Call) -> Function:
    axis, epsilon = call.get("axis", -1), call.get("epsilon", 1e-5)

    def apply(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return root_mean_square(x, axis, epsilon) * scale

    return apply


def root_mean_square(x: torch.Tensor, axis: int, epsilon: float) -> torch.Tensor:
    """x over the root of the mean of its squares, from an axis on."""
    axes = tuple(range(axis % x.dim(), x.dim()))
    return x * torch.rsqrt(x.square().mean(axes, keepdim=True) + epsilon)


def lp_norm(call: Call) -> Function:
    """Vectors of length zero stay zero."""
    axis, p = call.get("axis", -1), call.get("p", 2)

    def apply(x: torch.Tensor) -> torch.Tensor:
        length = torch.linalg.vector_norm(x, p, axis, keepdim=True)
        return torch.where(length == 0, torch.zeros_like(x), x / torch.where(length == 0, 1.0, length))

    return apply


def mean_variance_norm(call: Call) -> Function:
    axes = call.get("axes", (0, 2, 3))

    def apply(x: torch.Tensor) -> torch.Tensor:
        variance, mean = torch.var_mean(x, tuple(axes), correction=0, keepdim=True)
        return (x - mean) / (torch.sqrt(variance) + 1e-9)

    return apply


def local_response_norm(call: Call) -> Function:
    """x / (bias + alpha / size * sum of squares of neighbouring channels) ^ beta."""
    size, bias = call.attributes["size"], call.get("bias", 1.0)
    alpha, beta = call.get("alpha", 1e-4), call.get("beta", 0.75)

    def apply(x: torch.Tensor) -> torch.Tensor:
        squares = x.square().reshape(x.shape[0], 1, x.shape[1], -1)
        padded = F.pad(squares, (0, 0, (size - 1) // 2, size // 2))
        means = F.avg_pool2d(padded, (size, 1), 1).reshape(x.shape)
        return x / (bias + alpha * means) ** beta

    return apply


NORMALIZATION: Table = {
    "BatchNormalization": Operator(batch_norm, fixed=(3, 4), weights=(1, 2)),
    "InstanceNormalization": Operator(instance_norm, weights=(1, 2)),
    "GroupNormalization": Operator(group_norm, weights=(1, 2)),
    "LayerNormalization": Operator(layer_norm, weights=(1, 2)),
    "RMSNormalization": Operator(rms_norm, weights=(1,)),
    "LpNormalization": Operator(lp_norm),
    "MeanVarianceNormalization": Operator(mean_variance_norm),
    "LRN": Operator(local_response_norm),
}
