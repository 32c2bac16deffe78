"""The networks with linear layers, attention, and shapes that are computed."""

from __future__ import annotations

import numpy as np

from tests.passes.prune.channels.networks import Network

TRANSFORMERS = {
    "neurons": Network(
        """(float[B, S, 8] x) => (float[B, S, K] y) {
            [up] a = MatMul (x, w1)
            b = Add (b1, a)
            g = Gelu (b)
            [down] d = MatMul (g, w2)
            y = Add (d, x)
        }""",
        {"w1": (8, 20), "b1": (20,), "w2": (20, 8)},
        {"up": ("neurons", 20, 1)},
    ),
    "gated neurons": Network(
        """(float[B, S, 8] x) => (float[B, S, K] y) {
            [gate] a = MatMul (x, w1)
            [up] b = MatMul (x, w2)
            s = Sigmoid (a)
            t = Mul (a, s)
            m = Mul (t, b)
            [down] y = MatMul (m, w3)
        }""",
        {"w1": (8, 20), "w2": (8, 20), "w3": (20, 8)},
        {"gate": ("neurons", 20, 1)},
    ),
    "heads": Network(
        """(float[B, S, 12] x, float[B, S, S] mask) => (float[B, S, K] y) {
            [q] a = MatMul (x, wq)
            ab = Add (a, bq)
            [k] b = MatMul (x, wk)
            [v] c = MatMul (x, wv)
            ar = Reshape (ab, apart)
            br = Reshape (b, apart)
            cr = Reshape (c, apart)
            at = Transpose <perm = [0, 2, 1, 3]> (ar)
            bt = Transpose <perm = [0, 2, 3, 1]> (br)
            ct = Transpose <perm = [0, 2, 1, 3]> (cr)
            s = MatMul (at, bt)
            m = Unsqueeze (mask, one)
            sm = Add (s, m)
            p = Softmax (sm)
            o = MatMul (p, ct)
            ot = Transpose <perm = [0, 2, 1, 3]> (o)
            z = Reshape (ot, together)
            [out] y = MatMul (z, wo)
        }""",
        {"wq": (12, 12), "bq": (12,), "wk": (12, 12), "wv": (12, 20), "wo": (20, 12)},
        {"q": ("heads", 4, 3)},
        {"apart": [0, 0, 4, -1], "together": [0, 0, 20], "one": [1]},
    ),
    "packed heads, shapes computed": Network(
        """(float[B, S, 12] x) => (float[B, S, K] y) {
            [qkv] a = MatMul (x, w)
            b = Add (a, bias)
            shape = Shape <start = 0, end = 2> (x)
            target = Concat <axis = 0> (shape, three, heads, width)
            r = Reshape (b, target)
            t = Transpose <perm = [2, 0, 3, 1, 4]> (r)
            q = Gather <axis = 0> (t, i0)
            k = Gather <axis = 0> (t, i1)
            v = Gather <axis = 0> (t, i2)
            kt = Transpose <perm = [0, 1, 3, 2]> (k)
            s = MatMul (q, kt)
            p = Softmax (s)
            o = MatMul (p, v)
            ot = Transpose <perm = [0, 2, 1, 3]> (o)
            back = Concat <axis = 0> (shape, all)
            z = Reshape <allowzero = 1> (ot, back)
            [out] y = MatMul (z, wo)
        }""",
        {"w": (12, 36), "bias": (36,), "wo": (12, 12)},
        {"qkv": ("heads", 4, 9)},
        {
            "three": [3], "heads": [4], "width": [3], "all": [12],
            **{f"i{i}": np.array(i, np.int64) for i in range(3)},
        },
    ),
    "heads split before they are parted, batch flattened": Network(
        """(float[2, 5, 12] x) => (float[2, 5, K] y) {
            [qkv] a = MatMul (x, w)
            q, k, v = Split <axis = 2, num_outputs = 3> (a)
            qr = Reshape (q, apart)
            kr = Reshape (k, apart)
            vr = Reshape (v, apart)
            qt = Transpose <perm = [0, 2, 1, 3]> (qr)
            kt = Transpose <perm = [0, 2, 3, 1]> (kr)
            vt = Transpose <perm = [0, 2, 1, 3]> (vr)
            qf = Reshape (qt, rows)
            kf = Reshape (kt, columns)
            vf = Reshape (vt, rows)
            s = MatMul (qf, kf)
            p = Softmax (s)
            o = MatMul (p, vf)
            of = Reshape (o, unflat)
            ot = Transpose <perm = [0, 2, 1, 3]> (of)
            z = Reshape (ot, together)
            [out] y = MatMul (z, wo)
        }""",
        {"w": (12, 36), "wo": (12, 12)},
        {"qkv": ("heads", 4, 9)},
        {
            "apart": [2, 5, 4, 3], "rows": [8, 5, 3], "columns": [8, 3, 5], "unflat": [2, 4, 5, 3],
            "together": [2, 5, 12],
        },
    ),
    "grouped queries": Network(
        """(float[2, 5, 12] x) => (float[2, 5, K] y) {
            [q] a = MatMul (x, wq)
            [k] b = MatMul (x, wk)
            [v] c = MatMul (x, wv)
            ar = Reshape (a, six)
            br = Reshape (b, two)
            cr = Reshape (c, two)
            at = Transpose <perm = [0, 2, 1, 3]> (ar)
            bt = Transpose <perm = [0, 2, 3, 1]> (br)
            ct = Transpose <perm = [0, 2, 1, 3]> (cr)
            bu = Unsqueeze (bt, axis)
            cu = Unsqueeze (ct, axis)
            be = Expand (bu, manyk)
            ce = Expand (cu, manyv)
            bf = Reshape (be, flatk)
            cf = Reshape (ce, flatv)
            s = MatMul (at, bf)
            p = Softmax (s)
            o = MatMul (p, cf)
            ot = Transpose <perm = [0, 2, 1, 3]> (o)
            z = Reshape (ot, together)
            [out] y = MatMul (z, wo)
        }""",
        {"wq": (12, 12), "wk": (12, 4), "wv": (12, 4), "wo": (12, 12)},
        {"q": ("heads", 2, 6), "q#2": ("heads", 3, 4)},
        {
            "six": [2, 5, 6, 2], "two": [2, 5, 2, 2], "axis": [2], "manyk": [2, 2, 3, 2, 5], "manyv": [2, 2, 3, 5, 2],
            "flatk": [2, 6, 2, 5], "flatv": [2, 6, 5, 2], "together": [2, 5, 12],
        },
    ),
    "heads by Einsum": Network(
        """(float[B, S, 12] x) => (float[B, S, K] y) {
            [q] a = Einsum <equation = "bse,ehd->bshd"> (x, wq)
            [k] b = Einsum <equation = "bse,ehd->bshd"> (x, wk)
            [v] c = Einsum <equation = "bse,ehd->bshd"> (x, wv)
            s = Einsum <equation = "bqhd,bkhd->bhqk"> (a, b)
            p = Softmax (s)
            o = Einsum <equation = "bhqk,bkhd->bqhd"> (p, c)
            [out] y = Einsum <equation = "bqhd,hde->bqe"> (o, wo)
        }""",
        {"wq": (12, 4, 3), "wk": (12, 4, 3), "wv": (12, 4, 5), "wo": (4, 5, 12)},
        # Heads and widths are axes of their own here: each can be cut.
        {"q": ("heads", 4, 1), "q#2": ("neurons", 3, 1), "v": ("neurons", 5, 1)},
    ),
    "a layer read as columns": Network(
        """(float[8, S] x) => (float[K, S] y) {
            [up] a = MatMul (w1, x)
            b = Relu (a)
            [down] y = Gemm (w2, b)
        }""",
        {"w1": (10, 8), "w2": (8, 10)},
        {"up": ("neurons", 10, 1)},
    ),
    "a shape taken from what is cut": Network(
        """(float[B, 8] x) => (float[B, K] y) {
            [up] a = MatMul (x, w1)
            shape = Shape (a)
            zero = Expand (nought, shape)
            m = Max (a, zero)
            cube = Reshape (m, apart)
            r = Reshape (cube, shape)
            [down] y = MatMul (r, w2)
        }""",
        {"w1": (8, 10), "nought": (1, 1), "w2": (10, 8)},
        {"up": ("neurons", 10, 1)},
        {"apart": [0, 10, 1]},
    ),
}  # fmt: skip

