"""Activation functions."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from onnxcompress.torch.standard.operator import Call, Function, Operator, Table, plain


def softmax(call: Call) -> Function:
    return _over_axis(call, torch.softmax)


def log_softmax(call: Call) -> Function:
    return _over_axis(call, torch.log_softmax)


def hardmax(call: Call) -> Function:
    def largest(x: torch.Tensor, axis: int) -> torch.Tensor:
        index = x.argmax(axis, keepdim=True)
        return torch.zeros_like(x).scatter(axis, index, torch.ones_like(index, dtype=x.dtype))

    return _over_axis(call, largest)


def _over_axis(call: Call, function: Function) -> Function:
    """Before version 13 the axis splits the shape into a matrix, whose rows are taken."""
    axis = call.get("axis", -1 if call.version >= 13 else 1)
    if call.version >= 13:
        return lambda x: function(x, axis)

    def over_rows(x: torch.Tensor) -> torch.Tensor:
        first = axis % max(x.dim(), 1) if axis != x.dim() else axis
        if first == x.dim() - 1:
            return function(x, -1)
        return function(x.flatten(first), -1).reshape(x.shape)

    return over_rows


def elu(call: Call) -> Function:
    alpha = call.get("alpha", 1.0)
    return lambda x: F.elu(x, alpha)


def celu(call: Call) -> Function:
    alpha = call.get("alpha", 1.0)
    return lambda x: F.celu(x, alpha)


def selu(call: Call) -> Function:
    """gamma * (x for x > 0, else alpha * (exp(x) - 1))."""
    alpha, gamma = call.get("alpha", 1.67326319217681884765625), call.get("gamma", 1.05070102214813232421875)
    return lambda x: gamma * F.elu(x, alpha)


def leaky_relu(call: Call) -> Function:
    alpha = call.get("alpha", 0.01)
    return lambda x: F.leaky_relu(x, alpha)


def thresholded_relu(call: Call) -> Function:
    alpha = call.get("alpha", 1.0)
    return lambda x: F.threshold(x, alpha, 0.0)


def hard_sigmoid(call: Call) -> Function:
    alpha, beta = call.get("alpha", 0.2), call.get("beta", 0.5)
    return lambda x: torch.clamp(alpha * x + beta, 0.0, 1.0)


def gelu(call: Call) -> Function:
    kind = call.get("approximate", "none")
    return lambda x: F.gelu(x, approximate=kind)


def swish(call: Call) -> Function:
    alpha = call.get("alpha", 1.0)
    return F.silu if alpha == 1.0 else lambda x: x * torch.sigmoid(alpha * x)


def shrink(call: Call) -> Function:
    bias, limit = call.get("bias", 0.0), call.get("lambd", 0.5)

    def shrunk(x: torch.Tensor) -> torch.Tensor:
        zero = torch.zeros_like(x)
        return torch.where(x < -limit, x + bias, torch.where(x > limit, x - bias, zero))

    return shrunk


def p_relu(x: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    return torch.where(x >= 0, x, x * slope)


ACTIVATIONS: Table = {
    "Relu": plain(torch.relu),
    "Sigmoid": plain(torch.sigmoid),
    "Tanh": plain(torch.tanh),
    "Softplus": plain(lambda x: F.softplus(x, threshold=30.0)),
    "Softsign": plain(F.softsign),
    "Mish": plain(F.mish),
    "HardSwish": plain(F.hardswish),
    "PRelu": plain(p_relu, weights=(1,)),
    "Elu": Operator(elu),
    "Celu": Operator(celu),
    "Selu": Operator(selu),
    "LeakyRelu": Operator(leaky_relu),
    "ThresholdedRelu": Operator(thresholded_relu),
    "HardSigmoid": Operator(hard_sigmoid),
    "Gelu": Operator(gelu),
    "Swish": Operator(swish),
    "Shrink": Operator(shrink),
    "Softmax": Operator(softmax),
    "LogSoftmax": Operator(log_softmax),
    "Hardmax": Operator(hardmax),
}
