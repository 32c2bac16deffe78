"""Arithmetic, logic and activation functions."""

from __future__ import annotations

import numpy as np

from tests.torch.cases.case import Case, real, scalar, truth, whole

COMPARISONS = ("Less", "Greater", "LessOrEqual", "GreaterOrEqual", "Equal")
POSITIVE = ("Sqrt", "Log", "Acosh")
BOUNDED = ("Asin", "Acos", "Atanh")
STEPS = ("Sign", "Floor", "Ceil", "Round")

UNARY = (
    "Neg", "Abs", "Sqrt", "Reciprocal", "Exp", "Log", "Erf", "Sin", "Cos", "Tan", "Asin", "Acos", "Atan",
    "Sinh", "Cosh", "Asinh", "Acosh", "Atanh", "Sign", "Floor", "Ceil", "Round", "Relu", "Sigmoid", "Tanh",
    "Softplus", "Softsign", "Mish", "HardSwish", "Elu", "Celu", "Selu", "LeakyRelu", "ThresholdedRelu", "HardSigmoid",
    "Gelu", "Shrink", "Softmax", "LogSoftmax", "Hardmax", "Identity",
)  # fmt: skip


def _unary(name: str) -> Case:
    x = real(3, 7)
    if name in POSITIVE:
        x = real(3, 7, low=1.1, high=4)
    elif name in BOUNDED:
        x = real(3, 7, low=-0.9, high=0.9)
    return Case(f"y = {name} (x)", {"x": x}, smooth=name not in (*STEPS, "Hardmax"))


BROADCAST = {"a": real(3, 1, 5), "b": real(4, 1, low=0.5, high=2.0)}
INTEGERS = {"a": whole(4, 6), "b": whole(4, 6, low=1, high=5)}
BITS = {"a": whole(4, 6, low=0, high=200, kind=np.uint8), "b": whole(4, 6, low=0, high=7, kind=np.uint8)}

