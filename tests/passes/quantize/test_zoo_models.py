"""The passes on real graphs: they load, hold their outputs, and are smaller."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from onnxcompress.model_io import initializer_bytes
from onnxcompress.optimizer import optimize
from onnxcompress.passes.quantize import (
    EqualizeChannels,
    InsertQDQ,
    QuantizeWeights,
    Scheme,
    SmoothActivations,
)
from tests.passes.quantize.models import Array, Feed, execute, min_max, observe, relative
from tests.zoo import ZooModel

Zoo = Callable[[str], ZooModel]


def prepared(model: ZooModel) -> tuple[ir.Model, Feed]:
    """An optimized model, and its speed feed."""
    return optimize(model.path(), portable=True), model.speed_feed()


def cosine(actual: Array, expected: Array) -> float:
    a, b = actual.astype(np.float64).ravel(), expected.astype(np.float64).ravel()
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def floats(arrays: list[Array]) -> list[Array]:
    return [array for array in arrays if array.dtype == np.float32]


def statistics_of(model: ir.Model, feed: Feed) -> dict[str, Array]:
    """max|x| per channel of what MatMul and Gemm read."""
    read = [node.inputs[0] for node in model.graph if node.op_type in ("MatMul", "Gemm")]
    names = [value.name or "" for value in read if value is not None]
    tensors = observe(model, feed, list(dict.fromkeys(names)))
    return {name: np.abs(array).reshape(-1, array.shape[-1]).max(axis=0) for name, array in tensors.items()}


@pytest.mark.parametrize(
    ("name", "floor"),
    [
        ("ppocr-rec", 0.997),
        ("ppocr-det", 0.985),
        ("ppocr-cls", 0.97),
        ("ddddocr-det", 0.995),
        ("magika", 0.999),
    ],
)
def test_static_int8_loads_and_holds(zoo: Zoo, name: str, floor: float) -> None:
    model, feed = prepared(zoo(name))
    expected = floats(execute(model, feed))
    ranges = min_max(model, Scheme(), feed)
    InsertQDQ(ranges, Scheme())(model)
    for actual, wanted in zip(floats(execute(model, feed, optimize=True)), expected, strict=True):
        assert cosine(actual, wanted) > floor


@pytest.mark.parametrize("name", ["ppocr-rec", "ppocr-cls", "magika", "silero-16k", "minilm"])
@pytest.mark.parametrize("bits", [8, 4])
def test_weight_only_holds_and_is_smaller(zoo: Zoo, name: str, bits: int) -> None:
    model, feed = prepared(zoo(name))
    expected, before = floats(execute(model, feed)), initializer_bytes(model)
    passed = QuantizeWeights(8 if bits == 8 else 4)
    passed(model)
    assert initializer_bytes(model) < before * (1 if name == "silero-16k" else 0.6)
    for actual, wanted in zip(floats(execute(model, feed)), expected, strict=True):
        assert cosine(actual, wanted) > (0.998 if bits == 8 else 0.95)
    assert not QuantizeWeights(8 if bits == 8 else 4)(model).modified


@pytest.mark.parametrize("name", ["ppocr-cls", "ppocr-rec", "ppocr-det", "ddddocr-det"])
def test_equalization_is_lossless(zoo: Zoo, name: str) -> None:
    model, feed = prepared(zoo(name))
    expected = floats(execute(model, feed))
    EqualizeChannels()(model)
    for actual, wanted in zip(floats(execute(model, feed)), expected, strict=True):
        assert relative(actual, wanted) < 1e-4
    assert not EqualizeChannels()(model).modified


@pytest.mark.parametrize("allow_mul", [False, True])
@pytest.mark.parametrize("name", ["minilm", "ppocr-rec"])
def test_smoothing_is_lossless(zoo: Zoo, name: str, allow_mul: bool) -> None:
    model, feed = prepared(zoo(name))
    expected = floats(execute(model, feed))
    passed = SmoothActivations(statistics_of(model, feed), allow_mul=allow_mul)
    # MiniLM is post-norm: every LayerNorm output feeds a residual too, so nothing can be absorbed.
    assert passed(model).modified == (allow_mul or name != "minilm")
    for actual, wanted in zip(floats(execute(model, feed)), expected, strict=True):
        assert relative(actual, wanted) < 1e-4


def test_smoothing_makes_int8_better(zoo: Zoo) -> None:
    model, feed = prepared(zoo("minilm"))
    (expected,) = floats(execute(model, feed))
    plain = model.clone()
    InsertQDQ(min_max(model, Scheme(), feed), Scheme())(plain)
    SmoothActivations(statistics_of(model, feed), 0.6, allow_mul=True)(model)
    InsertQDQ(min_max(model, Scheme(), feed), Scheme())(model)
    before, after = (cosine(execute(m, feed)[0], expected) for m in (plain, model))
    assert after > 0.995
    assert 1 - after < 0.5 * (1 - before)
