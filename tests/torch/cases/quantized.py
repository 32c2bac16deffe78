"""Quantization, and operators on integers."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.torch.cases.case import Array, Case, real, scalar, whole


def parameters(low: int = 0, kind: Any = np.uint8, scale: float = 0.05) -> dict[str, Array]:
    return {"s": scalar(scale), "z": scalar(low, kind)}


CHANNELS = {"s": real(3, low=0.02, high=0.1), "z": whole(3, low=-5, high=5, kind=np.int8)}
U8 = whole(4, 6, low=0, high=256, kind=np.uint8)
S8 = whole(6, 5, low=-128, high=128, kind=np.int8)
IMAGE = whole(1, 4, 6, 6, low=0, high=256, kind=np.uint8)
TIES = np.arange(-3, 3, 0.25, dtype=np.float32)
KERNEL = whole(3, 4, 3, 3, low=-128, high=128, kind=np.int8)


def rounds(text: str, inputs: dict[str, Array], constants: dict[str, Array], **more: Any) -> Case:
    return Case(text, inputs, constants, smooth=False, **more)


PAIR = "q = QuantizeLinear (x, s, z)\ny = DequantizeLinear (q, s, z)"

QUANTIZED = [
    rounds("y = QuantizeLinear (x, s, z)", {"x": real(4, 6) * 5}, parameters(100)),
    rounds("y = QuantizeLinear (x, s)", {"x": real(4, 6) * 5}, {"s": scalar(0.05)}),
    rounds("y = QuantizeLinear <output_dtype = 3> (x, s)", {"x": real(4, 6) * 5}, {"s": scalar(0.05)}),
    rounds("y = QuantizeLinear (x, s, z)", {"x": real(4, 6) * 9}, parameters(-3, np.int8)),
    rounds("y = QuantizeLinear (x, s, z)", {"x": real(4, 6) * 9}, parameters(3000, np.uint16, 0.0005)),
    rounds("y = QuantizeLinear (x, s, z)", {"x": TIES}, parameters(3, np.uint8, 0.5)),
    rounds("y = QuantizeLinear <axis = 0> (x, s, z)", {"x": real(3, 6)}, CHANNELS),
    rounds(
        "y = QuantizeLinear <axis = 1, block_size = 2> (x, s, z)", {"x": real(3, 6)},
        {"s": real(3, 3, low=0.02, high=0.1), "z": whole(3, 3, low=-5, high=5, kind=np.int8)},
    ),
    rounds("y = DequantizeLinear (q, s, z)", {"q": U8}, parameters(100)),
    rounds("y = DequantizeLinear (q, s)", {"q": U8}, {"s": scalar(0.05)}),
    rounds("y = DequantizeLinear (q, s)", {"q": whole(4, 6, kind=np.int32)}, {"s": scalar(0.05)}),
    rounds("y = DequantizeLinear <axis = 0> (q, s, z)", {"q": S8[:3]}, CHANNELS),
    rounds("y = DequantizeLinear <axis = 0> (w, s, z)", {}, {"w": S8[:3], **CHANNELS}),
    rounds("y = DequantizeLinear (w, s, z)", {}, {"w": U8, **parameters(100)}),
    rounds(
        "y = DequantizeLinear <axis = 0, block_size = 2> (w, s)", {}, {"w": S8, "s": real(3, 5, low=0.02, high=0.1)}
    ),
    rounds(PAIR, {"x": real(4, 6) * 5}, parameters(100)),
    rounds(PAIR.replace("(x, s", "<axis = 0> (x, s").replace("(q, s", "<axis = 0> (q, s"), {"x": real(3, 6)}, CHANNELS),
    rounds("y, s, z = DynamicQuantizeLinear (x)", {"x": real(4, 6) * 5}, {}),
    rounds("y, s, z = DynamicQuantizeLinear (x)", {"x": real(4, 6, low=0.5, high=4)}, {}),
    rounds("y, s, z = DynamicQuantizeLinear (x)", {"x": np.zeros((2, 3), np.float32)}, {}),
    Case("y = MatMulInteger (a, b)", {"a": U8}, {"b": S8}),
    Case("y = MatMulInteger (a, b, c, d)", {"a": U8}, {"b": S8, "c": scalar(9, np.uint8), "d": scalar(-3, np.int8)}),
    Case(
        "y = MatMulInteger (a, b, c, d)", {"a": U8},
        {"b": S8, "c": scalar(9, np.uint8), "d": whole(5, low=-9, high=9, kind=np.int8)},
    ),
    Case("y = MatMulInteger (a, b)", {"a": whole(2, 900, low=200, high=256, kind=np.uint8)},
         {"b": whole(900, 3, low=100, high=128, kind=np.int8)}),
    Case("y = ConvInteger <pads = [1, 1, 1, 1], strides = [2, 1]> (x, w, c)", {"x": IMAGE},
         {"w": KERNEL, "c": scalar(9, np.uint8)}),
    rounds(
        "q, s, z = DynamicQuantizeLinear (x)\np = MatMulInteger (q, b, z)\nf = Cast <to = 1> (p)\ny = Mul (f, s)",
        {"x": real(4, 6)}, {"b": S8},
    ),
    rounds(
        "y = QLinearMatMul (a, sa, za, b, sb, zb, sy, zy)", {"a": U8},
        {"sa": scalar(0.02), "za": scalar(100, np.uint8), "b": S8, "sb": scalar(0.03), "zb": scalar(0, np.int8),
         "sy": scalar(0.9), "zy": scalar(128, np.uint8)},
    ),
    rounds(
        "y = QLinearConv <pads = [1, 1, 1, 1]> (x, sx, zx, w, sw, zw, sy, zy, b)", {"x": IMAGE},
        {"sx": scalar(0.02), "zx": scalar(100, np.uint8), "w": KERNEL, "sw": real(3, low=0.02, high=0.03),
         "zw": np.zeros(3, np.int8), "sy": scalar(0.9), "zy": scalar(128, np.uint8),
         "b": whole(3, low=-999, high=999, kind=np.int32)},
    ),
    rounds("y = com.microsoft.MatMulIntegerToFloat (a, b, sa, sb, za, zb, c)", {"a": U8},
         {"b": S8, "sa": scalar(0.02), "sb": real(5, low=0.02, high=0.03), "za": scalar(100, np.uint8),
          "zb": whole(5, low=-9, high=9, kind=np.int8), "c": real(5)}),
    rounds("y = com.microsoft.DynamicQuantizeMatMul (a, b, s, z, c)", {"a": real(4, 6)},
           {"b": S8, "s": scalar(0.03), "z": scalar(0, np.int8), "c": real(5)}),
    rounds(
        "y = com.microsoft.DequantizeLinear (q, s, z)\n", {"q": whole(4, 6, low=0, high=9, kind=np.uint16)},
        parameters(3, np.uint16),
    ),
    rounds("y = com.microsoft.QuantizeLinear (x, s, z)", {"x": real(4, 6)}, parameters(300, np.uint16, 0.001)),
    *(
        rounds(
            f"y = com.microsoft.MatMulNBits <K = 40, N = 5, bits = {bits}, block_size = 16> (a, b, s{zeros})",
            {"a": real(3, 40)},
            {"b": whole(5, 3, 2 * bits, low=0, high=256, kind=np.uint8), "s": real(15, low=0.02, high=0.1),
             **({"z": whole(5 * 3 if bits == 8 else 5 * 2, low=0, high=256, kind=np.uint8)} if zeros else {})},
            tolerance=1e-5,
        )
        for bits in (4, 8)
        for zeros in ("", ", z")
    ),
    *(
        rounds(
            f'y, h, c = com.microsoft.DynamicQuantizeLSTM <hidden_size = 8, direction = "{direction}">'
            " (x, w, r, b, , , , , sw, zw, sr, zr)",
            {"x": real(5, 2, 4)},
            {"w": whole(d, 4, 32, low=-127, high=128, kind=np.int8), "zr": np.zeros(d, np.int8),
             "r": whole(d, 8, 32, low=-127, high=128, kind=np.int8), "b": real(d, 64),
             "sw": real(d, low=0.002, high=0.004), "zw": np.zeros(d, np.int8),
             "sr": real(d, low=0.002, high=0.004)},
            tolerance=1e-5,
        )
        for direction, d in (("forward", 1), ("reverse", 1), ("bidirectional", 2))
    ),
]  # fmt: skip
