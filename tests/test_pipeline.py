"""`compress` end to end: what it writes is true, repeatable and whole, and bad input writes nothing."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from onnxcompress import delivery
from onnxcompress.errors import CompressError, DataError, EvaluationError, ModelError
from onnxcompress.lineage import recipe_of
from onnxcompress.model_io import load_model
from onnxcompress.pipeline import compress
from onnxcompress.recipe import Recipe, read_recipe, to_toml
from onnxcompress.report import Result
from onnxcompress.runtime.library import register
from onnxcompress.search import Search
from onnxcompress.workbench import Candidate, Workbench
from tests.models import encoder, images, small_cnn, wide_cnn

Array = np.ndarray[Any, Any]

pytestmark = pytest.mark.usefixtures("quick")
Folder = Callable[[], set[str]]


def output_of(path: Path, feed: dict[str, Array]) -> Array:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (out,) = session.run(None, feed)
    return np.asarray(out)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three models and what `compress` made of the first."""
    folder = tmp_path_factory.mktemp("pipeline")
    for name, model in (("wide", wide_cnn()), ("small", small_cnn()), ("encoder", encoder())):
        ir.save(model, folder / f"{name}.onnx")
    return folder


@pytest.fixture(scope="module")
def result(place: Path) -> Result:
    return compress(place / "wide.onnx", place / "out.onnx", data=images(20, 32), report=place / "out.json")


@pytest.fixture
def source(place: Path) -> Path:
    return place / "small.onnx"


def tokens(count: int = 20) -> list[dict[str, Array]]:
    rng = np.random.default_rng(0)
    return [{"x": rng.normal(size=(1, 16, 64)).astype(np.float32)} for _ in range(count)]


# -- what it gives --------------------------------------------------------------------------------------------


def test_a_network_of_convolutions_becomes_smaller_and_faster(place: Path, result: Result) -> None:
    assert result.recipe["mode"] == "static"
    assert result.speedup is not None and result.speedup["median"] > 1.2
    assert result.result.bytes < 0.5 * result.original.bytes
    assert result.within_bound and not result.interrupted
    feed = images(1, 32, seed=9)[0]
    assert output_of(place / "out.onnx", feed).argmax() == output_of(place / "wide.onnx", feed).argmax()
    assert {path.name for path in place.iterdir() if path.name.startswith(("out", "."))} == {
        "out.onnx", "out.onnx.recipe.toml", "out.json",
    }  # fmt: skip


def test_the_report_is_the_result_in_strict_json(place: Path, result: Result) -> None:
    document = json.loads((place / "out.json").read_text(), parse_constant=pytest.fail)
    assert document == json.loads(json.dumps(result.as_dict()))
    assert document["schema"] == 1
    for side, path in (("original", place / "wide.onnx"), ("result", place / "out.onnx")):
        measured = document[side]
        assert measured["path"] == str(path)
        assert measured["bytes"] == path.stat().st_size
        assert measured["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert set(measured["latency"]) == {"threads", "rounds", "runs", "median_ms", "least_ms"}
        assert 0 < measured["latency"]["least_ms"] <= measured["latency"]["median_ms"]
    weights = [np.prod(w.dims) for w in onnx.load(place / "wide.onnx").graph.initializer]
    assert document["original"]["parameters"] == sum(weights)
    macs = 32 * 32 * 64 * 9 * (3 + 64 + 64) + 64 * 10
    assert document["original"]["macs"] == document["result"]["macs"] == macs
    assert document["original"]["metric"] == {"name": "top1 of probabilities", "value": 1.0}
    assert document["result"]["metric"]["name"] == "top1 of probabilities"


def test_int8_in_the_report_is_int8_in_onnxruntime(place: Path, result: Result, tmp_path: Path) -> None:
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "run.onnx")
    options.log_severity_level = 4
    register(options)
    ort.InferenceSession(str(place / "out.onnx"), options, providers=["CPUExecutionProvider"])
    ran = [node.op_type for node in onnx.load(tmp_path / "run.onnx").graph.node]
    decisions = {node.name: node.decision for node in result.nodes}
    assert set(decisions) == {"c1", "c2", "c3", "fc"}
    in_int8 = ("QLinearConv", "QGemm", "QConv", "QLinear")
    assert sum(op in in_int8 for op in ran) == list(decisions.values()).count("int8")
    assert sum(op in ("Conv", "FusedConv", "Gemm") for op in ran) == list(decisions.values()).count("float")


