"""Recurrent networks. X float [T, N, I] (layout 0), W [D, gates * H, I], R [D, gates * H, H], B [D, 2 * gates * H]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from onnxcompress.torch.standard.operator import Call, Function, Operator, Table

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
DEFAULTS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}

Activation = Callable[[torch.Tensor], torch.Tensor]
ACTIVATIONS: dict[str, Activation] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "softsign": F.softsign,
    "softplus": F.softplus,
    "hardsigmoid": lambda x: torch.clamp(0.2 * x + 0.5, 0.0, 1.0),
}

Step = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""step(input of all gates [N, gates * H], hidden [N, H], cell [N, H]) -> the next hidden and cell."""


def recurrent(call: Call) -> Function:
    """One layer, forward, backward or both; default networks run in torch's own kernels."""
    kind, hidden, layout = call.op, call.attributes["hidden_size"], call.get("layout", 0)
    direction = call.get("direction", "forward")
    native = _is_native(call)
    for d in range(2 if direction == "bidirectional" else 1):
        activations(call, d)

    def apply(
        x: torch.Tensor, w: torch.Tensor, r: torch.Tensor, b: Any = None, lengths: Any = None, h0: Any = None,
        c0: Any = None, p: Any = None,
    ) -> tuple[torch.Tensor, ...]:  # fmt: skip
        if layout:
            x, h0, c0 = x.transpose(0, 1), _turned(h0), _turned(c0)
        zeros = x.new_zeros(w.shape[0], x.shape[1], hidden)
        h0, c0 = zeros if h0 is None else h0, zeros if c0 is None else c0
        if lengths is not None and bool((lengths == x.shape[0]).all()):
            lengths = None
        results = []
        for d in range(w.shape[0]):
            backward = direction == "reverse" or d == 1
            y = _flipped(x, lengths) if backward else x
            bias = x.new_zeros(2 * GATES[kind] * hidden) if b is None else b[d]
            if native and lengths is None and p is None:
                y, h, c = _native(kind, y, w[d], r[d], bias, h0[d], c0[d])
            else:
                step = _STEPS[kind](call, d, r[d], bias, None if p is None else p[d])
                inputs = y @ w[d].t() + bias[: GATES[kind] * hidden]
                y, h, c = unrolled(step, inputs, h0[d], c0[d], lengths)
            results.append((_flipped(y, lengths) if backward else y, h, c))
        y, h, c = (torch.stack([result[i] for result in results], 1 if i == 0 else 0) for i in range(3))
        return (y.permute(2, 0, 1, 3), _turned(h), _turned(c)) if layout else (y, h, c)

    return apply


def _turned(state: Any) -> Any:
    return None if state is None else state.transpose(0, 1)


def _is_native(call: Call) -> bool:
    names = [name.lower() for name in call.get("activations") or []]
    default = [name.lower() for name in DEFAULTS[call.op]]
    plain = not call.get("clip") and not call.get("input_forget") and names in ([], default, default * 2)
    return plain and (call.op != "GRU" or bool(call.get("linear_before_reset", 0)))


def _native(
    kind: str, x: torch.Tensor, w: torch.Tensor, r: torch.Tensor, bias: torch.Tensor, h: torch.Tensor, c: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    weights = [_torch_order(kind, t) for t in (w, r, *bias.chunk(2))]
    h, c = h[None].contiguous(), c[None].contiguous()
    if kind == "LSTM":
        y, h, c = torch._VF.lstm(x, (h, c), weights, True, 1, 0.0, False, False, False)
        return y, h[0], c[0]
    function = torch._VF.gru if kind == "GRU" else torch._VF.rnn_tanh
    y, h = function(x, h, weights, True, 1, 0.0, False, False, False)
    return y, h[0], c[0]


def _torch_order(kind: str, t: torch.Tensor) -> torch.Tensor:
    """Gates i, o, f, c become i, f, c, o; z, r, h become r, z, h."""
    parts = t.chunk(GATES[kind])
    order = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}[kind]
    return torch.cat([parts[i] for i in order])


