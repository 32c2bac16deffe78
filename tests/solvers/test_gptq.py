"""GPTQ: on the grid that is stored, and closer than rounding to the nearest."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxcompress.data import DataSet
from onnxcompress.passes.prune import Layer, find_layers
from onnxcompress.passes.quantize import QuantizeWeights
from onnxcompress.passes.quantize.blocks import block_parameters, dequantize_blocks, quantize_blocks
from onnxcompress.passes.quantize.storage import Storage
from onnxcompress.solvers.gptq import QuantizeLayers, gptq_blocks
from onnxcompress.solvers.least_squares import damped, output_error
from tests.passes.quantize.models import build, execute, normal, reference, relative
from tests.solvers.test_least_squares import correlated, second_moments

Array = np.ndarray[Any, Any]

TEXT = """agraph (float[n,64] x) => (float[n,64] y) {
    [up] a = MatMul (x, w1)
    [act] b = Relu (a)
    [down] c = Gemm <transB = 1> (b, w2, bias)
    [turned] t = Transpose <perm = [1,0]> (w3)
    [last] y = MatMul (c, t)
}"""


def network() -> ir.Model:
    return build(
        TEXT, {"w1": normal(64, 96), "w2": normal(64, 96, seed=1), "bias": normal(64), "w3": normal(64, 64, seed=2)}
    )


def feeds(seed: int = 0, count: int = 8) -> list[dict[str, Array]]:
    mix = normal(64, 64, seed=77)
    return [{"x": normal(32, 64, seed=seed + i) @ mix} for i in range(count)]


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("bits", "size", "inputs"), [(4, 32, 96), (4, 16, 50), (4, 256, 96), (8, 32, 96)])
def test_a_layer(bits: int, size: int, inputs: int, symmetric: bool) -> None:
    weight = np.random.default_rng(0).standard_normal((1, 24, inputs))
    second = second_moments(correlated(500, inputs))
    solve = QuantizeLayers({"w": Storage("nbits", bits, 0, size, symmetric)})
    new = solve(Layer("l", "MatMul", "w", "x", inputs, 24), weight, second)
    blocks = solve.blocks["w"]
    stored = dequantize_blocks(blocks.integers, blocks.scales, blocks.zeros, size)
    assert blocks.integers.shape == (24, -(-inputs // size) * size) and blocks.integers.max() < 1 << bits
    assert np.array_equal(stored[:, :inputs], new[0].astype(np.float32))
    assert not stored[:, inputs:].any()  # what pads the last block is its zero point
    scales, zeros = block_parameters(weight[0].astype(np.float32), size, bits, symmetric=symmetric)
    nearest = dequantize_blocks(
        quantize_blocks(weight[0].astype(np.float32), scales, zeros, size, bits), scales, zeros, size
    )[:, :inputs]
    assert np.array_equal(scales[:, 0], blocks.scales[:, 0])  # the first block's weights are the original ones
    errors = [output_error(w.astype(np.float64)[None], weight, damped(second)) for w in (new[0], nearest)]
    assert errors[0] < 0.7 * errors[1]
    assert solve.errors["l"] == pytest.approx(output_error(new, weight, second))


@pytest.mark.parametrize("form", ["nbits", "dequantize"])
def test_the_pass_stores_what_was_solved(form: Any) -> None:
    model = network()
    data = DataSet(lambda: feeds())
    solved = gptq_blocks(model, QuantizeWeights(4, form=form), data)
    assert set(solved) == {"w1", "w2", "w3"}  # w3 is read through a Transpose
    step = QuantizeWeights(4, form=form, solved=solved)
    dense = network()
    for name, blocks in solved.items():
        matrix = dequantize_blocks(blocks.integers, blocks.scales, blocks.zeros, 32)
        value = dense.graph.initializers[name]
        value.const_value = ir.tensor(np.ascontiguousarray(matrix.T if name == "w1" else matrix), name=name)  # [N, K]
    rounded = QuantizeWeights(4, form=form, exclude=frozenset(["up", "down", "last"]))
    assert not rounded(dense).modified and step(model).modified
    feed = feeds(50, 1)[0]
    wanted = execute(dense, feed)[0]
    assert relative(execute(model, feed)[0], wanted) < 1e-5
    if form == "dequantize":
        assert relative(reference(model, feed)[0], wanted) < 1e-5


def test_the_model_is_closer_than_by_rounding() -> None:
    model, feed = network(), {"x": np.concatenate([f["x"] for f in feeds(50)])}
    wanted = execute(model, feed)[0]
    errors = []
    for solved in (gptq_blocks(model, QuantizeWeights(4), DataSet(lambda: feeds())), None):
        quantized = network()
        QuantizeWeights(4, form="dequantize", solved=solved)(quantized)
        errors.append(relative(execute(quantized, feed)[0], wanted))
    assert errors[0] < 0.75 * errors[1]
    assert find_layers(model)[0]  # the model itself was not changed
    assert np.array_equal(execute(model, feed)[0], wanted)


def test_what_would_not_be_stored_in_blocks_is_not_solved() -> None:
    data = DataSet(lambda: feeds())
    assert not gptq_blocks(network(), QuantizeWeights(8), data)
    assert set(gptq_blocks(network(), QuantizeWeights(4, exclude=frozenset(["up"])), data)) == {"w2", "w3"}


def test_weights_that_several_nodes_read_are_left_to_rounding() -> None:
    text = """agraph (float[n,64] x) => (float[n,64] y, float[n,64] z) {
        [turned] t = Transpose <perm = [1,0]> (w)
        [first] y = MatMul (x, t)
        [second] z = MatMul (x, t)
    }"""
    model = build(text, {"w": normal(64, 64)})
    assert set(QuantizeWeights(4).storages(model)) == {"w"}
    assert not gptq_blocks(model, QuantizeWeights(4), DataSet(lambda: feeds()))
