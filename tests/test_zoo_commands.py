"""Every command on every model of the zoo, through the command line: the full product is slow, a part of it fast.

What a command writes is opened in a stock ONNX Runtime session with default options and run on feeds that the
command has not seen.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from click.testing import CliRunner

from onnxcompress.cli import main
from tests.zoo import ZOO, Feed, ZooModel

Array = np.ndarray[Any, Any]
Zoo = Callable[[str], ZooModel]

GIVEN, UNSEEN = 8, 4
"""Feeds that commands get as data, and feeds that their results are measured on."""

BUDGET = 60.0
"""Seconds for `compress`."""


def each(*fast: str, models: Sequence[str] = tuple(ZOO)) -> pytest.MarkDecorator:
    """Runs a test on each model; on all but `fast` in the slow tier only."""
    parameters = [pytest.param(name, marks=() if name in fast else pytest.mark.slow) for name in models]
    return pytest.mark.parametrize("name", parameters)


@functools.cache
def feeds_of(model: ZooModel) -> tuple[list[Feed], list[Feed]]:
    """Feeds to give and feeds to measure on, in turn from the whole of the model's own."""
    feeds = model.feeds()
    chosen = [feeds[i] for i in np.linspace(0, len(feeds) - 1, GIVEN + UNSEEN).astype(int)]
    unseen = chosen[1::3]
    return [feed for i, feed in enumerate(chosen) if i % 3 != 1], unseen


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a command writes; `data` in it is for the feeds."""
    (tmp_path / "data").mkdir()
    return tmp_path


def write_data(model: ZooModel, folder: Path, count: int = GIVEN) -> Path:
    """A folder of .npz, one a feed."""
    for index, feed in enumerate(feeds_of(model)[0][:count]):
        np.savez(folder / "data" / f"{index:02}.npz", **feed)  # type: ignore[arg-type]
    return folder / "data"


def invoke(*arguments: object) -> dict[str, Any]:
    """Run a command that must succeed; its JSON document."""
    result = CliRunner().invoke(main, [*map(str, arguments), "--json", "--seed", "1"])
    assert result.exit_code == 0, f"{arguments}: {result.output}\n{result.exception!r}"
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def open_stock(path: Path) -> ort.InferenceSession:
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"])


def run_all(session: ort.InferenceSession, feeds: Sequence[Feed]) -> list[list[Array]]:
    return [session.run(None, {i.name: feed[i.name] for i in session.get_inputs()}) for feed in feeds]


def cosine(a: Array, b: Array) -> float:
    a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def agreement(model: ZooModel, path: Path) -> float:
    """Mean cosine with the original over unseen feeds, the lowest over the float outputs; the others must be equal."""
    unseen = feeds_of(model)[1]
    similar: dict[int, list[float]] = {}
    for wanted, found in zip(run_all(open_stock(model.path()), unseen), run_all(open_stock(path), unseen), strict=True):
        for index, (a, b) in enumerate(zip(wanted, found, strict=True)):
            assert a.dtype == b.dtype
            if a.dtype.kind == "f":
                assert a.shape == b.shape and np.isfinite(b).all()
                similar.setdefault(index, []).append(cosine(a, b))
            else:
                np.testing.assert_array_equal(a, b)
    return min((float(np.mean(values)) for values in similar.values()), default=1.0)


@each("ppocr-cls", "silero")
def test_inspect(zoo: Zoo, name: str) -> None:
    path = zoo(name).path()
    assert invoke("inspect", path)["parameters"] > 100_000
    shapes = [f"{key}={','.join(map(str, array.shape))}" for key, array in zoo(name).speed_feed().items()]
    found = invoke("inspect", path, *(word for shape in shapes for word in ("--shape", shape)))
    assert found["macs"] > 0 and found["unknown_macs"] == 0
    assert (found["coverage"]["quantized"] > 0) == zoo(name).is_quantized
    table = CliRunner().invoke(main, ["inspect", str(path), "--nodes"])
    assert table.exit_code == 0
    assert len(table.output.splitlines()) == 1 + len(found["nodes"])
    node = found["nodes"][len(found["nodes"]) // 2]
    assert node["op"] in {row["op"] for row in invoke("inspect", path, "--node", node["name"])["nodes"]}


@each("magika", "ppocr-cls")
def test_optimize(zoo: Zoo, name: str, folder: Path) -> None:
    """Equal up to rounding; in portable form too, with standard operators (and what the model had) only."""
    model = zoo(name)
    for options in ([], ["--portable"]):
        document = invoke("optimize", model.path(), "-o", folder / "o.onnx", *options)
        assert document["nodes_after"] <= document["nodes_before"]
        assert (folder / "o.onnx").stat().st_size == document["bytes_after"] <= document["bytes_before"]
        assert agreement(model, folder / "o.onnx") > 1 - 1e-6
    domains = [{node.domain for node in ir.load(path).graph.all_nodes()} for path in (folder / "o.onnx", model.path())]
    assert domains[0] <= domains[1]


@each("ppocr-cls")
def test_extract(zoo: Zoo, name: str, folder: Path) -> None:
    """The node that makes an inner tensor and one that takes it, against the whole model run in one piece."""
    source = ir.load(zoo(name).path())
    feed = feeds_of(zoo(name))[1][0]
    inputs, outputs = around_the_middle(source)
    invoke(
        "extract", zoo(name).path(), "-o", folder / "part.onnx",
        *(word for value in inputs for word in ("--inputs", value)), "--outputs", outputs,
    )  # fmt: skip
    part = open_stock(folder / "part.onnx")
    values = run_inner(source, feed, [*inputs, outputs])
    (found,) = part.run(None, {i.name: values[i.name] for i in part.get_inputs()})
    np.testing.assert_allclose(found, values[outputs], rtol=1e-4, atol=1e-5)


def around_the_middle(model: ir.Model) -> tuple[list[str], str]:
    """Inputs and output of two nodes of the main graph that follow each other, near its middle."""
    nodes = list(model.graph)
    for producer in sorted(nodes, key=lambda node: abs(nodes.index(node) - len(nodes) // 2)):
        consumers = [node for node in producer.outputs[0].consumers() if node.graph is model.graph]
        if not consumers or "Constant" in producer.op_type:
            continue
        taken = [
            value
            for node in (producer, consumers[0])
            for value in [*node.inputs, *captured(node, model.graph)]
            if value is not None and value is not producer.outputs[0]
        ]
        names = [v.name or "" for v in dict.fromkeys(taken) if v.const_value is None and not is_constant(v)]
        if names:
            return names, consumers[0].outputs[0].name or ""
    raise AssertionError("no two nodes follow each other")


def captured(node: ir.Node, graph: ir.Graph) -> list[ir.Value]:
    """Values of `graph` that subgraphs of a node use."""
    bodies = [a.as_graph() for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH]
    used = [value for body in bodies for inner in body.all_nodes() for value in inner.inputs]
    return [value for value in used if value is not None and value.graph is graph]


def is_constant(value: ir.Value) -> bool:
    node = value.producer()
    return node is not None and node.op_type == "Constant"


def run_inner(model: ir.Model, feed: Feed, names: Sequence[str]) -> Feed:
    """Values inside a model, which is run whole with them as outputs."""
    whole = model.clone()
    values = {v.name: v for v in [*whole.graph.inputs, *(v for node in whole.graph for v in node.outputs)]}
    known = [name for name in names if name in feed]
    proto = ir.to_proto(whole)
    del proto.graph.output[:]
    for name in names:
        if name not in known:
            assert name in values
            proto.graph.output.add(name=name)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = session.run(None, {i.name: feed[i.name] for i in session.get_inputs()})
    return {
        **{name: feed[name] for name in known},
        **{output.name: array for output, array in zip(session.get_outputs(), found, strict=True)},
    }


@each("magika")
def test_calibrate_then_quantize_by_its_ranges(zoo: Zoo, name: str, folder: Path) -> None:
    """Ranges of the optimized model, saved, fit the model that they were taken of; int8 as good as with --data."""
    data = write_data(zoo(name), folder)
    invoke("optimize", zoo(name).path(), "-o", folder / "o.onnx")
    document = invoke("calibrate", folder / "o.onnx", "-o", folder / "ranges.json", "--data", data, "--method", "mse")
    assert document["samples"] == GIVEN
    assert all(np.isfinite(bounds).all() and bounds[0] <= bounds[1] for bounds in document["tensors"].values())
    invoke("quantize", folder / "o.onnx", "-o", folder / "q.onnx", "--ranges", folder / "ranges.json")
    assert agreement(zoo(name), folder / "q.onnx") >= FLOORS[name][0]


FLOORS = {
    "minilm": (0.98, 0.98, 0.998, 0.94),
    "ppocr-rec": (0.96, 0.999, 0.999, 0.99),
    "ppocr-det": (0.97, 0.999, 0.998, 0.998),
    "ppocr-cls": (0.98, 0.999, 0.999, 0.999),
    "ddddocr-det": (0.995, 0.999, 0.999, 0.999),
    "ddddocr-old": (0.999999, 0.999999, 0.999999, 0.999999),
    "magika": (0.99, 0.999, 0.999, 0.99),
    "silero": (0.999, 0.999, 0.999, 0.999),
    "silero-16k": (0.98, 0.999, 0.999, 0.999),
}
"""Mean cosine that each model's int8 form keeps at least: static, dynamic, 8-bit and 4-bit weights alone.

