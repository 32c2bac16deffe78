"""Random layers for the kernels of weight_only.cu, run and held to their definition in double precision."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxcompress.ops.activation import activation_reference
from onnxcompress.ops.qlinear4 import pack4
from tests.cuda.emulated import Emulated
from tests.cuda.epilogue import activation_number

Array = np.ndarray[Any, Any]

BINDINGS = """
#include <algorithm>
#include <limits>
#include "cuda/weight_only.hpp"
#include "cuda/weight_only_pack.hpp"
using namespace oc::cuda;

static void copy_plan(const WeightOnlyPlan& plan, int64_t* facts) {
  facts[0] = plan.tile_rows, facts[1] = plan.splits, facts[2] = plan.partial, facts[3] = plan.arrived;
}

// What a caller does: pack, plan, give scratch memory of the plan's sizes, launch.
static void run_weight_only(const WeightOnlySource& gate, const WeightOnlySource* up, WeightOnlyLayer& layer,
                            int multiprocessors, int64_t* facts) {
  const PackedWeightOnly packed = up ? pack_weight_only(gate, *up) : pack_weight_only(gate);
  const uint8_t* zero_point = packed.zero_point.empty() ? nullptr : packed.zero_point.data();
  layer.w = {packed.bits, packed.n, packed.k, packed.blocks, packed.chunk_shift,
             packed.words.data(), packed.scale.data(), zero_point, packed.channel.data()};
  const WeightOnlyPlan plan = plan_weight_only(layer, multiprocessors);
  copy_plan(plan, facts);
  std::vector<float> partial(plan.partial, std::numeric_limits<float>::quiet_NaN());
  std::vector<int> arrived(plan.arrived);
  layer.partial = partial.data(), layer.arrived = arrived.data();
  weight_only(layer, plan, nullptr);
  facts[4] = std::count(arrived.begin(), arrived.end(), 0);
}
static void plan(int m, int n, int k, int multiprocessors, int64_t* facts) {
  WeightOnlyLayer layer;
  layer.m = m, layer.w.n = n, layer.w.k = k;
  copy_plan(plan_weight_only(layer, multiprocessors), facts);
}
static void pack(const WeightOnlySource& source, uint32_t* words, uint16_t* scale, uint8_t* zero_point,
                 float* channel) {
  const PackedWeightOnly packed = pack_weight_only(source);
  std::copy(packed.words.begin(), packed.words.end(), words);
  std::copy(packed.scale.begin(), packed.scale.end(), scale);
  std::copy(packed.zero_point.begin(), packed.zero_point.end(), zero_point);
  std::copy(packed.channel.begin(), packed.channel.end(), channel);
}
OC_EXPORT(weight_only, run_weight_only)
OC_EXPORT(plan, plan)
OC_EXPORT(pack, pack)
OC_EXPORT_SIZE(WeightOnlySource)
OC_EXPORT_SIZE(WeightOnlyLayer)
"""


class WeightOnlySource(ctypes.Structure):
    """Of csrc/cuda/weight_only_pack.hpp."""

    _fields_ = (
        *((name, ctypes.c_int) for name in ("bits", "n", "k", "block")),
        ("codes", ctypes.c_void_p),
        ("is_signed", ctypes.c_bool),
        ("scale", ctypes.c_void_p),
        ("zero_point", ctypes.c_void_p),
    )


class WeightOnlyMatrix(ctypes.Structure):
    """Of csrc/cuda/weight_only.hpp; the bindings fill it in."""

    _fields_ = (
        *((name, ctypes.c_int) for name in ("bits", "n", "k", "blocks", "chunk_shift")),
        *((name, ctypes.c_void_p) for name in ("words", "scale", "zero_point", "channel")),
    )


class WeightOnlyLayer(ctypes.Structure):
    """Of csrc/cuda/weight_only.hpp."""

    _fields_ = (
        ("w", WeightOnlyMatrix),
        ("m", ctypes.c_int),
        *((name, ctypes.c_void_p) for name in ("x", "bias", "residual", "y")),
        ("activation", ctypes.c_int),
        ("gated", ctypes.c_bool),
        ("float_output", ctypes.c_bool),
        ("float_residual", ctypes.c_bool),
        ("partial", ctypes.c_void_p),
        ("arrived", ctypes.c_void_p),
    )


@dataclass(frozen=True)
class Case:
    """A layer of n outputs, for a device of so many `processors`, to be kept busy by splitting k; 0: not by that."""

    m: int
    n: int
    k: int
    bits: int = 4
    block: int = 32
    zero_points: bool = False
    signed: bool = False
    half_scales: bool = True
    bias: bool = False
    residual: bool = False
    activation: str = ""
    gated: bool = False
    floats: bool = True
    float_residual: bool = False
    processors: int = 0

    @property
    def blocks(self) -> int:
        return -(-self.k // self.block) if self.block else 1


@dataclass
class Matrix:
    """Codes [n, k] as they are stored (two's complement, where signed), scales and zero points [n, blocks]."""

    case: Case
    codes: Array
    scale: Array
    zero_point: Array | None

    def source(self, library: Emulated) -> WeightOnlySource:
        case = self.case
        codes = self.codes
        if case.bits == 4:
            codes = pack4(np.pad(codes, [(0, 0), (0, case.k % 2)]))
        fields: dict[str, Any] = {} if self.zero_point is None else {"zero_point": self.zero_point}
        return library.structure(
            WeightOnlySource, bits=case.bits, n=case.n, k=case.k, block=case.block, codes=np.ascontiguousarray(codes),
            is_signed=case.signed, scale=self.scale, **fields,
        )  # fmt: skip

    def centred(self) -> Array:
        """code - zero point, [n, k]."""
        case = self.case
        convert = np.int8 if case.signed else np.uint8
        codes = self.codes.view(convert).astype(np.int64)
        if self.zero_point is None:
            return codes - (0 if case.signed else 2 ** (case.bits - 1))
        return codes - np.repeat(self.zero_point.view(convert), case.block or case.k, axis=1)[:, : case.k]

    def weights(self, rounded: bool) -> Array:
        """float64 [n, k]; `rounded` to halves as the tiled kernel has them, apart from each output's power of two."""
        case = self.case
        largest = np.abs(self.scale).max(axis=1, keepdims=True).astype(np.float64)
        channel = np.exp2(np.floor(np.log2(largest))) if case.blocks > 1 else self.scale.astype(np.float64)
        ratio = (self.scale / channel).astype(np.float16)
        spread = np.repeat(ratio, case.block or case.k, axis=1)[:, : case.k]
        product = self.centred() * spread.astype(np.float64)
        return (product.astype(np.float16).astype(np.float64) if rounded else product) * channel


def random_matrix(case: Case, rng: np.random.Generator) -> Matrix:
    scale = rng.uniform(0.5, 2, (case.n, case.blocks)) * 2.0 ** (3 - case.bits) / np.sqrt(case.k)
    scale *= rng.choice([-1, 1], scale.shape)
    kind = np.float16 if case.half_scales else np.float32
    zero_point = rng.integers(0, 2**case.bits, (case.n, case.blocks)).astype(np.uint8) if case.zero_points else None
    codes = rng.integers(0, 2**case.bits, (case.n, case.k)).astype(np.uint8)
    return Matrix(case, codes, scale.astype(kind).astype(np.float32), zero_point)


def run(library: Emulated, case: Case, matrices: list[Matrix], x: Array, **arrays: Array) -> tuple[Array, list[int]]:
    """y, and the plan: rows of a tile, splits, floats and counters of scratch memory, counters that are zero after."""
    y: Array = np.full((case.m, case.n), np.nan, np.float32 if case.floats else np.float16)
    sources = [matrix.source(library) for matrix in matrices]
    layer = library.structure(
        WeightOnlyLayer, m=case.m, x=x, y=y, activation=activation_number(case.activation), gated=case.gated,
        float_output=case.floats, float_residual=case.float_residual, **arrays,
    )  # fmt: skip
    facts = np.zeros(5, np.int64)
    up = sources[1] if case.gated else None
    library.call("weight_only", sources[0], up, layer, case.processors, facts)
    return y, [int(fact) for fact in facts]


def check_layer(library: Emulated, case: Case) -> tuple[int, int]:
    """Runs a random layer, compares, and returns rows of a tile and splits of its plan.

    Sums may differ by 1e-6 of the sum of their terms' absolutes, and functions of them by the same again; halves by
    their rounding. Beyond 16 rows the weights of the reference are rounded to halves as well.
    """
    rng = np.random.default_rng(case.m * 10007 + case.n * 101 + case.k)
    matrices = [random_matrix(case, rng) for _ in range(1 + case.gated)]
    x = rng.normal(0, 1, (case.m, case.k)).astype(np.float16)
    arrays: dict[str, Array] = {}
    if case.bias:
        arrays["bias"] = rng.normal(0, 1, case.n * len(matrices)).astype(np.float32)
    if case.residual:
        kind = np.float32 if case.float_residual else np.float16
        arrays["residual"] = rng.normal(0, 1, (case.m, case.n)).astype(kind)
    y, (tile_rows, splits, _, arrived, zero_after) = run(library, case, matrices, x, **arrays)

    sums, size = [], np.zeros((case.m, case.n))
    for i, matrix in enumerate(matrices):
        w = matrix.weights(rounded=tile_rows > 16)
        sums.append(x.astype(np.float64) @ w.T + (arrays["bias"][i :: len(matrices)] if case.bias else 0))
        size = np.maximum(size, np.abs(x.astype(np.float64)) @ np.abs(w).T + 1)
    expected = activation_reference(case.activation, sums[0])
    if case.gated:
        expected = expected * sums[1]
        size = size * np.maximum(1, np.abs(sums).max(axis=0))
    if case.residual:
        expected = expected + arrays["residual"].astype(np.float64)
    tolerance = 2e-6 * size + (0 if case.floats else 2**-11 * np.abs(expected) + 2**-24)
    error = np.abs(y.astype(np.float64) - expected)
    wrong = ~(error <= tolerance)
    assert not wrong.any(), f"{wrong.sum()} of {y.size} wrong, the first at {np.argwhere(wrong)[0]}: {error[wrong][0]}"
    assert arrived == zero_after
    return tile_rows, splits
