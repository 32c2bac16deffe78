"""A layer's output is its rows times its [N, K] view: against onnx's own evaluator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxcompress.errors import CalibrationError
from onnxcompress.passes.prune import find_layers, layer_nodes, to_matrix, weight_of
from onnxcompress.solvers.patches import Patches, Rows, input_rows
from tests.passes.quantize.models import build, normal, reference

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("shape", "weight", "attributes"),
    [
        ((2, 3, 7, 9), (8, 3, 3, 3), "pads = [1,1,1,1]"),
        ((1, 3, 8, 9), (4, 3, 3, 2), "pads = [2,0,1,1], strides = [2,1]"),
        ((2, 4, 9, 9), (6, 4, 3, 3), "dilations = [2,3]"),
        ((2, 6, 5, 5), (8, 3, 3, 3), "group = 2, pads = [1,1,1,1]"),
        ((1, 3, 7, 8), (4, 3, 3, 3), 'auto_pad = "SAME_UPPER", strides = [2,2]'),
        ((1, 3, 7, 8), (4, 3, 2, 4), 'auto_pad = "SAME_LOWER", strides = [2,2]'),
        ((1, 3, 7, 8), (4, 3, 2, 4), 'auto_pad = "VALID"'),
        ((2, 3, 11), (4, 3, 3), "strides = [2]"),
        ((1, 2, 4, 5, 6), (3, 2, 2, 2, 2), "pads = [1,0,0,0,1,0]"),
        ((2, 5, 4, 4), (8, 5, 1, 1), "group = 1"),
    ],
)
def test_convolutions(shape: tuple[int, ...], weight: tuple[int, ...], attributes: str) -> None:
    dims, rank = ",".join(map(str, shape)), len(shape)
    out = ",".join(["?"] * rank)
    model = build(
        f"agraph (float[{dims}] x) => (float[{out}] y) {{ [c] y = Conv <{attributes}> (x, w) }}",
        {"w": normal(*weight)},
    )
    (layer,), _ = find_layers(model)
    ((_, node),) = layer_nodes(model, [layer])
    x = normal(*shape, seed=1)
    rows = input_rows(node).sample(x, RNG)
    assert rows.shape[0] == layer.groups and rows.shape[2] == layer.inputs
    matrix = to_matrix(weight_of(model, layer), node).reshape(layer.groups, -1, layer.inputs)
    outputs = rows @ matrix.transpose(0, 2, 1)  # [groups, positions, N / groups]
    (expected,) = reference(model, {"x": x})
    expected = np.moveaxis(expected, 1, -1).reshape(outputs.shape[1], -1)
    assert np.allclose(outputs.transpose(1, 0, 2).reshape(expected.shape), expected, atol=1e-5)


def test_a_bounded_sample_is_taken_of_all_positions() -> None:
    x = np.arange(2 * 50 * 50, dtype=np.float32).reshape(2, 1, 50, 50)
    patches = Patches((1, 1), (1, 1), (1, 1), ((0, 0), (0, 0)))
    rows = patches.sample(x, np.random.default_rng(0), limit=300)
    assert rows.shape == (1, 300, 1)
    values = rows[0, :, 0]
    assert len(set(values)) == 300 and values.min() < 500 and values.max() > 4500
    assert np.array_equal(rows, patches.sample(x, np.random.default_rng(0), limit=300))
    assert not np.array_equal(rows, patches.sample(x, np.random.default_rng(1), limit=300))


def test_rows_of_linear_layers() -> None:
    x = normal(2, 3, 5)
    assert np.array_equal(Rows().sample(x, RNG), x.reshape(1, 6, 5))
    part = Rows().sample(x, np.random.default_rng(0), limit=4)
    assert part.shape == (1, 4, 5)
    assert all(any(np.array_equal(row, other) for other in x.reshape(6, 5)) for row in part[0])


def test_an_input_smaller_than_the_kernel_is_an_error() -> None:
    patches = Patches((3, 3), (1, 1), (1, 1), ((0, 0), (0, 0)))
    with pytest.raises(CalibrationError, match="smaller than the kernel"):
        patches.sample(normal(1, 1, 2, 2), RNG)
