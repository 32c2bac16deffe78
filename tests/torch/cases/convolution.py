"""Convolutions, pools and normalizations."""

from __future__ import annotations

from tests.torch.cases.case import Case, real

X = {"x": real(2, 4, 7, 9)}
W = {"w": real(6, 4, 3, 3)}


def conv(attributes: str, inputs: str = "x, w", **more: object) -> Case:
    constants = {**W, "b": real(6)} if "b" in inputs else W
    return Case(f"y = Conv <{attributes}> ({inputs})", X, constants, tolerance=2e-6)


CONVOLUTION = [
    conv("pads = [1, 1, 1, 1]", "x, w, b"),
    conv("pads = [0, 1, 2, 1], strides = [2, 1]", "x, w, b"),
    conv("dilations = [2, 2], pads = [2, 2, 2, 2]"),
    conv('auto_pad = "SAME_UPPER", strides = [2, 2]'),
    conv('auto_pad = "SAME_LOWER", strides = [2, 2]', "x, w, b"),
    conv('auto_pad = "VALID"'),
    Case("y = Conv <group = 4, pads = [1, 1, 1, 1]> (x, w, b)", X, {"w": real(8, 1, 3, 3), "b": real(8)}),
    Case("y = Conv <pads = [1, 2]> (x, w)", {"x": real(2, 4, 9)}, {"w": real(3, 4, 3)}),
    Case("y = Conv <strides = [1, 2, 1]> (x, w)", {"x": real(1, 2, 4, 5, 6)}, {"w": real(3, 2, 2, 2, 3)}),
    Case("y = Conv (x, w)", {"x": real(1, 3, 5, 5), "w": real(2, 3, 2, 2)}),
    Case("y = ConvTranspose <strides = [2, 2]> (x, w, b)", X, {"w": real(4, 3, 2, 2), "b": real(3)}),
    Case(
        "y = ConvTranspose <strides = [2, 2], pads = [1, 1, 1, 1], output_padding = [1, 1]> (x, w)",
        X,
        {"w": real(4, 3, 3, 3)},
    ),
    Case(
        "y = ConvTranspose <strides = [2, 3], pads = [0, 1, 1, 0]> (x, w, b)", X, {"w": real(4, 3, 3, 3), "b": real(3)}
    ),
    Case("y = ConvTranspose <strides = [2, 2], output_shape = [15, 18]> (x, w)", X, {"w": real(4, 3, 3, 3)}),
    Case('y = ConvTranspose <strides = [2, 2], auto_pad = "SAME_UPPER"> (x, w)', X, {"w": real(4, 3, 3, 3)}),
    Case('y = ConvTranspose <strides = [2, 2], auto_pad = "SAME_LOWER"> (x, w)', X, {"w": real(4, 3, 3, 3)}),
    Case("y = ConvTranspose <group = 2, dilations = [2, 1]> (x, w)", X, {"w": real(4, 3, 3, 3)}),
    Case("y = ConvTranspose <strides = [2]> (x, w)", {"x": real(2, 3, 6)}, {"w": real(3, 2, 4)}),
]

POOLS = [
    Case(f"y = {name} <kernel_shape = [3, 3], {attributes}> (x)", X)
    for name in ("MaxPool", "AveragePool")
    for attributes in (
        "strides = [2, 2]",
        "strides = [2, 2], pads = [1, 1, 1, 1]",
        "strides = [2, 2], pads = [0, 1, 1, 0]",
        "strides = [2, 3], ceil_mode = 1",
        "strides = [3, 3], pads = [1, 1, 1, 1], ceil_mode = 1",
        "dilations = [2, 2]",
        'strides = [2, 2], auto_pad = "SAME_UPPER"',
        'strides = [2, 2], auto_pad = "SAME_LOWER"',
    )
] + [
    Case("y, i = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)", X),
    Case("y, i = MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 0, 1, 1]> (x)", X),
    Case("y = MaxPool <kernel_shape = [2]> (x)", {"x": real(2, 3, 6)}),
    Case("y = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1> (x)", X),
    Case("y = AveragePool <kernel_shape = [3, 3], pads = [0, 1, 1, 0], count_include_pad = 1> (x)", X),
    Case("y = AveragePool <kernel_shape = [2, 2, 2]> (x)", {"x": real(1, 2, 3, 4, 5)}),
    Case("y = LpPool <kernel_shape = [2, 2], strides = [2, 2], p = 2> (x)", X),
    Case("y = LpPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], p = 3> (x)", X),
    Case("y = GlobalAveragePool (x)", X),
    Case("y = GlobalMaxPool (x)", X),
    Case("y = GlobalLpPool <p = 2> (x)", X),
]

CHANNELS = {"s": real(4), "b": real(4)}
LAST = {"s": real(9), "b": real(9)}

NORMALIZATION = [
    Case(
        "y = BatchNormalization <epsilon = 0.001> (x, s, b, m, v)", X,
        {**CHANNELS, "m": real(4), "v": real(4, low=0.5, high=2)},
    ),
    Case("y = InstanceNormalization (x, s, b)", X, CHANNELS, tolerance=1e-5),
    Case("y = GroupNormalization <num_groups = 2> (x, s, b)", X, CHANNELS, tolerance=1e-5),
    Case(
        "y = GroupNormalization <num_groups = 2> (x, s, b)", X, {"s": real(2), "b": real(2)}, opset=18, tolerance=1e-5
    ),
    Case("y = LayerNormalization (x, s, b)", X, LAST, tolerance=1e-5),
    Case("y = LayerNormalization <axis = 2, epsilon = 0.01> (x, s)", X, {"s": real(7, 9)}, tolerance=1e-5),
    Case("y, m, d = LayerNormalization (x, s, b)", X, LAST, tolerance=1e-5),
    Case("y = RMSNormalization (x, s)", X, {"s": real(9)}, opset=23, tolerance=1e-5),
    Case("y = LpNormalization <axis = 1, p = 2> (x)", X),
    Case("y = LpNormalization <axis = -1, p = 1> (x)", X),
    Case("y = MeanVarianceNormalization (x)", X, tolerance=1e-5),
    Case("y = LRN <size = 3, alpha = 0.1, beta = 0.6, bias = 1.5> (x)", X),
    Case("y = com.microsoft.SkipLayerNormalization (x, z, s, b, c)", {"x": real(2, 3, 8), "z": real(2, 3, 8)},
         {"s": real(8), "b": real(8), "c": real(8)}, tolerance=1e-5),
    Case("y, , , t = com.microsoft.SkipLayerNormalization (x, z, s, b)", {"x": real(2, 3, 8), "z": real(2, 3, 8)},
         {"s": real(8), "b": real(8)}, tolerance=1e-5),
    Case("y = com.microsoft.SkipSimplifiedLayerNormalization (x, z, s)", {"x": real(2, 3, 8), "z": real(2, 3, 8)},
         {"s": real(8)}, tolerance=1e-5),
]  # fmt: skip