ELEMENTWISE = [
    *(_unary(name) for name in UNARY),
    *(Case(f"y = {name} (a, b)", BROADCAST) for name in ("Add", "Sub", "Mul", "Div", "Max", "Min")),
    *(Case(f"y = {name} (a, b)", INTEGERS) for name in ("Add", "Sub", "Mul", "Div", "Mod", "Max", "Min")),
    *(Case(f"y = {name} (a, b)", BITS) for name in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")),
    *(Case(f"y = {name} (a, b)", BROADCAST, smooth=False) for name in COMPARISONS),
    *(Case(f"y = {name} (a, b)", {"a": truth(3, 4), "b": truth(4)}) for name in ("And", "Or", "Xor", "Equal")),
    Case("y = Equal (a, b)", INTEGERS),
    Case("y = Not (a)", {"a": truth(3, 4)}),
    Case("y = BitwiseNot (a)", {"a": BITS["a"]}),
    Case('y = BitShift <direction = "LEFT"> (a, b)', BITS),
    Case('y = BitShift <direction = "RIGHT"> (a, b)', BITS),
    Case("y = Mod <fmod = 1> (a, b)", {"a": real(4, 6), "b": real(4, 6, low=0.5, high=2.0)}, smooth=False),
    Case("y = Pow (a, b)", {"a": real(3, 4, low=0.1, high=2.0), "b": real(4)}),
    Case("y = Pow (a, b)", {"a": real(3, 4)}, {"b": scalar(2)}),
    Case("y = Pow (a, b)", {"a": real(3, 4)}, {"b": scalar(3, np.int64)}),
    Case("y = Sum (a, b, c)", {**BROADCAST, "c": real(1)}),
    Case("y = Mean (a, b, c)", {**BROADCAST, "c": real(1)}),
    Case("y = Max (a, b, c)", {**BROADCAST, "c": real(1)}),
    Case("y = Clip (x, low, high)", {"x": real(3, 7)}, {"low": scalar(-0.5), "high": scalar(0.7)}),
    Case("y = Clip (x, , high)", {"x": real(3, 7), "high": scalar(0.7)}),
    Case("y = Clip (x)", {"x": real(3, 7)}),
    Case("y = Clip <min = -0.5> (x)", {"x": real(3, 7)}, opset=9),
    Case("y = CumSum (x, axis)", {"x": real(3, 5)}, {"axis": scalar(1, np.int64)}),
    Case("y = CumSum <exclusive = 1, reverse = 1> (x, axis)", {"x": real(3, 5)}, {"axis": scalar(-2, np.int64)}),
    Case("y = CumSum (x, axis)", {"x": whole(3, 5, kind=np.int32)}, {"axis": scalar(0, np.int32)}),
    Case("y = Where (c, a, b)", {"c": truth(3, 4), "a": real(4), "b": real(3, 1)}),
    Case("y = IsNaN (x)", {"x": np.array([1, np.nan, np.inf], np.float32)}, smooth=False),
    Case("y = IsInf (x)", {"x": np.array([1, np.nan, np.inf, -np.inf], np.float32)}, smooth=False),
    Case("y = IsInf <detect_negative = 0> (x)", {"x": np.array([1, -np.inf, np.inf], np.float32)}, smooth=False),
    Case("y = Cast <to = 7> (x)", {"x": real(3, 4) * 5}, smooth=False),
    Case("y = Cast <to = 2> (x)", {"x": real(3, 4, low=0, high=250)}, smooth=False),
    Case("y = Cast <to = 1> (x)", {"x": truth(3, 4)}),
    Case("y = Cast <to = 11> (x)", {"x": real(3, 4)}),
    Case("y = CastLike (x, z)", {"x": real(3, 4) * 5, "z": whole(1)}, smooth=False),
    Case("y = Dropout (x)", {"x": real(3, 4)}),
    Case("y, m = Dropout (x, r)", {"x": real(3, 4)}, {"r": scalar(0.5)}),
    Case("y = Dropout (x)", {"x": real(3, 4)}, opset=9),
    Case("y = PRelu (x, s)", {"x": real(2, 3, 4)}, {"s": real(3, 1)}),
    Case("y = PRelu (x, s)", {"x": real(2, 3, 4)}, {"s": np.array([0.3], np.float32)}),
    Case("y = Elu <alpha = 0.5> (x)", {"x": real(3, 4)}),
    Case("y = Celu <alpha = 0.5> (x)", {"x": real(3, 4)}),
    Case("y = Selu <alpha = 2.0, gamma = 1.5> (x)", {"x": real(3, 4)}),
    Case("y = LeakyRelu <alpha = 0.2> (x)", {"x": real(3, 4)}),
    Case("y = ThresholdedRelu <alpha = 0.4> (x)", {"x": real(3, 4)}),
    Case("y = HardSigmoid <alpha = 0.4, beta = 0.3> (x)", {"x": real(3, 4)}),
    Case('y = Gelu <approximate = "tanh"> (x)', {"x": real(3, 4)}),
    Case("y = Shrink <lambd = 0.4, bias = 0.1> (x)", {"x": real(3, 4)}),
    Case("y = Softmax <axis = 1> (x)", {"x": real(2, 3, 4)}),
    Case("y = Softmax <axis = 1> (x)", {"x": real(2, 3, 4)}, opset=11),
    Case("y = Softmax (x)", {"x": real(2, 3, 4)}, opset=12),
    Case("y = LogSoftmax <axis = 0> (x)", {"x": real(3, 4)}, opset=12),
    Case("y = LogSoftmax <axis = -2> (x)", {"x": real(3, 4)}),
    Case("y = Hardmax <axis = 0> (x)", {"x": real(3, 4)}, smooth=False),
    Case("y = com.microsoft.QuickGelu (x)", {"x": real(3, 4)}),
    Case("y = com.microsoft.QuickGelu <alpha = 1.0> (x)", {"x": real(3, 4)}),
    Case("y = com.microsoft.Gelu (x)", {"x": real(3, 4)}),
    # ONNX Runtime approximates erf and tanh in some of its kernels.
    Case("y = com.microsoft.FastGelu (x, b)", {"x": real(3, 4)}, {"b": real(4)}, tolerance=1e-5),
    Case("y = com.microsoft.FastGelu (x)", {"x": real(3, 4)}, tolerance=1e-5),
    Case("y = com.microsoft.BiasGelu (x, b)", {"x": real(3, 4)}, {"b": real(4)}, tolerance=1e-5),
]
