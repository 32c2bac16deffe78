"""Running models over data: values against onnx's reference evaluator, passes, and every refusal."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

import onnxcompress
from onnxcompress import runtime
from onnxcompress.calibration import METHODS, calibrate, calibrate_channels, plan, stream
from onnxcompress.errors import CalibrationError, DataError
from tests.calibration.models import MLP, Feeds, f32, feeds, parse, parse_proto

Array = np.ndarray[Any, Any]

TENSORS = ["x", "h", "s", "a", "y"]


def reference(text: str, data: Feeds, names: list[str]) -> dict[str, list[Array]]:
    """Every tensor's values in every feed, by onnx's own evaluator."""
    proto = parse_proto(text)
    inputs = {i.name for i in proto.graph.input}
    del proto.graph.output[:]
    inner = [n for n in names if n not in inputs]
    proto.graph.output.extend(onnx.ValueInfoProto(name=n) for n in inner)
    evaluator = ReferenceEvaluator(proto)
    runs = [dict(zip(inner, evaluator.run(None, dict(feed)), strict=True)) | feed for feed in data]
    return {name: [run[name] for run in runs] for name in names}


def test_all_float_activations_are_observed_as_the_reference_computes_them() -> None:
    data = feeds(9)
    ranges = calibrate(parse(MLP), data)
    expected = reference(MLP, data, TENSORS)
    assert ranges.names == TENSORS
    assert ranges.samples == 9
    for name in TENSORS:
        low, high = ranges.interval(name)
        assert low == pytest.approx(min(a.min() for a in expected[name]), abs=1e-6)
        assert high == pytest.approx(max(a.max() for a in expected[name]), abs=1e-6)


def test_the_package_has_the_verb() -> None:
    assert onnxcompress.calibrate is calibrate


def test_channels_are_observed_as_the_reference_computes_them() -> None:
    data = feeds(9)
    expected = reference(MLP, data, ["x", "a"])
    statistics = calibrate_channels(parse(MLP), data, {"a": -1, "x": 1})
    assert list(statistics) == ["x", "a"]
    for name, found in statistics.items():
        values = np.concatenate(expected[name])
        np.testing.assert_allclose(found.max_abs, np.abs(values).max(axis=0), rtol=1e-5)
        np.testing.assert_allclose(found.mean, values.mean(axis=0), rtol=1e-5, atol=1e-6)
        assert found.count == len(values)


def test_the_model_is_not_changed() -> None:
    model = parse(MLP)
    before = ir.to_proto(model).SerializeToString()
    calibrate(model, feeds(2))
    calibrate_channels(model, feeds(2), {"h": -1})
    assert ir.to_proto(model).SerializeToString() == before


@pytest.mark.parametrize("method", METHODS)
def test_several_passes_give_what_one_gives(method: str) -> None:
    walks = []

    def data() -> Iterator[dict[str, Array]]:
        walks.append(1)
        yield from feeds(5)

    whole = calibrate(parse(MLP), data, method=method)
    assert len(walks) == 2  # one of them for the sizes of the first feed
    stages = set()
    parts = calibrate(
        parse(MLP),
        data,
        method=method,
        memory_budget=1,
        progress=lambda stage, done, total: stages.add(stage),
    )
    assert len(walks) == 2 + 5
    assert stages == {f"calibrating, pass {i} of 4" for i in (1, 2, 3, 4)}
    assert parts == whole


def test_large_weights_are_never_held_by_two_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = calibrate(parse(MLP), feeds(5))
    opened: list[weakref.ref[Any]] = []

    def open_session(*args: Any, **kwargs: Any) -> Any:
        assert not any(session() for session in opened)
        session = runtime.open_session(*args, **kwargs)
        opened.append(weakref.ref(session))
        return session

    monkeypatch.setattr(plan, "open_session", open_session)
    monkeypatch.setattr(plan, "HELD_WEIGHTS", 0)
    assert calibrate(parse(MLP), feeds(5)) == whole
    assert calibrate(parse(MLP), feeds(5), memory_budget=1) == whole
    assert len(opened) == 3 + 2 + 4


def test_a_budget_groups_tensors_by_their_bytes() -> None:
    walks = []

    def data() -> Iterator[dict[str, Array]]:
        walks.append(1)
        yield {"x": np.ones((10, 4), np.float32)}

    calibrate(parse(MLP), data, memory_budget=2 * 10 * 3 * 4)  # h, s, a and y: two at a time
    assert len(walks) == 1 + 2


def test_chosen_tensors_alone_are_observed() -> None:
    data = feeds(3)
    ranges = calibrate(parse(MLP), data, tensors=["a", "x"])
    assert ranges.names == ["x", "a"]
    assert calibrate(parse(MLP), data, tensors=["x"]).interval("x") == ranges.interval("x")
    with pytest.raises(CalibrationError, match="'h' has no range: it was not calibrated"):
        ranges.interval("h")


def test_a_path_and_a_model_give_the_same(tmp_path: Any) -> None:
    path = tmp_path / "m.onnx"
    ir.save(parse(MLP), path)
    assert calibrate(path, feeds(3)) == calibrate(parse(MLP), feeds(3))


def test_a_float16_model_is_observed() -> None:
    text = """
        g (float16[N] x) => (float16[N] y) {
            h = Exp (x)
            y = Neg (h)
        }"""
    ranges = calibrate(parse(text), [{"x": np.array([0, 1], np.float16)}], method="mse")
    assert ranges.names == ["x", "h", "y"]
    assert calibrate(parse(text), [{"x": np.array([0, 1], np.float16)}]).interval("h") == (
        1.0,
        float(np.exp(np.float16(1))),
    )


def test_progress_counts_samples() -> None:
    seen: list[tuple[str, int, int | None]] = []
    calibrate(parse(MLP), feeds(3), progress=lambda *args: seen.append(args))
    assert seen == [("calibrating", i, None) for i in (1, 2, 3)]


def test_an_interrupt_passes_through() -> None:
    def stop(stage: str, done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(parse(MLP), feeds(3), progress=stop)


def test_subgraph_values_are_not_observed_and_the_node_is() -> None:
    text = """
        g (float[2] x, bool yes) => (float[2] y) {
            y = If (yes) <
                then_branch = a () => (float[2] t) { t = Relu (x) },
                else_branch = b () => (float[2] e) { e = Neg (x) }
            >
        }"""
    data: Feeds = [{"x": f32([-1, 2]), "yes": np.array(flag)} for flag in (True, False)]
    ranges = calibrate(parse(text), data)
    assert ranges.names == ["x", "y"]
    assert ranges.interval("y") == (-2.0, 2.0)


NON_FINITE = """
    g (float[N] x) => (float[N] y) {
        fine = Neg (x)
        root = Sqrt (x)
        later = Log (x)
        y = Add (root, later)
    }"""


@pytest.mark.parametrize("budget", [1, 1 << 20])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, 4, -1], r"tensor 'root' holds NaN at sample 2"),
        ([1, 0, -1], r"tensor '(root|later)' holds (NaN|-inf) at sample [12]"),
        ([np.nan, 1, 1], r"tensor 'x' holds NaN at sample 0"),
        ([1, np.inf, 1], r"tensor 'x' holds \+inf at sample 1"),
        ([1, 2, 0], r"tensor 'later' holds -inf at sample 2"),
    ],
)
def test_what_is_not_finite_is_named_with_its_sample(values: list[float], message: str, budget: int) -> None:
    data: Feeds = [{"x": f32([1, v])} for v in values]
    with pytest.raises(CalibrationError, match=message):
        calibrate(parse(NON_FINITE), data, memory_budget=budget)


MASKED = """
    g (float[2, 3] x, bool[2, 3] allowed) => (float[2, 3] y)
    <float zero = {0.0}, float one = {1.0}> {
        low = Neg (one)
        never = Div (low, zero)
        mask = Where (allowed, zero, never)
        scores = Add (x, mask)
        p = Softmax <axis = -1> (scores)
        y = Mul (p, x)
    }"""


def test_minus_infinity_in_attention_masks_is_left_out() -> None:
    x = f32([[1, 2, 3], [4, 5, 6]])
    allowed, masked = np.ones((2, 3), bool), np.tril(np.ones((2, 3), bool))
    data: Feeds = [{"x": x, "allowed": allowed}, {"x": x, "allowed": masked}, {"x": x, "allowed": allowed}]
    ranges = calibrate(parse(MASKED), data)
    assert ranges.names == ["x", "p", "y"]
    assert list(ranges.left_out) == ["mask", "scores"]
    with pytest.raises(CalibrationError, match="'mask' has no range: it is an attention mask"):
        ranges.interval("mask")
    part = calibrate(parse(MASKED), data[:1])
    assert part.names == ["x", "mask", "scores", "p", "y"]
    assert part.merge(ranges).names == ranges.merge(part).names == ranges.names
    with pytest.raises(CalibrationError, match="'mask' holds -inf at sample 1"):
        calibrate(parse(MASKED), data, tensors=["mask", "p"])


def test_an_input_that_is_not_finite_is_never_a_mask_when_it_is_nan() -> None:
    x = f32([[1, 2, np.nan], [4, 5, 6]])
    with pytest.raises(CalibrationError, match="'x' holds NaN at sample 0"):
        calibrate(parse(MASKED), [{"x": x, "allowed": np.ones((2, 3), bool)}])


@pytest.mark.parametrize("tensors", [None, ["x"], ["h"], ["h", "y"]])
def test_no_samples_is_an_error(tensors: list[str] | None) -> None:
    with pytest.raises(CalibrationError, match="no feeds"):
        calibrate(parse(MLP), [], tensors=tensors)


def test_data_that_runs_dry_is_an_error() -> None:
    left = [3, 3, 2, 2, 2]

    def data() -> Feeds:
        return feeds(left.pop(0))

    with pytest.raises(CalibrationError, match="gave 3 feeds and then 2"):
        calibrate(parse(MLP), data, memory_budget=1)


def test_feeds_that_do_not_fit_are_errors() -> None:
    good = feeds(1)
    with pytest.raises(DataError, match="feed 1: input 'x' is missing"):
        calibrate(parse(MLP), [*good, {"z": good[0]["x"]}])
    with pytest.raises(DataError, match="feed 1: input 'x' is float64"):
        calibrate(parse(MLP), [*good, {"x": good[0]["x"].astype(np.float64)}])


def test_a_feed_the_model_cannot_run_is_named() -> None:
    text = "g (float[N] x, float[M] z) => (float[K] y) { h = Add (x, z) y = Neg (h) }"
    fits = {"x": np.ones(2, np.float32), "z": np.ones(2, np.float32)}
    wrong = {"x": np.ones(2, np.float32), "z": np.ones(3, np.float32)}
    with pytest.raises(DataError, match="sample 1: the model cannot run this feed"):
        calibrate(parse(text), [fits, wrong])
    with pytest.raises(DataError, match="sample 0: the model cannot run this feed"):
        calibrate(parse(text), [wrong, fits])


def test_what_cannot_be_observed_is_refused() -> None:
    with pytest.raises(CalibrationError, match="'nothing' is not in the model's main graph"):
        calibrate(parse(MLP), feeds(1), tensors=["nothing"])
    with pytest.raises(CalibrationError, match="'shape' is tensor\\(int64\\): only floats"):
        calibrate(parse(MLP), feeds(1), tensors=["shape"])
    with pytest.raises(CalibrationError, match="choose one of"):
        calibrate(parse(MLP), feeds(1), method="median")
    with pytest.raises(CalibrationError, match="'ids' is INT64: only floats"):
        calibrate(parse("g (int64[N] ids) => (float[N] y) { y = Cast <to = 1> (ids) }"), [], tensors=["ids"])


def test_channel_errors_name_the_tensor() -> None:
    with pytest.raises(CalibrationError, match=r"tensor 'h' at sample 0 .*no axis 2"):
        calibrate_channels(parse(MLP), feeds(2), {"h": 2})
    with pytest.raises(CalibrationError, match=r"tensor 'x' at sample 1 .*channels, where there were"):
        calibrate_channels(parse(MLP), [{"x": np.ones((n, 4), np.float32)} for n in (1, 2)], {"x": 0})
    with pytest.raises(CalibrationError, match="tensor 'x': no values"):
        calibrate_channels(parse(MLP), [{"x": np.ones((0, 4), np.float32)}], {"x": 1})


def test_a_tensor_that_is_always_empty_has_no_range() -> None:
    ranges = calibrate(parse(MLP), [{"x": np.ones((0, 4), np.float32)}])
    assert ranges.names == []
    assert "x" not in ranges
    with pytest.raises(CalibrationError, match="empty in every sample"):
        ranges.interval("x")


def test_a_caller_may_bring_an_observer() -> None:
    class Rows:
        def __init__(self) -> None:
            self.seen: list[int] = []

        def observe(self, array: Array) -> None:
            self.seen.append(len(array))

    rows, data = Rows(), feeds(4)
    assert stream(parse(MLP), data, {"h": rows}) == 4
    assert rows.seen == [len(feed["x"]) for feed in data]


def test_stale_types_and_shapes_in_the_file_do_no_harm() -> None:
    model = parse(MLP)
    for node in model.graph:
        for value in node.outputs:
            value.shape = ir.Shape([7, 7, 7]) if value.name in ("h", "s", "a") else value.shape
    assert calibrate(model, feeds(3)).names == TENSORS