def test_the_model_carries_its_recipe_and_names_its_source(place: Path, result: Result, tmp_path: Path) -> None:
    model = load_model(place / "out.onnx")
    assert model.metadata_props["onnxcompress.source"] == result.original.sha256
    assert recipe_of(model) == read_recipe(place / "out.onnx.recipe.toml")
    again = tmp_path / "again.onnx"
    compress(place / "wide.onnx", again, data=images(4, 32), recipe=place / "out.onnx")
    assert again.read_bytes() == (place / "out.onnx").read_bytes()


def test_the_users_function_is_the_metric(place: Path, tmp_path: Path) -> None:
    feeds = images(4, 32, seed=3)

    def negative_error(run: Callable[[dict[str, Array]], list[Array]]) -> float:
        return -1.0 - sum(float(np.abs(run(feed)[0] - 0.1).mean()) for feed in feeds)

    found = compress(place / "encoder.onnx", tmp_path / "o.onnx", data=tokens(4), evaluate=lambda run: -3.0)
    assert found.result.metric == {"name": "<lambda>", "value": -3.0}
    assert found.within_bound
    found = compress(place / "wide.onnx", tmp_path / "o.onnx", data=images(4, 32), evaluate=negative_error)
    wanted = negative_error(lambda feed: [output_of(tmp_path / "o.onnx", feed)])
    assert found.result.metric is not None
    assert found.result.metric["value"] == pytest.approx(wanted, rel=1e-4)


