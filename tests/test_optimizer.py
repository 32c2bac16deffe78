"""`optimize` on the real models of the zoo, and what it promises of every model."""

from __future__ import annotations

import contextlib
import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import onnxsim
import onnxslim
import pytest

from onnxcompress.errors import ModelError
from onnxcompress.model_io import file_bytes, load_model, save_model
from onnxcompress.optimizer import Log, optimize, optimize_file
from onnxcompress.passes.simplify import count_nodes
from onnxcompress.runtime import open_session
from tests.passes.simplify.models import distance, ops, parse
from tests.zoo import ZooModel

Array = np.ndarray[Any, Any]


@functools.cache
def optimized(path: Path, portable: bool) -> tuple[ir.Model, Log]:
    log = Log()
    return optimize(path, portable=portable, log=log), log


def run(path: Path, feeds: list[dict[str, Array]], level: ort.GraphOptimizationLevel) -> list[Array]:
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 4
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return [output for feed in feeds for output in session.run(None, feed)]


@pytest.mark.parametrize("portable", [True, False])
def test_outputs_are_equal_and_the_file_is_not_larger(zoo_model: ZooModel, portable: bool, tmp_path: Path) -> None:
    """1e-5, or 1e-4 where BatchNormalization is folded; also through ONNX Runtime's own optimizations."""
    source, target = zoo_model.path(), tmp_path / "m.onnx"
    result, log = optimized(source, portable)
    save_model(result, target)
    assert file_bytes(target) <= file_bytes(source)
    assert not log.notes and result.graph.opset_imports[""] >= 21
    original = load_model(source)
    folded = ops(original)["BatchNormalization"] > ops(result)["BatchNormalization"]
    onnx.checker.check_model(str(target), full_check="com.microsoft" not in result.graph.opset_imports)
    feeds = zoo_model.feeds(1 if portable else 2)
    off, everything = ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    expected = run(source, feeds, off)
    for level in (off, everything):
        for a, b in zip(expected, run(target, feeds, level), strict=True):
            assert distance(a, b) <= (1e-4 if folded else 1e-5)


def test_no_more_nodes_than_onnxslim_and_onnxsim_leave(zoo_model: ZooModel) -> None:
    peers = [count_nodes(ir.from_proto(onnxslim.slim(onnx.load(zoo_model.path()))))]
    with contextlib.suppress(RuntimeError):  # onnxsim breaks the order of nodes where an If is decided
        peers.append(count_nodes(ir.from_proto(onnxsim.simplify(onnx.load(zoo_model.path()))[0])))
    for portable in (True, False):
        result, _ = optimized(zoo_model.path(), portable)
        assert count_nodes(result) <= min(peers)
        if portable:
            assert set(result.graph.opset_imports) <= set(load_model(zoo_model.path()).graph.opset_imports)


def test_a_second_run_changes_nothing(zoo_model: ZooModel) -> None:
    first, _ = optimized(zoo_model.path(), False)
    log = Log()
    second = optimize(first, log=log)
    assert not log.applied
    assert ir.to_proto(second).SerializeToString(deterministic=True) == ir.to_proto(first).SerializeToString(
        deterministic=True
    )


def test_the_signature_and_the_metadata_are_kept(zoo_model: ZooModel) -> None:
    original, (result, _) = load_model(zoo_model.path()), optimized(zoo_model.path(), False)
    weights = set(original.graph.initializers)
    for before, after in (
        (original.graph.inputs, result.graph.inputs),
        (original.graph.outputs, result.graph.outputs),
    ):
        assert [(v.name, v.dtype) for v in before if v.name not in weights] == [(v.name, v.dtype) for v in after]
    assert result.metadata_props == original.metadata_props


def test_dynamic_models_take_another_shape(zoo_model: ZooModel) -> None:
    """Each model with a free batch is run on a batch that no feed had."""
    source = zoo_model.path()
    feed = zoo_model.feeds(1)[0]
    free = [v for v in load_model(source).graph.inputs if v.shape is not None and len(v.shape) > 1]
    if not all(v.name in feed and not isinstance(v.shape[0], int) for v in free if v.shape is not None) or not free:
        pytest.skip("its batch is fixed")
    wider = {name: np.concatenate([a] * 3) if a.ndim > 1 else a for name, a in feed.items()}
    off = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        expected = run(source, [wider], off)
    except Exception:
        pytest.skip("the original does not take it either")
    result, _ = optimized(source, False)
    data = ir.to_proto(result).SerializeToString()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    found = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"]).run(None, wider)
    assert max(distance(a, b) for a, b in zip(expected, found, strict=True)) <= 1e-4


MODEL = "g (float[n,t,4] x) => (float[n,t,4] y) { i = Identity(x)\n y = Relu(i) }"


