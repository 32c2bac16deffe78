"""Shapes, indices and padding."""

from __future__ import annotations

import numpy as np

from tests.torch.cases.case import Case, ints, real, scalar, truth, whole

X = {"x": real(2, 3, 4)}
IMAGE = {"x": real(1, 8, 4, 6)}

SHAPES = [
    Case("y = Shape (x)", X, smooth=False),
    Case("y = Shape <start = 1, end = -1> (x)", X, smooth=False),
    Case("y = Size (x)", X, smooth=False),
    Case("y = Reshape (x, s)", X, {"s": ints(0, -1)}),
    Case("y = Reshape (x, s)", X, {"s": ints(4, 3, 2)}),
    Case("y = Reshape <allowzero = 1> (x, s)", {"x": real(0, 3)}, {"s": ints(0, 5)}, smooth=False),
    Case("y = Flatten (x)", X),
    Case("y = Flatten <axis = 0> (x)", X),
    Case("y = Flatten <axis = -1> (x)", X),
    Case("y = Transpose (x)", X),
    Case("y = Transpose <perm = [1, 0, 2]> (x)", X),
    Case("y = Concat <axis = 1> (x, z)", {**X, "z": real(2, 1, 4)}),
    Case("y = Concat <axis = -1> (x, z, x)", {**X, "z": real(2, 3, 1)}),
    Case("y = Squeeze (x)", {"x": real(1, 3, 1)}),
    Case("y = Squeeze (x, a)", {"x": real(1, 3, 1)}, {"a": ints(-1)}),
    Case("y = Squeeze <axes = [0, 2]> (x)", {"x": real(1, 3, 1)}, opset=11),
    Case("y = Unsqueeze (x, a)", X, {"a": ints(0, -1)}),
    Case("y = Unsqueeze <axes = [3, 1]> (x)", X, opset=11),
    Case("y = Expand (x, s)", {"x": real(3, 1)}, {"s": ints(2, 1, 4)}),
    Case("y = Tile (x, r)", X, {"r": ints(1, 2, 3)}),
    Case("y, z = Split (x, s)", X, {"s": ints(1, 1)}),
    Case("a, b = Split <axis = 1> (x, s)", X, {"s": ints(1, 2)}),
    Case("a, b = Split <axis = -1, num_outputs = 2> (x)", X),
    Case("a, b, c = Split <axis = 2, num_outputs = 3> (x)", {"x": real(2, 3, 7)}),
    Case("a, b = Split <axis = 1, split = [2, 1]> (x)", X, opset=11),
    Case("y = Slice (x, s, e, a, t)", X, {"s": ints(0, 3), "e": ints(2, -5), "a": ints(1, -1), "t": ints(1, -2)}),
    Case("y = Slice (x, s, e)", X, {"s": ints(1, -2), "e": ints(9223372036854775807, 100)}),
    Case("y = Slice (x, s, e, a, t)", X, {"s": ints(100), "e": ints(-(2**63)), "a": ints(2), "t": ints(-1)}),
    Case("y = Slice (x, s, e, a)", X, {"s": ints(3), "e": ints(1), "a": ints(2)}, smooth=False),
    Case("y = Slice <starts = [1], ends = [3], axes = [2]> (x)", X, opset=9),
    Case("y = ConstantOfShape (s)", {"s": ints(2, 3)}),
    Case("y = ConstantOfShape <value = int64[1] {7}> (s)", {"s": ints(4)}),
    Case("y = Range (a, b, c)", {"a": scalar(1, np.int64), "b": scalar(10, np.int64), "c": scalar(3, np.int64)}),
    Case("y = Range (a, b, c)", {"a": scalar(2), "b": scalar(-1), "c": scalar(-0.5)}, smooth=False),
    Case("y = EyeLike <k = 1> (x)", {"x": real(3, 4)}, smooth=False),
    Case("y = EyeLike <dtype = 7> (x)", {"x": real(3, 4)}, smooth=False),
    Case("y = Trilu (x)", X),
    Case("y = Trilu <upper = 0> (x, k)", X, {"k": scalar(1, np.int64)}),
    Case("y = DepthToSpace <blocksize = 2> (x)", IMAGE),
    Case('y = DepthToSpace <blocksize = 2, mode = "CRD"> (x)', IMAGE),
    Case("y = SpaceToDepth <blocksize = 2> (x)", IMAGE),
    # Shape arithmetic, as exporters write it.
    Case(
        "s = Shape (x)\nf = Slice (s, zero, one)\ng = Mul (f, two)\n"
        "t = Concat <axis = 0> (g, minus)\ny = Reshape (x, t)",
        X, {"zero": ints(0), "one": ints(1), "two": ints(2), "minus": ints(-1)},
    ),
]  # fmt: skip

