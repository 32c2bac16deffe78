"""`diff`: structure, and errors layer by layer against numpy on whole runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime as ort
import pytest

import onnxcompress
from onnxcompress.errors import DataError
from onnxcompress.inspection import layers, text

A = """<ir_version: 10, opset_import: ["": 21]> g (float[N,2] x) => (float[N,2] y)
<float[2,2] w = {1,2,3,4}, float[2] b = {0.5,-1}> { h = MatMul(x, w) r = Relu(h) y = Add(r, b) }"""

QUANTIZED = """<ir_version: 10, opset_import: ["": 21]> g (float[N,2] x) => (float[N,2] out)
<int8[2,2] w8 = {32,64,95,127}, float ws = {0.0315}, float[2] b = {0.5,-1}, float s = {0.1}, uint8 z = {128}> {
    qx = QuantizeLinear(x, s, z)
    dx = DequantizeLinear(qx, s, z)
    dw = DequantizeLinear(w8, ws)
    m = MatMul(dx, dw)
    h = QuantizeLinear(m, s, z)
    dh = DequantizeLinear(h, s, z)
    r = Relu(dh)
    out = Add(r, b)
}"""


def parse(source: str) -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(source))


def feeds() -> Iterator[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    for count in (3, 1, 5):
        yield {"x": rng.standard_normal((count, 2)).astype(np.float32)}


def values(source: str, name: str) -> np.ndarray:
    """All feeds' values of a tensor, by ONNX Runtime without optimization."""
    proto = onnx.parser.parse_model(source)
    del proto.graph.output[:]
    proto.graph.output.add(name=name).type.tensor_type.elem_type = 1
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, feed)[0].ravel() for feed in feeds()]).astype(np.float64)


def test_same_model_has_no_difference() -> None:
    found = onnxcompress.diff(parse(A), parse(A), data=feeds)
    assert found.same
    assert found.samples == 3
    assert found.layers is not None
    assert all(layer.snr_db is None and layer.max_abs_error == 0 for layer in found.layers)


def test_structure() -> None:
    b = A.replace('opset_import: ["": 21]', 'opset_import: ["": 20]').replace("Relu(h)", "Sigmoid(h)")
    b = b.replace("w = {1,2,3,4}", "w = {1,2,3,5}").replace(
        "float[2] b = {0.5,-1}", "float[1] b = {0.5}, float[3] c = {1,2,3}"
    )
    b = b.replace("g (float[N,2] x)", "g (float[N,2] x, float[7] more)")
    found = onnxcompress.diff(parse(A), parse(b))
    assert not found.same
    assert found.operators == {"Relu": (1, 0), "Sigmoid": (0, 1)}
    assert found.opsets == {"": (21, 20)}
    assert [c.name for c in found.added] == ["c"]
    assert [(c.name, c.shape_a, c.shape_b) for c in found.changed] == [
        ("w", (2, 2), (2, 2)),
        ("b", (2,), (1,)),
    ]
    assert [(c.name, c.dtype_a, c.shape_b) for c in found.interface] == [("more", None, (7,))]
    assert found.layers is None


@pytest.mark.parametrize(("name", "other"), [("h", "dh"), ("r", "r"), ("y", "out")])
def test_errors_against_numpy(name: str, other: str) -> None:
    found = onnxcompress.diff(parse(A), parse(QUANTIZED), data=feeds)
    (layer,) = [layer for layer in found.layers or () if layer.name == name]
    a, b = values(A, name), values(QUANTIZED, other)
    assert (layer.other, layer.elements) == (other, a.size)
    assert layer.snr_db == pytest.approx(10 * np.log10((a @ a) / ((a - b) @ (a - b))), rel=1e-4)
    assert layer.cosine == pytest.approx(a @ b / np.sqrt((a @ a) * (b @ b)), rel=1e-6)
    assert layer.max_abs_error == pytest.approx(np.abs(a - b).max(), rel=1e-4)
    assert layer.max_abs == pytest.approx(np.abs(a).max(), rel=1e-6)


def test_worst_comes_first() -> None:
    found = onnxcompress.diff(parse(A), parse(QUANTIZED), data=feeds)
    snrs = [layer.snr_db for layer in found.layers or () if layer.snr_db is not None]
    assert snrs == sorted(snrs)
    assert len(snrs) == 3


