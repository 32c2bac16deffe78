"""Saliency from weights and from what layers read, against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxcompress.data import DataSet
from onnxcompress.errors import DataError
from onnxcompress.passes.prune import find_layers
from onnxcompress.solvers import magnitude_saliency, obs_saliency, sequential, wanda_saliency
from onnxcompress.solvers.curves import error_curves
from onnxcompress.solvers.least_squares import damped
from tests.passes.quantize.models import build, execute, normal, observe, relative

Array = np.ndarray[Any, Any]

TEXT = """agraph (float[2,4,6,6] x) => (float[2,10] y) {
    [conv] a = Conv <group = 2> (x, w1)
    [act] b = Relu (a)
    [pool] c = GlobalAveragePool (b)
    [flat] d = Flatten (c)
    [head] y = Gemm <transB = 1> (d, w2)
}"""
WEIGHTS = {"w1": normal(8, 2, 3, 3), "w2": normal(10, 8, seed=1)}
MODEL = build(TEXT, WEIGHTS)
LAYERS = find_layers(MODEL)[0]
FEEDS = [{"x": normal(2, 4, 6, 6, seed=i)} for i in range(5)]
DATA = DataSet(lambda: FEEDS)


def test_magnitude() -> None:
    saliency = magnitude_saliency(MODEL, LAYERS)
    assert all(np.array_equal(saliency[name], weight**2) for name, weight in WEIGHTS.items())


def test_wanda_is_the_square_of_weight_times_norm() -> None:
    saliency = wanda_saliency(MODEL, LAYERS, DATA)
    d = np.concatenate([observe(MODEL, feed, ["d"])["d"] for feed in FEEDS])
    norms = np.linalg.norm(d, axis=0) / np.sqrt(len(d))
    assert np.allclose(saliency["w2"], (np.abs(WEIGHTS["w2"]) * norms) ** 2, rtol=1e-4)
    x = np.concatenate([feed["x"] for feed in FEEDS])
    for n, c, ky, kx in [(0, 0, 0, 0), (3, 1, 2, 1), (5, 0, 1, 2), (7, 1, 0, 0)]:
        seen = x[:, 2 * (n // 4) + c, ky : ky + 4, kx : kx + 4]
        assert saliency["w1"][n, c, ky, kx] == pytest.approx(WEIGHTS["w1"][n, c, ky, kx] ** 2 * (seen**2).mean(), 1e-4)


def test_obs_is_the_brain_surgeons() -> None:
    saliency = obs_saliency(MODEL, LAYERS, DATA)
    d = np.concatenate([observe(MODEL, feed, ["d"])["d"] for feed in FEEDS]).astype(np.float64)
    inverse = np.linalg.inv(damped((d.T @ d / len(d))[None])[0])
    assert np.allclose(saliency["w2"], WEIGHTS["w2"] ** 2 / np.diag(inverse), rtol=1e-4)
    assert saliency["w1"].shape == (8, 2, 3, 3) and (saliency["w1"] > 0).all()


def test_a_layer_too_wide_gets_magnitudes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequential, "MOST_INPUTS", 10)
    saliency = wanda_saliency(MODEL, LAYERS, DATA)
    assert np.array_equal(saliency["w1"], WEIGHTS["w1"] ** 2)
    assert not np.allclose(saliency["w2"], WEIGHTS["w2"] ** 2)


def test_curves_are_the_outputs_error_with_one_layer_pruned() -> None:
    curves = error_curves(
        MODEL, LAYERS, magnitude_saliency(MODEL, LAYERS), "unstructured", DATA, sparsities=[0.25, 0.75]
    )
    assert set(curves) == {"conv", "head"}
    for name, weight in (("conv", "w1"), ("head", "w2")):
        errors = []
        for point in curves[name]:
            array = WEIGHTS[weight].copy()
            limit = np.sort(np.abs(array), axis=None)[round(point.sparsity * array.size)]
            pruned = build(TEXT, {**WEIGHTS, weight: np.where(np.abs(array) >= limit, array, 0)})
            wanted = [relative(execute(pruned, f)[0], execute(MODEL, f)[0]) ** 2 for f in FEEDS]
            assert point.error == pytest.approx(np.mean(wanted), rel=1e-3)
            errors.append(point.error)
        assert errors == sorted(errors)
    assert len(MODEL.graph.inputs) == 1
    with pytest.raises(DataError, match="no feeds"):
        error_curves(MODEL, LAYERS, {}, "unstructured", DataSet(lambda: []))
