"""The networks: one for each way in which channels are coupled."""

from __future__ import annotations

import numpy as np

from tests.passes.prune.channels.linear_cases import COMPUTED, TRANSFORMERS
from tests.passes.prune.channels.networks import Network

CONVOLUTIONS = {
    "chain with BatchNormalization": Network(
        """(float[N, 3, 8, 8] x) => (float[N, M, H, W] y) {
            [c1] a = Conv (x, w1, b1)
            [bn] n = BatchNormalization (a, scale, shift, mean, var)
            r = Relu (n)
            [c2] y = Conv (r, w2)
        }""",
        {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (4, 8, 3, 3), "scale": (8,), "shift": (8,), "mean": (8,), "var": (8,)},
        {"c1": ("channels", 8, 1)},
    ),
    "residual": Network(
        """(float[N, 3, 8, 8] x) => (float[N, M, H, W] y) {
            [c1] a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
            [c2] b = Conv <pads = [1, 1, 1, 1]> (a, w2)
            r = Relu (b)
            [c3] c = Conv <pads = [1, 1, 1, 1]> (r, w3)
            s = Add (c, a)
            [c4] y = Conv (s, w4)
        }""",
        {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (12, 8, 3, 3), "w3": (8, 12, 3, 3), "w4": (4, 8, 1, 1)},
        {"c1": ("channels", 8, 1), "c2": ("channels", 12, 1)},
    ),
    "depthwise, with squeeze and excite": Network(
        """(float[N, 3, 8, 8] x) => (float[N, M, H, W] y) {
            [up] a = Conv (x, w1, b1)
            [deep] d = Conv <group = 8, pads = [1, 1, 1, 1]> (a, w2, b2)
            h = HardSwish (d)
            p = GlobalAveragePool (h)
            [se1] s = Conv (p, w3, b3)
            t = Relu (s)
            [se2] u = Conv (t, w4, b4)
            v = Sigmoid (u)
            m = Mul (h, v)
            [down] y = Conv (m, w5)
        }""",
        {
            "w1": (8, 3, 1, 1), "b1": (8,), "w2": (8, 1, 3, 3), "b2": (8,), "w3": (4, 8, 1, 1), "b3": (4,),
            "w4": (8, 4, 1, 1), "b4": (8,), "w5": (4, 8, 1, 1),
        },
        {"up": ("channels", 8, 1), "se1": ("channels", 4, 1)},
    ),
    "depthwise with a multiplier": Network(
        """(float[N, 3, 8, 8] x) => (float[N, M, H, W] y) {
            [up] a = Conv (x, w1)
            [deep] d = Conv <group = 4> (a, w2, b2)
            [down] y = Conv (d, w3)
        }""",
        {"w1": (4, 3, 1, 1), "w2": (12, 1, 3, 3), "b2": (12,), "w3": (4, 12, 1, 1)},
        {"up": ("channels", 4, 1), "deep": ("channels", 3, 4)},
    ),
    "groups": Network(
        """(float[N, 3, 8, 8] x) => (float[N, M, H, W] y) {
            [c1] a = Conv (x, w1, b1)
            [c2] b = Conv <group = 4> (a, w2, b2)
            [c3] y = Conv (b, w3)
        }""",
        {"w1": (12, 3, 1, 1), "b1": (12,), "w2": (8, 3, 3, 3), "b2": (8,), "w3": (4, 8, 1, 1)},
        # Groups go whole, or the same channel of every group.
        {"c1": ("channels", 4, 3), "c1#2": ("channels", 3, 4), "c2": ("channels", 2, 4)},
    ),
    "transposed": Network(
        """(float[N, 3, 4, 4] x) => (float[N, M, H, W] y) {
            [c1] a = Conv (x, w1, b1)
            [t1] b = ConvTranspose <strides = [2, 2]> (a, w2, b2)
            [t2] c = ConvTranspose <group = 2> (b, w3, b3)
            [c4] y = Conv (c, w4)
        }""",
        {
            "w1": (8, 3, 1, 1), "b1": (8,), "w2": (8, 6, 2, 2), "b2": (6,), "w3": (6, 5, 2, 2), "b3": (10,),
            "w4": (4, 10, 1, 1),
        },
        # The weight of t2 holds a channel once for all groups.
        {
            "c1": ("channels", 8, 1), "t1": ("channels", 2, 3), "t1#2": ("channels", 3, 2), "t2": ("channels", 5, 1),
        },
    ),
    "upsampled": Network(
        """(float[N, 3, 8, 8] x) => (float[N, M, H, W] y) {
            [c1] a = Conv <pads = [1, 1, 1, 1]> (x, w1)
            p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (a)
            [c2] b = Conv (p, w2)
            u = Resize <mode = "nearest"> (b, , scales)
            v = Resize <mode = "nearest"> (p, , , sizes)
            s = Add (u, a)
            c = Concat <axis = 1> (s, v)
            [c3] y = Conv (c, w3)
        }""",
        {"w1": (8, 3, 3, 3), "w2": (8, 8, 1, 1), "w3": (4, 16, 1, 1)},
        {"c1": ("channels", 8, 1)},
        {"scales": np.array([1, 1, 2, 2], np.float32), "sizes": [2, 8, 8, 8]},
    ),
}  # fmt: skip