def test_groups_give_the_same_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = onnxcompress.diff(parse(A), parse(QUANTIZED), data=feeds)
    monkeypatch.setattr(layers, "GROUP_LIMIT", 1)
    parts = onnxcompress.diff(parse(A), parse(QUANTIZED), data=feeds)
    assert [(p.name, p.elements) for p in parts.layers or ()] == [(w.name, w.elements) for w in whole.layers or ()]
    for p, w in zip(parts.layers or (), whole.layers or (), strict=True):
        assert p.snr_db == pytest.approx(w.snr_db, rel=1e-4)


def test_nonfinite_values_are_reported_and_left_out() -> None:
    b = A.replace("h = MatMul(x, w)", "m = MatMul(x, w) l = Log(m) z = Sub(l, l) h = Add(m, z)")
    found = onnxcompress.diff(parse(A), parse(b), data=feeds)
    first = (found.layers or ())[0]
    negative = int((values(A, "h") < 0).sum())
    assert negative
    assert (first.nonfinite_a, first.nonfinite_b) == (0, negative)
    (layer,) = [layer for layer in found.layers or () if layer.name == "h"]
    assert layer.elements == values(A, "h").size - negative
    assert layer.max_abs_error == 0
    assert any(f"{negative} in B" in line for line in text.difference_text(found))
    json.dumps(found.as_dict(), allow_nan=False)


def test_signal_of_zeros() -> None:
    sums = layers.Sums()
    sums.add(np.zeros(3, np.float32), np.ones(3, np.float32))
    layer = sums.result(layers.Pair("a", "a", "Relu", 0))
    assert (layer.snr_db, layer.cosine) == (layers.SNR_FLOOR, None)


def test_other_shape_is_noted() -> None:
    b = A.replace("r = Relu(h)", "p = Relu(h) r = Concat<axis=0>(p, p)")
    found = onnxcompress.diff(parse(A), parse(b), data=feeds)
    assert [layer.name for layer in found.layers or ()] == ["h"]
    assert any(note.startswith("r: 3x2 in A, 6x2 in B") for note in found.notes)


def test_nothing_shared_is_noted() -> None:
    b = """<ir_version: 10, opset_import: ["": 21]> g (float[N,2] x) => (float[N,2] p, float[N,2] q)
    { p = Relu(x) q = Sigmoid(x) }"""
    found = onnxcompress.diff(parse(A), parse(b), data=feeds)
    assert found.layers == ()
    assert "share no float value" in found.notes[0]


def test_no_feeds() -> None:
    with pytest.raises(DataError, match="no feeds"):
        onnxcompress.diff(parse(A), parse(A), data=[])


def test_feed_that_the_other_model_cannot_run() -> None:
    b = A.replace("g (float[N,2] x)", "g (float[N,2] x, float[K] more)").replace("Add(r, b)", "Add(r, more)")
    with pytest.raises(DataError):
        onnxcompress.diff(parse(A), parse(b), data=feeds)


def test_inputs_are_not_changed() -> None:
    a, b = parse(A), parse(QUANTIZED)
    before = [ir.to_proto(model).SerializeToString() for model in (a, b)]
    onnxcompress.diff(a, b, data=feeds)
    assert [ir.to_proto(model).SerializeToString() for model in (a, b)] == before


def test_file_sizes_of_paths(tmp_path: Path) -> None:
    ir.save(parse(A), tmp_path / "a.onnx")
    found = onnxcompress.diff(tmp_path / "a.onnx", parse(QUANTIZED))
    assert (found.a.file_bytes, found.b.file_bytes) == ((tmp_path / "a.onnx").stat().st_size, None)
    assert (found.a.parameters, found.b.parameters) == (6, 6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [1, layers.PIECE, 2 * layers.PIECE + 7])
def test_sums_over_pieces(size: int) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(size).astype(np.float32) for _ in range(2))
    a[size // 2] = np.inf
    b[-1] = np.nan
    sums = layers.Sums()
    sums.add(a, b)
    keep = np.isfinite(a) & np.isfinite(b)
    x, y = a[keep].astype(np.float64), b[keep].astype(np.float64)
    assert (sums.nonfinite_a, sums.nonfinite_b, sums.elements) == (1, 1, x.size)
    assert sums.noise == pytest.approx(((x - y) ** 2).sum())
    assert sums.ab == pytest.approx((x * y).sum())