PADS = {"p": ints(0, 1, 2, 1, 0, 1)}
INDEXING = [
    Case("y = Pad (x, p)", X, PADS),
    Case("y = Pad (x, p, v)", X, {**PADS, "v": scalar(0.5)}),
    Case("y = Pad (x, p)", X, {"p": ints(0, -1, 1, 1, 0, -2)}),
    Case('y = Pad <mode = "reflect"> (x, p)', X, PADS),
    Case('y = Pad <mode = "edge"> (x, p)', X, PADS),
    Case('y = Pad <mode = "wrap"> (x, p)', X, PADS),
    Case('y = Pad <mode = "edge"> (x, p, , a)', X, {"p": ints(1, 2), "a": ints(-1)}),
    Case("y = Pad <pads = [0, 1, 2, 1, 0, 1], value = 2.0> (x)", X, opset=10),
    Case("y = Gather (x, i)", X, {"i": ints(1, -1, 0)}),
    Case("y = Gather <axis = 2> (x, i)", {**X, "i": whole(2, 2, low=-4, high=4)}),
    Case("y = Gather <axis = 1> (x, i)", X, {"i": scalar(2, np.int64)}),
    Case("y = Gather (t, i)", {"i": whole(2, 5, low=0, high=6)}, {"t": real(6, 3)}),
    Case("y = GatherElements <axis = 1> (x, i)", {**X, "i": whole(2, 2, 4, low=-3, high=3)}),
    Case("y = GatherND (x, i)", {**X, "i": ints(0, 1, 1, -1).reshape(2, 2)}),
    Case("y = GatherND <batch_dims = 1> (x, i)", {**X, "i": ints(0, 2).reshape(2, 1)}),
    Case(
        "y = ScatterElements <axis = 1> (x, i, u)",
        {**X, "i": np.stack([np.arange(4) % 3] * 2)[:, None], "u": real(2, 1, 4)},
    ),
    *(
        Case(
            f'y = ScatterElements <axis = 2, reduction = "{how}"> (x, i, u)',
            {**X, "i": whole(2, 3, 4, low=0, high=4), "u": real(2, 3, 4)},
        )
        for how in ("add", "mul", "max", "min")
    ),
    Case("y = Scatter (x, i, u)", {**X, "i": np.zeros((1, 3, 4), np.int64), "u": real(1, 3, 4)}, opset=10),
    Case("y = ScatterND (x, i, u)", {**X, "i": ints(0, 1, 1, -1).reshape(2, 2), "u": real(2, 4)}),
    *(
        Case(
            f'y = ScatterND <reduction = "{how}"> (x, i, u)',
            {**X, "i": ints(0, 1, 0, 1).reshape(2, 2), "u": real(2, 4)},
        )
        for how in ("add", "mul", "max", "min")
    ),
    Case("y = OneHot (i, d, v)", {"i": whole(3, 2, low=-5, high=5)}, {"d": ints(5), "v": real(2)}),
    Case("y = OneHot <axis = 0> (i, d, v)", {"i": whole(3, low=0, high=4)}, {"d": ints(4), "v": ints(0, 1)}),
    Case("y, i = TopK (x, k)", X, {"k": ints(2)}),
    Case("y, i = TopK <axis = 1, largest = 0> (x, k)", X, {"k": ints(2)}),
    Case("y, i = TopK (x, k)", {"x": np.array([[1, 2, 2, 1]], np.float32)}, {"k": ints(3)}, smooth=False),
    Case("y, i = TopK <k = 2> (x)", X, opset=9),
    Case("y = Compress <axis = 1> (x, c)", {**X, "c": np.array([True, False, True])}),
    Case("y = Compress (x, c)", {**X, "c": truth(24)}),
    Case("y = NonZero (c)", {"c": truth(3, 4)}),
    Case("y, f, i, c = Unique (x)", {"x": whole(12, low=0, high=4)}),
    Case("y, f, i, c = Unique <sorted = 0> (x)", {"x": whole(12, low=0, high=4)}),
    Case("y, f, i, c = Unique <axis = 0> (x)", {"x": whole(6, 2, low=0, high=2)}),
    Case("y = ReverseSequence <time_axis = 0, batch_axis = 1> (x, n)", {"x": real(4, 3, 2), "n": ints(1, 4, 2)}),
    Case("y = ReverseSequence <time_axis = 1, batch_axis = 0> (x, n)", {"x": real(3, 4), "n": ints(1, 4, 2)}),
]  # fmt: skip