JOINED = {
    "concat": Network(
        """(float[N, 3, 8, 8] x) => (float[N, M, H, W] y) {
            [c1] a = Conv (x, w1)
            [c2] b = Conv (x, w2)
            c = Concat <axis = 1> (a, b, a)
            r = Relu (c)
            [c3] y = Conv (r, w3, b3)
        }""",
        {"w1": (6, 3, 3, 3), "w2": (10, 3, 3, 3), "w3": (4, 22, 1, 1), "b3": (4,)},
        {"c1": ("channels", 6, 1), "c2": ("channels", 10, 1)},
    ),
    "concat before a residual, a depthwise one and Flatten": Network(
        """(float[N, 3, 4, 4] x) => (float[N, K] y) {
            [c1] a = Conv (x, w1)
            [c2] b = Conv (x, w2)
            c = Concat <axis = 1> (a, b)
            [c3] d = Conv <group = 12> (c, w3, b3)
            [c4] e = Conv (c, w4)
            s = Add (d, e)
            f = Flatten (s)
            [fc] y = Gemm <transB = 1> (f, w5, b5)
        }""",
        {
            "w1": (4, 3, 1, 1), "w2": (8, 3, 1, 1), "w3": (12, 1, 1, 1), "b3": (12,), "w4": (12, 12, 1, 1),
            "w5": (5, 192), "b5": (5,),
        },
        {"c1": ("channels", 4, 1), "c2": ("channels", 8, 1)},
    ),
    "split": Network(
        """(float[N, 3, 8, 8] x) => (float[N, M, H, W] y) {
            [c1] a = Conv (x, w1, b1)
            p, q, r = Split <axis = 1> (a, parts)
            [c2] b = Conv (p, w2)
            m = Mul (q, r)
            s = Add (b, m)
            [c3] y = Conv (s, w3)
        }""",
        {"w1": (14, 3, 3, 3), "b1": (14,), "w2": (5, 4, 1, 1), "w3": (4, 5, 1, 1)},
        {"c1": ("channels", 4, 1), "c1#2": ("channels", 5, 2)},
        {"parts": [4, 5, 5]},
    ),
    "equal split (a gated unit), then windows": Network(
        """(float[N, 3, 8, 8] x) => (float[N, M, H, W] y) {
            [c1] a = Conv (x, w1, b1)
            p, q = Split <axis = 1, num_outputs = 2> (a)
            g = Sigmoid (q)
            m = Mul (p, g)
            u = Slice (m, zero, four, axis)
            v = Slice (m, minus, far, axis)
            [c2] b = Conv (u, w2)
            [c3] c = Conv (v, w3)
            y = Add (b, c)
        }""",
        {"w1": (12, 3, 1, 1), "b1": (12,), "w2": (4, 4, 1, 1), "w3": (4, 3, 1, 1)},
        # The windows share channel 3, which goes with neither side.
        {"c1": ("channels", 3, 2), "c1#2": ("channels", 2, 2)},
        {"zero": [0], "four": [4], "minus": [-3], "far": [9223372036854775807], "axis": [1]},
    ),
    "channels padded with zeros": Network(
        """(float[N, 3, 8, 8] x) => (float[N, M, H, W] y) {
            [c1] a = Conv (x, w1)
            p = Pad (a, pads)
            [c2] b = Conv (a, w2)
            s = Add (p, b)
            [c3] y = Conv (s, w3)
        }""",
        {"w1": (4, 3, 3, 3), "w2": (10, 4, 1, 1), "w3": (4, 10, 1, 1)},
        {"c1": ("channels", 4, 1)},
        {"pads": [0, 2, 0, 0, 0, 4, 0, 0]},
    ),
    "channel shuffle": Network(
        """(float[N, 3, 4, 4] x) => (float[N, M, H, W] y) {
            [c1] a = Conv (x, w1)
            b = Reshape (a, apart)
            t = Transpose <perm = [0, 2, 1, 3, 4]> (b)
            c = Reshape (t, together)
            [c2] y = Conv (c, w2)
        }""",
        {"w1": (12, 3, 1, 1), "w2": (4, 12, 1, 1)},
        {"c1": ("channels", 3, 4), "c1#2": ("channels", 4, 3)},
        {"apart": [0, 3, 4, 4, 4], "together": [-1, 12, 4, 4]},
    ),
    "depth to space and back": Network(
        """(float[N, 3, 4, 4] x) => (float[N, M, H, W] y) {
            [c1] a = Conv (x, w1)
            d = DepthToSpace <blocksize = 2> (a)
            [c2] b = Conv (d, w2)
            e = DepthToSpace <blocksize = 2, mode = "CRD"> (b)
            [c3] f = Conv (e, w3)
            s = SpaceToDepth <blocksize = 2> (f)
            [c4] y = Conv (s, w4)
        }""",
        {"w1": (12, 3, 1, 1), "w2": (8, 3, 1, 1), "w3": (5, 2, 1, 1), "w4": (4, 20, 1, 1)},
        {"c1": ("channels", 3, 4), "c2": ("channels", 2, 4), "c3": ("channels", 5, 1)},
    ),
    "norms and slopes": Network(
        """(float[N, 3, 8, 8] x) => (float[N, M, H, W] y) {
            [c1] a = Conv (x, w1)
            i = InstanceNormalization (a, scale, shift)
            p = PRelu (i, slope)
            m = Mul (p, factor)
            q = Add (m, one)
            [c2] b = Conv (q, w2)
            n = GroupNormalization <num_groups = 4> (b, gamma, beta)
            [c3] y = Conv (n, w3)
        }""",
        {
            "w1": (8, 3, 3, 3), "scale": (8,), "shift": (8,), "slope": (8, 1, 1), "factor": (1, 8, 1, 1), "one": (1,),
            "w2": (12, 8, 1, 1), "gamma": (12,), "beta": (12,), "w3": (4, 12, 1, 1),
        },
        {"c1": ("channels", 8, 1), "c2": ("channels", 4, 3)},
    ),
    "two flattened ways": Network(
        """(float[N, 3, 4, 4] x) => (float[N, K] y) {
            [c1] a = Conv (x, w1)
            g = GlobalAveragePool (a)
            f = Reshape (g, flat)
            r = Reshape (a, rows)
            [l1] h = MatMul (f, w2)
            [l2] i = MatMul (r, w3)
            y = Add (h, i)
        }""",
        {"w1": (6, 3, 1, 1), "w2": (6, 5), "w3": (96, 5)},
        {"c1": ("channels", 6, 1)},
        {"flat": [0, 6], "rows": [-1, 96]},
    ),
}  # fmt: skip

NETWORKS = {**CONVOLUTIONS, **JOINED, **TRANSFORMERS, **COMPUTED}
