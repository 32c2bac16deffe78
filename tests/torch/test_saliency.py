"""Saliency by gradients, against the model's own derivatives by finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxcompress.data import DataSet
from onnxcompress.errors import DataError
from tests.passes.quantize.models import build, execute, normal

pytest.importorskip("torch")

from onnxcompress.torch.saliency import gradient_saliency

Array = np.ndarray[Any, Any]

TEXT = """agraph (float[3,6] x) => (float[3,4] y) {
    [up] a = MatMul (x, w1)
    [act] b = Tanh (a)
    [down] y = MatMul (b, w2)
}"""
WEIGHTS = {"w1": normal(6, 5, scale=0.5), "w2": normal(5, 4, seed=1, scale=0.5)}
FEED = {"x": normal(3, 6, seed=2)}


def model(weights: dict[str, Array] | None = None) -> ir.Model:
    return build(TEXT, weights or WEIGHTS)


def derivatives(name: str) -> Array:
    """d y / d w by central differences, [outputs, *shape]."""
    weight = WEIGHTS[name].astype(np.float64)
    columns = []
    for index in np.ndindex(weight.shape):
        step = np.zeros_like(weight)
        step[index] = 1e-2
        ends = [
            execute(model({**WEIGHTS, name: (weight + sign * step).astype(np.float32)}), FEED)[0] for sign in (1, -1)
        ]
        columns.append((ends[0] - ends[1]).ravel() / 2e-2)
    return np.stack(columns, axis=-1).reshape(-1, *weight.shape)


def size() -> float:
    """The root mean square of the output."""
    return float(np.sqrt(np.mean(execute(model(), FEED)[0] ** 2)))


@pytest.mark.parametrize("name", ["w1", "w2"])
def test_taylor_is_the_squared_change_of_the_outputs_energy(name: str) -> None:
    y = execute(model(), FEED)[0].ravel() / size()
    gradient = np.tensordot(y, derivatives(name) / size(), axes=1)
    found = gradient_saliency(model(), DataSet(lambda: [FEED, FEED]), "taylor")[name]
    assert found.dtype == np.float32
    assert np.allclose(found, (WEIGHTS[name] * gradient) ** 2, rtol=0.02, atol=1e-4)


@pytest.mark.parametrize("name", ["w1", "w2"])
def test_fisher_is_the_squared_change_of_the_outputs(name: str) -> None:
    """Over many draws of signs, w^2 diag(J^T J)."""
    wanted = WEIGHTS[name] ** 2 * (derivatives(name) ** 2).sum(axis=0) / size() ** 2
    found = gradient_saliency(model(), DataSet(lambda: [FEED] * 3000), "fisher")[name]
    assert np.abs(found - wanted).sum() < 0.05 * wanted.sum()


def test_signs_follow_the_seed() -> None:
    data = DataSet(lambda: [FEED])
    first, again, other = (gradient_saliency(model(), data, "fisher", seed=seed)["w1"] for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_what_cannot_be_measured() -> None:
    with pytest.raises(DataError, match="no feeds"):
        gradient_saliency(model(), DataSet(lambda: []), "fisher")
    fixed = build("agraph (float[3,6] x) => (float[3,6] y) { y = Tanh (x) }")
    with pytest.raises(DataError, match="no float output depends on a weight"):
        gradient_saliency(fixed, DataSet(lambda: [FEED]), "taylor")