def test_the_given_model_is_not_changed() -> None:
    model = parse(MODEL)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    optimize(model, fixed_shapes={"x": (1, 2, 4)})
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"z": (1, 2, 4)}, "no input 'z'; it has x"),
        ({"x": (1, 2)}, "does not fit"),
        ({"x": (1, 2, 5)}, "does not fit"),
    ],
)
def test_fixed_shapes_that_do_not_fit(shapes: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        optimize(parse(MODEL), fixed_shapes=shapes)


@pytest.mark.parametrize("opset", [6, 26])
def test_opsets_out_of_range(opset: int) -> None:
    with pytest.raises(ModelError, match="use one of 7 to 25"):
        optimize(parse(MODEL), opset=opset)


def test_a_model_that_cannot_be_converted_keeps_its_opset_and_says_so(tmp_path: Path) -> None:
    model = parse(
        "g (float[n] x) => (float[n] y, float[n] m) { i = Identity(x)\n y, m = Dropout(i) }",
        opset=9,
        ir_version=4,
    )
    save_model(model, tmp_path / "m.onnx")
    summary = optimize_file(tmp_path / "m.onnx", tmp_path / "o.onnx")
    assert summary.nodes_after == 1 < summary.nodes_before
    assert len(summary.notes) == 1 and "opset stays" in summary.notes[0]
    assert load_model(tmp_path / "o.onnx").graph.opset_imports[""] == 9


def test_a_requested_opset_is_reached_and_never_lowered() -> None:
    assert optimize(parse(MODEL, opset=13), opset=17).graph.opset_imports[""] == 17
    log = Log()
    assert optimize(parse(MODEL), opset=17, log=log).graph.opset_imports[""] == 21
    assert "never lowered" in log.notes[0]


def test_progress_is_reported_and_can_stop_the_work() -> None:
    def stop(stage: str, done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        optimize(parse(MODEL), progress=stop)


def test_the_work_grows_with_the_nodes_and_not_with_their_square() -> None:
    """Calls of Python functions, not seconds: a number that a busy machine does not change."""
    from tests.bench.optimize_scale import synthetic

    def calls(nodes: int) -> int:
        model, count = synthetic(nodes), 0

        def profile(frame: object, event: str, argument: object) -> None:
            nonlocal count
            count += event in ("call", "c_call")

        sys.setprofile(profile)
        try:
            optimize(model)
        finally:
            sys.setprofile(None)
        return count

    few, many = calls(300), calls(1200)
    assert many < 4.5 * few


LARGE = """
import sys
from onnxcompress.model_io import save_model
from onnxcompress.optimizer import optimize
save_model(optimize(sys.argv[1]), sys.argv[2], external_data=True)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(int(status["VmHWM"].split()[0]) // 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize("layers", [8, pytest.param(60, marks=pytest.mark.slow)])
def test_weights_outside_the_file_are_never_all_in_memory(layers: int, tmp_path: Path) -> None:
    """Layers of 51 MB, some transposed, some scaled: 8 are 411 MB, 60 are 3.1 GB."""
    size = 3584
    random, x = (
        np.random.default_rng(0),
        ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["n", size])),
    )
    nodes: list[ir.Node] = []
    weights: list[ir.Value] = []
    y = x
    with open(tmp_path / "w.bin", "wb") as stream:
        for i in range(layers):
            stream.write((random.standard_normal((size, size), np.float32) / 60).tobytes())
            tensor = ir.ExternalTensor(
                "w.bin", i * size * size * 4, size * size * 4, ir.DataType.FLOAT, shape=ir.Shape([size, size]),
                    name=f"w{i}",
                base_dir=tmp_path,
            )  # fmt: skip
            value = ir.Value(
                name=f"w{i}", const_value=tensor, shape=tensor.shape, type=ir.TensorType(ir.DataType.FLOAT)
            )
            weights.append(value)
            if i % 3 == 0:
                nodes.append(ir.node("Transpose", [value], {"perm": [1, 0]}))
                value = nodes[-1].outputs[0]
            nodes.append(ir.node("MatMul", [y, value]))
            factor = ir.node("Constant", [], {"value_float": 1.5})
            nodes += [factor, ir.node("Mul", [nodes[-1].outputs[0], factor.outputs[0]])]
            y = nodes[-1].outputs[0]
    y.name, y.type, y.shape = "y", x.type, x.shape
    graph = ir.Graph([x], [y], nodes=nodes, initializers=weights, opset_imports={"": 17}, name="g")
    onnx.save(ir.to_proto(ir.Model(graph, ir_version=8)), tmp_path / "m.onnx")
    command = [sys.executable, "-c", LARGE, str(tmp_path / "m.onnx"), str(tmp_path / "o.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < (1500 if layers == 60 else 400), "peak MB"
    result = load_model(tmp_path / "o.onnx")
    assert ops(result) == {"MatMul": layers}
    first = result.graph.initializers[next(v.name for v in result.graph[0].inputs[1:] if v is not None and v.name)]
    expected = np.fromfile(tmp_path / "w.bin", np.float32, size * size).reshape(size, size).T * np.float32(1.5)
    assert first.const_value is not None
    np.testing.assert_allclose(first.const_value.numpy(), expected, rtol=1e-6)


def test_a_dimension_of_minus_one_is_open() -> None:
    model = ir.from_onnx_text("""<ir_version: 10, opset_import: ["": 21]>
    g (float[N, 4] x) => (float[M, 4] y) { s = Shape (x) f = ConstantOfShape (s) a = Add (f, x) y = Relu (a) }""")
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.shape = ir.Shape((-1, 4))
    result = optimize(model)
    assert [list(value.shape or ()) for value in (*result.graph.inputs, *result.graph.outputs)] == [[None, 4]] * 2
    x = np.ones((3, 4), np.float32)
    np.testing.assert_array_equal(open_session(result).run(None, {"x": x})[0], x)
    fixed = optimize(model, fixed_shapes={"x": (2, 4)})
    assert fixed.graph.inputs[0].shape == ir.Shape((2, 4))
