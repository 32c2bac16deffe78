"""Recurrent networks and attention."""

from __future__ import annotations

import itertools

import numpy as np

from tests.torch.cases.case import Array, Case, real, truth

T, N, C, H = 5, 3, 4, 6
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def network(
    name: str, inputs: str = "x, w, r, b", direction: str = "forward", attributes: str = "", outputs: str = "y, h"
) -> Case:
    d = 2 if direction == "bidirectional" else 1
    g = GATES[name] * H
    arrays: dict[str, Array] = {
        "w": real(d, g, C) * 0.5,
        "r": real(d, g, H) * 0.5,
        "b": real(d, 2 * g) * 0.5,
        "n": np.array([5, 2, 3], np.int32),
        "h0": real(d, N, H),
        "c0": real(d, N, H),
        "p": real(d, 3 * H) * 0.5,
    }
    given = [part.strip() for part in inputs.split(",")]
    text = f'{outputs} = {name} <hidden_size = {H}, direction = "{direction}"{attributes}> ({inputs})'
    return Case(text, {"x": real(T, N, C)}, {k: v for k, v in arrays.items() if k in given}, tolerance=2e-6)


RECURRENT = [
    *(
        network(name, direction=direction)
        for name, direction in itertools.product(GATES, ("forward", "reverse", "bidirectional"))
    ),
    *(network(name, "x, w, r, b, n", direction="bidirectional") for name in GATES),
    *(network(name, "x, w, r") for name in GATES),
    *(network(name, "x, w, r, b, , h0") for name in GATES),
    network("LSTM", "x, w, r, b, , h0, c0", outputs="y, h, c"),
    network("LSTM", "x, w, r, b, , h0, c0, p", outputs="y, h, c"),
    network("LSTM", "x, w, r, b", attributes=", input_forget = 1"),
    network("LSTM", "x, w, r, b", attributes=", clip = 0.3"),
    network("LSTM", attributes=', activations = ["Sigmoid", "Relu", "Softsign"]'),
    network("GRU", attributes=", linear_before_reset = 1"),
    network("GRU", "x, w, r, b, n", attributes=", linear_before_reset = 1"),
    network("RNN", attributes=', activations = ["Relu"]'),
]

SEEN = truth(2, 1, 5, 6) | np.eye(5, 6, dtype=bool)
HEADS = {"q": real(2, 3, 5, 4), "k": real(2, 3, 6, 4), "v": real(2, 3, 6, 4)}
FLAT = {"q": real(2, 5, 12), "k": real(2, 6, 12), "v": real(2, 6, 12)}
SINES = {"c": real(10, 2), "s": real(10, 2)}

ATTENTION = [
    Case("y = Attention (q, k, v)", HEADS, opset=23, tolerance=1e-5),
    Case("y = Attention <scale = 0.3> (q, k, v, m)", {**HEADS, "m": real(5, 6)}, opset=23, tolerance=1e-5),
    Case("y = Attention (q, k, v, m)", {**HEADS, "m": SEEN}, opset=23, tolerance=1e-5),
    Case("y = Attention <is_causal = 1> (q, k, v)", HEADS, opset=23, tolerance=1e-5),
    Case("y = Attention <q_num_heads = 3, kv_num_heads = 3> (q, k, v)", FLAT, opset=23, tolerance=1e-5),
    Case("y = Attention (q, k, v)", {**HEADS, "k": real(2, 1, 6, 4), "v": real(2, 1, 6, 4)}, opset=23, tolerance=1e-5),
    Case("y = RotaryEmbedding (q, c, s, i)", {"q": HEADS["q"], "i": np.tile(np.arange(5), (2, 1))}, SINES, opset=23),
    Case(
        "y = RotaryEmbedding <interleaved = 1> (q, c, s, i)",
        {"q": HEADS["q"], "i": np.tile(np.arange(5), (2, 1))}, SINES, opset=23,
    ),
    Case(
        "y = RotaryEmbedding <num_heads = 3> (q, c, s)",
        {"q": FLAT["q"]}, {"c": real(2, 5, 2), "s": real(2, 5, 2)}, opset=23,
    ),
]  # fmt: skip
