"""Open dimensions: found, cut and stacked."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxcompress.data import Feed
from onnxcompress.verification.axes import BATCH, Axis, joined, open_axes, stacked


def model(*inputs: str) -> ir.Model:
    given = ", ".join(f"float[{dims}] i{k}" for k, dims in enumerate(inputs))
    text = f'<ir_version: 10, opset_import: ["" : 21]> g ({given}) => (float[n] y) {{ y = Identity (i0) }}'
    return ir.from_onnx_text(text)


def unnamed(*shapes: list[int | None]) -> ir.Model:
    found = model(*[",".join("1" for _ in shape) for shape in shapes])
    for value, shape in zip(found.graph.inputs, shapes, strict=True):
        value.shape = ir.Shape(shape)
    return found


@pytest.mark.parametrize(("inputs", "axes"), [
    (["n, 3"], [Axis(BATCH, {"i0": 0})]),
    (["n, s", "n, s"], [Axis(BATCH, {"i0": 0, "i1": 0}), Axis("s", {"i0": 1, "i1": 1})]),
    (["n, s", "2, n, 128"], [Axis(BATCH, {"i0": 0, "i1": 1}), Axis("s", {"i0": 1})]),
    (["1, 3, h, w"], [Axis("h", {"i0": 2}), Axis("w", {"i0": 3})]),
    (["4, 3"], []),
])  # fmt: skip
def test_named(inputs: list[str], axes: list[Axis]) -> None:
    assert open_axes(model(*inputs)) == axes


def test_unnamed() -> None:
    found = open_axes(unnamed([None, None], [2, None, 128], []))
    assert found == [Axis(BATCH, {"i0": 0, "i1": 1}), Axis("i0[1]", {"i0": 1})]


def test_stacking() -> None:
    axes = [Axis(BATCH, {"x": 0, "state": 1}), Axis("s", {"x": 1})]
    rng = np.random.default_rng(0)

    def feed(length: int, rate: int) -> Feed:
        return {"x": rng.normal(size=(1, length)), "state": rng.normal(size=(2, 1, 3)), "rate": np.array(rate)}

    feeds = [feed(5, 8), feed(4, 8), feed(9, 16), feed(7, 8), feed(6, 8)]
    fitted, together = stacked(feeds, axes, 3)
    assert [f["x"].shape for f in fitted] == [(1, 4)] * 3
    np.testing.assert_array_equal(together["x"], np.concatenate([feeds[i]["x"][:, :4] for i in (0, 1, 3)]))
    np.testing.assert_array_equal(together["state"][:, 2], feeds[3]["state"][:, 0])
    assert together["rate"] == 8


def test_what_has_another_shape_is_not_stacked() -> None:
    feeds = [{"x": np.zeros((1, 3))}, {"x": np.zeros((1, 4))}, {"x": np.zeros((2, 3))}]
    fitted, together = stacked(feeds, [Axis(BATCH, {"x": 0})], 4)
    assert len(fitted) == 2 and together["x"].shape == (3, 3)


def test_joining() -> None:
    parts = [np.full((2, 1, 3), i) for i in range(4)]
    found = joined(parts, np.zeros((2, 4, 3)))
    assert found is not None and found[0, :, 0].tolist() == [0, 1, 2, 3]
    assert joined(parts, np.zeros((2, 5, 3))) is None
    assert joined([np.zeros(())] * 2, np.zeros(())) is None
