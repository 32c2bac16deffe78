"""Activation functions that operators apply to their real results, by the value of their attribute `activation`."""

from __future__ import annotations

import math

import numpy as np

from onnxcompress.ops.op import Array

ACTIVATIONS = ("", "relu", "gelu", "gelu_tanh", "silu", "hardswish")
"""Values of the attribute; "" is none. "gelu" is the exact one (erf), "gelu_tanh" its approximation by tanh."""


def activation_reference(name: str, x: Array) -> Array:
    """The function, element by element, in float64.

    Raises:
        ValueError: no such activation.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if name == "":
            return x
        if name == "relu":
            return np.maximum(x, 0)
        if name == "gelu":
            return np.asarray(x * 0.5 * (1 + np.vectorize(math.erf, otypes=[np.float64])(x / math.sqrt(2))))
        if name == "gelu_tanh":
            return np.asarray(x * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))
        if name == "silu":
            return np.asarray(x / (1 + np.exp(-x)))
        if name == "hardswish":
            return np.asarray(x * np.clip(x / 6 + 0.5, 0, 1))
    raise ValueError(f"no activation {name!r}; it is one of {', '.join(map(repr, ACTIVATIONS))}")


def activation_body(name: str, x: str, y: str) -> str:
    """Nodes of a function body that compute the float y from the float x; opset 20 or later.

    Raises:
        ValueError: no such activation.
    """
    nodes = {
        "": f"{y} = Identity ({x})",
        "relu": f"{y} = Relu ({x})",
        "gelu": f"{y} = Gelu ({x})",
        "gelu_tanh": f'{y} = Gelu <approximate = "tanh"> ({x})',
        "silu": f"{y}_sigmoid = Sigmoid ({x})\n{y} = Mul ({x}, {y}_sigmoid)",
        "hardswish": f"{y} = HardSwish ({x})",
    }
    if name not in nodes:
        raise ValueError(f"no activation {name!r}; it is one of {', '.join(map(repr, ACTIVATIONS))}")
    return nodes[name]
