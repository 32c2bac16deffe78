"""Comparisons, logic, choices and types."""

from __future__ import annotations

from typing import Any

import torch

from onnxcompress.torch.standard.operator import Call, Function, Operator, Table, number, plain


def cast(call: Call) -> Function:
    kind, types = int(call.attributes["to"]), call.types
    try:
        types.of(kind)
    except (KeyError, ValueError):
        raise call.refusal(f"torch has no tensors of element type {kind}") from None
    return lambda x: x.to(types.of(kind))


def is_infinite(call: Call) -> Function:
    negative, positive = call.get("detect_negative", 1), call.get("detect_positive", 1)

    def infinite(x: torch.Tensor) -> torch.Tensor:
        return torch.isinf(x) & ((x < 0) & bool(negative) | (x > 0) & bool(positive))

    return infinite


def dropout(call: Call) -> Function:
    """Inference: the identity, and a mask of ones (version 7 to 10: of the type of x)."""

    def keep(x: torch.Tensor, ratio: Any = None, training: Any = None) -> Any:
        if number(training, False):
            raise call.refusal("training mode is not supported; export the model for inference")
        return (x, torch.ones_like(x, dtype=torch.bool if call.version >= 10 else x.dtype))

    return keep


LOGIC: Table = {
    "Equal": plain(torch.eq),
    "Less": plain(torch.lt),
    "Greater": plain(torch.gt),
    "LessOrEqual": plain(torch.le),
    "GreaterOrEqual": plain(torch.ge),
    "And": plain(torch.logical_and),
    "Or": plain(torch.logical_or),
    "Xor": plain(torch.logical_xor),
    "Not": plain(torch.logical_not),
    "Where": plain(torch.where),
    "IsNaN": plain(torch.isnan),
    "IsInf": Operator(is_infinite),
    "Cast": Operator(cast),
    "CastLike": plain(lambda x, like: x.to(like.dtype)),
    "Identity": plain(lambda x: x),
    "Dropout": Operator(dropout, numbers=(1, 2)),
}