def test_the_original_is_kept_where_nothing_is_faster(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine where whatever was changed is slower."""

    def timed(bench: Workbench, candidate: Candidate) -> Candidate:
        candidate.speedup = 0.5
        bench._remember(candidate)
        return candidate

    monkeypatch.setattr(Workbench, "timed", timed)
    found = compress(source, tmp_path / "o.onnx", data=images(8), metric="cosine")
    assert found.recipe["mode"] == "original"
    assert (tmp_path / "o.onnx").read_bytes() == source.read_bytes()
    assert found.speedup == {"median": 1.0, "least": 1.0}
    assert found.original.latency == found.result.latency
    assert {node.decision for node in found.nodes} == {"float"}
    assert any(f"{kind} int8" in note for note in found.notes for kind in ("static", "native")), "what was lost is told"


def test_a_drop_of_nothing_gives_what_loses_nothing(place: Path, tmp_path: Path) -> None:
    found = compress(place / "encoder.onnx", tmp_path / "o.onnx", data=tokens(), metric="cosine", max_drop=0)
    assert found.result.metric is not None and found.result.metric["value"] == 1.0
    assert found.within_bound
    assert any("below the bound 1" in note or "no faster" in note for note in found.notes)


def test_layers_are_put_back_until_a_small_drop_holds(place: Path, tmp_path: Path) -> None:
    found = compress(place / "encoder.onnx", tmp_path / "o.onnx", data=tokens(), metric="cosine", max_drop=1e-4)
    assert found.result.metric is not None and found.result.metric["value"] >= 1 - 1e-4
    assert found.within_bound
    held_out = tokens()[-16:]
    same = [agree(place / "encoder.onnx", tmp_path / "o.onnx", feed) for feed in held_out]
    assert np.mean(same) == pytest.approx(found.result.metric["value"], abs=1e-6)


def agree(one: Path, other: Path, feed: dict[str, Array]) -> float:
    a, b = (output_of(path, feed).astype(np.float64).ravel() for path in (one, other))
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


# -- models of many kinds -------------------------------------------------------------------------------------


def test_external_data_is_left_alone_and_the_result_stands_alone(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    after.mkdir()
    ir.save(wide_cnn(), before / "m.onnx", external_data="weights.bin")
    held = (before / "weights.bin").read_bytes()
    compress(before / "m.onnx", after / "m.onnx", data=images(4, 32))
    assert (before / "weights.bin").read_bytes() == held
    feed = images(1, 32)[0]
    expected = output_of(before / "m.onnx", feed)
    (before / "weights.bin").unlink()
    assert output_of(after / "m.onnx", feed).argmax() == expected.argmax()


def test_a_copy_of_an_original_with_external_data_has_its_own(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    after.mkdir()
    ir.save(wide_cnn(), before / "m.onnx", external_data="weights.bin")
    (tmp_path / "r.toml").write_text(to_toml(Recipe(mode="original")))
    found = compress(before / "m.onnx", after / "n.onnx", data=images(4, 32), recipe=tmp_path / "r.toml")
    feed = images(1, 32)[0]
    expected = output_of(before / "m.onnx", feed)
    (before / "weights.bin").unlink()
    np.testing.assert_array_equal(output_of(after / "n.onnx", feed), expected)
    assert found.result.bytes == sum(
        (after / name).stat().st_size for name in os.listdir(after) if "recipe" not in name
    )


def test_a_model_in_memory(tmp_path: Path) -> None:
    found = compress(small_cnn(), tmp_path / "o.onnx", data=images(4))
    assert found.original.path == ""
    assert found.original.bytes > 0
    assert (tmp_path / "o.onnx").is_file()


def test_one_that_is_quantized_already_is_left_alone(place: Path, result: Result, tmp_path: Path) -> None:
    found = compress(place / "out.onnx", tmp_path / "o.onnx", data=images(4, 32))
    assert (tmp_path / "o.onnx").read_bytes() == (place / "out.onnx").read_bytes()
    assert any("already quantized" in note for note in found.notes)


HEADER = '<ir_version: 10, opset_import: ["": 21]> g '


@pytest.mark.parametrize(
    ("text", "dtype"),
    [
        (HEADER + "(float[N, 4] x) => (float[N, 4] y) { r = Relu(x) y = Softmax(r) }", np.float32),
        (HEADER + "(float16[N, 4] x) => (float16[N, 4] y) { y = Relu(x) }", np.float16),
        (
            HEADER + "(float[N, 4] x) => (float[N, 4] y, int64[N, 1] c) { y = Relu(x) c = ArgMax<axis=1>(y) }",
            np.float32,
        ),
        ('<ir_version: 4, opset_import: ["": 9]> g (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }', np.float32),
        (
            '<ir_version: 8, opset_import: ["": 17]> g (float[N, 4] x, float[4, 2] w) => (float[N, 2] y)'
            " <float[4, 2] w = {1, 2, 3, 4, 5, 6, 7, 8}> { y = MatMul(x, w) }",
            np.float32,
        ),
        (
            HEADER + "(float[N, 4] x) => (float[N, 4] y, float[M, 4] none)"
            " <int64[1] zero = {0}> { y = Relu(x) none = Slice(y, zero, zero, zero) }",
            np.float32,
        ),
    ],
    ids=["no weights", "float16", "integers beside", "opset 9", "initializer that is an input", "empty output"],
)
def test_models_with_little_to_gain_come_through(text: str, dtype: type, tmp_path: Path) -> None:
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    rng = np.random.default_rng(0)
    feeds: list[dict[str, Array]] = [{"x": rng.normal(size=(n, 4)).astype(dtype)} for n in (1, 2, 3, 4)]
    found = compress(tmp_path / "m.onnx", tmp_path / "o.onnx", data=feeds)
    assert found.within_bound
    one, other = (ort.InferenceSession(str(tmp_path / name)) for name in ("m.onnx", "o.onnx"))
    for a, b in zip(one.run(None, feeds[2]), other.run(None, feeds[2]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3)


# -- recipes --------------------------------------------------------------------------------------------------


def test_replaying_gives_the_same_bytes_and_measures_no_choice(
    place: Path, result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*args: object) -> None:
        raise AssertionError("a replay searches nothing")

    monkeypatch.setattr(Search, "run", forbidden)
    monkeypatch.setattr(delivery, "NOISE", 1e9)  # a result that is slower today is still the recipe's
    again = compress(
        place / "wide.onnx", tmp_path / "o.onnx", data=images(20, 32), recipe=place / "out.onnx.recipe.toml"
    )
    assert (tmp_path / "o.onnx").read_bytes() == (place / "out.onnx").read_bytes()
    assert (tmp_path / "o.onnx.recipe.toml").read_bytes() == (place / "out.onnx.recipe.toml").read_bytes()
    assert again.result.metric == result.result.metric
    assert not again.notes


@pytest.mark.parametrize(
    "recipe", [Recipe(mode="original"), Recipe(mode="float"), Recipe(mode="dynamic", exclude={"fc": "user"})]
)
def test_what_a_recipe_says_is_done_though_it_gains_nothing(recipe: Recipe, place: Path, tmp_path: Path) -> None:
    written = []
    (tmp_path / "r.toml").write_text(to_toml(recipe))
    for name in ("a.onnx", "b.onnx"):
        found = compress(place / "wide.onnx", tmp_path / name, data=images(2, 32), recipe=tmp_path / "r.toml")
        written.append((tmp_path / name).read_bytes())
        assert found.recipe["mode"] == recipe.mode
        (tmp_path / "r.toml").write_bytes((tmp_path / f"{name}.recipe.toml").read_bytes())
    assert written[0] == written[1]
    assert (written[0] == (place / "wide.onnx").read_bytes()) == (recipe.mode == "original")


def test_a_recipe_of_another_model_is_refused_or_said(place: Path, result: Result, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="made from another model"):
        compress(place / "small.onnx", tmp_path / "o.onnx", data=images(2), recipe=place / "out.onnx.recipe.toml")
    assert not list(tmp_path.iterdir())
    (tmp_path / "r.toml").write_text(to_toml(Recipe(mode="dynamic", source="0" * 64)))
    found = compress(place / "small.onnx", tmp_path / "o.onnx", data=images(2), recipe=tmp_path / "r.toml")
    assert any("made from another model" in note for note in found.notes)
    assert found.recipe["source"] == found.original.sha256


def test_a_recipe_takes_no_exclusions(source: Path, tmp_path: Path) -> None:
    with pytest.raises(CompressError, match="a recipe says what is excluded"):
        compress(source, tmp_path / "o.onnx", data=images(2), recipe=tmp_path / "r.toml", exclude=["a"])


def test_exclusions_must_name_nodes(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="--exclude nowhere: no such node"):
        compress(source, tmp_path / "o.onnx", data=images(2), exclude=["nowhere"])


def test_an_excluded_node_stays_float(place: Path, tmp_path: Path) -> None:
    found = compress(place / "wide.onnx", tmp_path / "o.onnx", data=images(4, 32), exclude=["c2"])
    (node,) = [node for node in found.nodes if node.name == "c2"]
    assert (node.decision, node.reason) == ("float", "excluded by the user")


# -- bad input ---------------------------------------------------------------------------------------------------


def broken_off() -> Iterator[dict[str, Array]]:
    yield from images(3)
    raise DataError("the disk is gone")


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (lambda: [], DataError, "no feeds"),
        (broken_off, DataError, "the disk is gone"),
        (lambda: [{"y": np.zeros(3)}], DataError, "'x' is missing"),
        (lambda: [{"x": np.zeros((1, 3, 16, 16))}], DataError, "float64, the model takes float32"),
        (lambda: [{"x": np.full((1, 3, 16, 16), np.nan, np.float32)}], CompressError, "NaN at sample 0"),
    ],
)
def test_bad_data_writes_nothing(
    data: Callable[[], Any], error: type[Exception], message: str, source: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        compress(source, tmp_path / "o.onnx", data=data)
    assert not list(tmp_path.iterdir())


def test_an_iterator_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="can be walked once only"):
        compress(source, tmp_path / "o.onnx", data=iter(images(3)))


def test_an_evaluation_that_fails_on_the_original_is_an_error(source: Path, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="gave nan"):
        compress(source, tmp_path / "o.onnx", data=images(3), evaluate=lambda run: math.nan)
    assert not list(tmp_path.iterdir())


def test_scores_are_taken_up_again(source: Path, tmp_path: Path) -> None:
    calls = []

    def counted(run: Callable[[dict[str, Array]], list[Array]]) -> float:
        calls.append(1)
        return 1.0

    for _ in range(2):
        compress(source, tmp_path / "o.onnx", data=images(2), evaluate=counted, resume=tmp_path / "kept")
    first = json.loads((tmp_path / "kept" / "scores.json").read_text())
    assert len(first) == 1
    assert len(calls) == 2 + len(next(iter(first.values())))