def unrolled(
    step: Step, inputs: torch.Tensor, h: torch.Tensor, c: torch.Tensor, lengths: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Step by step. Beyond a sequence's length the state stands and the output is zero."""
    outputs = []
    for t in range(inputs.shape[0]):
        next_h, next_c = step(inputs[t], h, c)
        if lengths is None:
            outputs.append(next_h)
            h, c = next_h, next_c
            continue
        alive = (t < lengths)[:, None]
        outputs.append(torch.where(alive, next_h, torch.zeros_like(next_h)))
        h, c = torch.where(alive, next_h, h), torch.where(alive, next_c, c)
    return torch.stack(outputs), h, c


def _flipped(x: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
    """Each sequence [T, N, ...] backwards, its padding left behind."""
    if lengths is None:
        return x.flip(0)
    places = torch.arange(x.shape[0], device=x.device)[:, None]
    source = torch.where(places < lengths, lengths - 1 - places, places).long()
    return torch.gather(x, 0, source[:, :, None].expand(x.shape))


def activations(call: Call, direction: int) -> list[Activation]:
    """The functions of one direction, by the operator's default where none are named.

    Raises:
        ModelError: a function that is not known, or that has parameters.
    """
    count = len(DEFAULTS[call.op])
    names: Sequence[str] = call.get("activations") or DEFAULTS[call.op] * 2
    names = names[direction * count : (direction + 1) * count] or names[:count]
    unknown = [name for name in names if name.lower() not in ACTIVATIONS]
    if unknown or call.get("activation_alpha") or call.get("activation_beta"):
        raise call.refusal(f"the activations {', '.join(unknown) or 'with alpha or beta'} are not supported")
    return [ACTIVATIONS[name.lower()] for name in names]


def _bounded(call: Call) -> Activation:
    limit = call.get("clip")
    return (lambda x: torch.clamp(x, -limit, limit)) if limit else (lambda x: x)


def lstm_step(call: Call, direction: int, r: torch.Tensor, bias: torch.Tensor, p: torch.Tensor | None) -> Step:
    """The LSTM of the ONNX specification, peepholes `p` [3 * H] (i, o, f) included."""
    f, g, h_function = activations(call, direction)
    bound, coupled = _bounded(call), bool(call.get("input_forget", 0))
    recurrent_bias = bias.chunk(2)[1]
    peep_i, peep_o, peep_f = (0.0, 0.0, 0.0) if p is None else p.chunk(3)

    def step(x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        i, o, forget, cell = (x + h @ r.t() + recurrent_bias).chunk(4, -1)
        i = f(bound(i + peep_i * c))
        forget = 1 - i if coupled else f(bound(forget + peep_f * c))
        c = forget * c + i * g(bound(cell))
        return f(bound(o + peep_o * c)) * h_function(c), c

    return step


def gru_step(call: Call, direction: int, r: torch.Tensor, bias: torch.Tensor, p: torch.Tensor | None) -> Step:
    """The GRU of the ONNX specification: the reset gate before, or after, the recurrent product."""
    f, g = activations(call, direction)
    bound, after = _bounded(call), bool(call.get("linear_before_reset", 0))
    r_z, r_r, r_h = r.chunk(3)
    b_z, b_r, b_h = bias.chunk(2)[1].chunk(3)

    def step(x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x_z, x_r, x_h = x.chunk(3, -1)
        z, reset = f(bound(x_z + h @ r_z.t() + b_z)), f(bound(x_r + h @ r_r.t() + b_r))
        recurrent_part = reset * (h @ r_h.t() + b_h) if after else (reset * h) @ r_h.t() + b_h
        return (1 - z) * g(bound(x_h + recurrent_part)) + z * h, c

    return step


def rnn_step(call: Call, direction: int, r: torch.Tensor, bias: torch.Tensor, p: torch.Tensor | None) -> Step:
    (f,) = activations(call, direction)
    bound, recurrent_bias = _bounded(call), bias.chunk(2)[1]
    return lambda x, h, c: (f(bound(x + h @ r.t() + recurrent_bias)), c)


_STEPS = {"LSTM": lstm_step, "GRU": gru_step, "RNN": rnn_step}

RECURRENT: Table = {name: Operator(recurrent, weights=(1, 2, 3, 7)) for name in GATES}