COMPUTED = {
    "resized to what another value has": Network(
        """(float[N, 3, H, W] x) => (float[N, M, P, Q] y) {
            [c1] a = Conv <strides = [2, 2]> (x, w1)
            whole = Shape (x)
            batch = Slice (whole, zero, one)
            places = Gather <axis = 0> (whole, order)
            sizes = Concat <axis = 0> (batch, six, places)
            u = Resize <mode = "nearest"> (a, , , sizes)
            [c2] b = Conv (x, w2)
            s = Add (u, b)
            own = Shape (s)
            v = Resize <mode = "nearest"> (a, , , own)
            [c3] y = Conv (v, w3)
        }""",
        {"w1": (6, 3, 1, 1), "w2": (6, 3, 1, 1), "w3": (4, 6, 1, 1)},
        {"c1": ("channels", 6, 1)},
        {"zero": [0], "one": [1], "six": [6], "order": [2, 3]},
    ),
    "expanded to a shape of numbers and axes": Network(
        """(float[B, S, 8] x) => (float[B, S, K] y) {
            [up] a = MatMul (x, w1)
            front = Shape <end = 2> (x)
            target = Concat <axis = 0> (front, ten)
            e = Expand (narrow, target)
            f = Expand (row, target)
            g = Expand (a, target)
            s = Sum (a, e, f, g)
            [down] y = MatMul (s, w2)
        }""",
        {"w1": (8, 10), "narrow": (1, 1, 1), "row": (10,), "w2": (10, 8)},
        {"up": ("neurons", 10, 1)},
        {"ten": [10]},
    ),
    "a target with a number that is not followed": Network(
        """(float[B, S, 8] x) => (float[B, S, K] y) {
            [up] a = MatMul (x, w1)
            front = Shape <end = 2> (x)
            count = ReduceProd (front)
            back = Concat <axis = 0> (count, ten)
            r = Reshape (a, back)
            t = Concat <axis = 0> (front, ten)
            u = Reshape (r, t)
            [down] y = MatMul (u, w2)
        }""",
        {"w1": (8, 10), "w2": (10, 8)},
        {"up": ("neurons", 10, 1)},
        {"ten": [10]},
    ),
    "a shape that two share which are not coupled": Network(
        """(float[B, 8] x) => (float[B, K] y) {
            [up] a = MatMul (x, w1)
            shape = Shape (a)
            p = Reshape (a, apart)
            q = Reshape (p, shape)
            [down] b = MatMul (q, w2)
            [up2] c = MatMul (x, w3)
            r = Reshape (c, apart)
            s = Reshape (r, shape)
            [down2] d = MatMul (s, w4)
            y = Add (b, d)
        }""",
        {"w1": (8, 10), "w2": (10, 8), "w3": (8, 10), "w4": (10, 8)},
        {"up": ("neurons", 10, 1), "up2": ("neurons", 10, 1)},
        {"apart": [0, 1, 10]},
    ),
    "rows whose number is open": Network(
        """(float[B, S, 8] x) => (float[B, S, K] y) {
            [up] a = MatMul (x, w1)
            r = Reshape (a, rows)
            m = Mul (r, scale)
            front = Shape <end = 2> (x)
            back = Concat <axis = 0> (front, twelve)
            s = Reshape (m, back)
            [down] y = MatMul (s, w2)
        }""",
        {"w1": (8, 12), "scale": (4, 1), "w2": (12, 8)},
        {"up": ("neurons", 4, 3), "up#2": ("neurons", 3, 4)},
        {"rows": [-1, 4, 3], "twelve": [12]},
    ),
    "opset 11, axes as attributes": Network(
        """(float[N, 3, 6, 6] x) => (float[N, K] y) {
            [c1] a = Conv (x, w1)
            p, q = Split <axis = 1, split = [4, 5]> (a)
            [c2] b = Conv (p, w2)
            c = Add (b, q)
            m = ReduceMean <axes = [2, 3]> (c)
            e = ReduceMax <axes = [2], keepdims = 0> (c)
            f = ReduceSum <axes = [2], keepdims = 1> (e)
            u = Unsqueeze <axes = [3]> (f)
            s = Sum (m, u)
            g = Squeeze <axes = [2, 3]> (s)
            [l1] h = Gemm <transA = 0> (g, w3)
            y = Softmax (h)
        }""",
        {"w1": (9, 3, 1, 1), "w2": (5, 4, 1, 1), "w3": (5, 4)},
        {"c1": ("channels", 4, 1), "c1#2": ("channels", 5, 1)},
        opset=11,
    ),
}  # fmt: skip