Below what was measured, with a margin for other processors; a floor near 1 where next to nothing can be quantized
that way (4-bit blocks are for MatMul, dynamic for MatMul and Gemm, nothing inside `If` for static).
"""

MODES = ("static", "dynamic", "int8 weights", "int4 weights")


@each("ppocr-cls", "silero-16k")
@pytest.mark.parametrize("mode", MODES)
def test_quantize(zoo: Zoo, name: str, mode: str, folder: Path) -> None:
    model = zoo(name)
    options: list[object] = ["--mode", mode]
    if mode == "static":
        options += ["--data", write_data(model, folder)]
    elif mode != "dynamic":
        options = ["--mode", "weight-only", "--weights", mode.split()[0]]
    document = invoke("quantize", model.path(), "-o", folder / "q.onnx", *options)
    found = agreement(model, folder / "q.onnx")
    print(f"{name}, {mode}: {found:.5f}, {document['quantized']} nodes, {document['bytes_after']} bytes")
    assert found >= FLOORS[name][MODES.index(mode)]
    assert document["bytes_after"] == (folder / "q.onnx").stat().st_size
    if model.is_quantized:
        assert document["quantized"] == 0 and "quantized already" in document["notes"][0]
    elif document["quantized"]:
        assert document["bytes_after"] < document["bytes_before"]
    else:
        assert "nothing was quantized" in document["notes"][0]


@each("magika")
def test_diff_of_the_optimized_model(zoo: Zoo, name: str, folder: Path) -> None:
    """Every value that both have agrees to 60 dB: 1e-3."""
    data = write_data(zoo(name), folder, 3)
    invoke("optimize", zoo(name).path(), "-o", folder / "o.onnx")
    document = invoke("diff", zoo(name).path(), folder / "o.onnx", "--data", data)
    assert document["samples"] == 3
    outputs = {value.name for value in ir.load(zoo(name).path()).graph.outputs}
    assert outputs <= {layer["name"] for layer in document["layers"]}
    for layer in document["layers"]:
        assert layer["snr_db"] is None or layer["snr_db"] > 60, layer


@each("silero-16k")
def test_bench(zoo: Zoo, name: str, folder: Path) -> None:
    data = write_data(zoo(name), folder, 1)
    invoke("optimize", zoo(name).path(), "-o", folder / "o.onnx")
    options = ["--data", data, "--rounds", 1, "--runs", 1]
    first, second = invoke("bench", zoo(name).path(), folder / "o.onnx", *options)["models"]
    assert first["bytes"] == zoo(name).path().stat().st_size
    for found in (first, second):
        assert 0 < found["latency"]["least_ms"] <= found["latency"]["median_ms"] < 10_000
    assert second["speedup"]["median"] > 0


@each("silero-16k")
def test_compress_holds_the_bound(zoo: Zoo, name: str, folder: Path) -> None:
    """By the model's own metric, measured anew in a stock session; by agreement on unseen feeds where it has none."""
    model = zoo(name)
    evaluate = ["--eval", model.evaluate] if model.evaluate else []
    document = invoke(
        "compress", model.path(), "-o", folder / "c.onnx", "--data", model.data, *evaluate, "--max-drop", 0.01,
        "--budget", BUDGET, "--report", folder / "report.json",
    )  # fmt: skip
    print(f"{name}: {document['speedup']}, {document['result']['metric']}, {document['seconds']} s")
    assert json.loads((folder / "report.json").read_text("utf-8")) == document
    assert document["within_bound"]
    assert document["result"]["bytes"] <= document["original"]["bytes"]
    before, after = open_stock(model.path()), open_stock(folder / "c.onnx")
    if model.evaluate is None:
        assert agreement(model, folder / "c.onnx") > 0.98
        return
    original, result = (
        model.measure(lambda feed, session=session: run_all(session, [feed])[0])  # type: ignore[misc]
        for session in (before, after)
    )
    assert result >= original - 0.01 * abs(original)
    assert result == pytest.approx(document["result"]["metric"]["value"], rel=2e-3)
