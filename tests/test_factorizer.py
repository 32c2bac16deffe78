"""`factorize` on a model whose ranks are known, and on real ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxcompress import factorizer
from onnxcompress.data import Feed
from onnxcompress.errors import CalibrationError, DataError, ModelError
from onnxcompress.factorization_times import Times, layer_times
from onnxcompress.factorizer import Factorized, factorize
from onnxcompress.optimizer import optimize
from onnxcompress.passes.prune.layers import Layer, find_layers
from onnxcompress.runtime.session import open_session, run
from tests.models import with_initializers
from tests.zoo import ZooModel

Array = np.ndarray[Any, Any]

WIDTH, RANK = 256, 16


def mlp() -> ir.Model:
    """Two layers 256 wide: `low` has rank 16, `full` all of it; `x` f32 [N, 256]."""
    text = f"""
    <ir_version: 10, opset_import: ["" : 21]>
    mlp (float[N, {WIDTH}] x) => (float[N, {WIDTH}] y) {{
        [low] a = Gemm (x, w1, b1)
        r = Relu (a)
        [full] y = MatMul (r, w2)
    }}
    """
    rng = np.random.default_rng(0)
    weights = {
        "w1": rng.normal(size=(WIDTH, RANK)) @ rng.normal(size=(RANK, WIDTH)) / 16,
        "b1": rng.normal(size=WIDTH),
        "w2": rng.normal(size=(WIDTH, WIDTH)) / 16,
    }
    return with_initializers(ir.from_onnx_text(text), {n: w.astype(np.float32) for n, w in weights.items()})


def feeds(count: int = 4, rows: int = 128) -> list[Feed]:
    rng = np.random.default_rng(1)
    return [{"x": rng.normal(size=(rows, WIDTH)).astype(np.float32)} for _ in range(count)]


def told(result: Factorized) -> dict[str, str]:
    return {outcome.name: outcome.reason for outcome in result.outcomes}


@pytest.fixture
def quick_race(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factorizer, "RACE_SECONDS", 0.2)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch, quick_race: None) -> Callable[[Callable[[Layer, int | None], float]], None]:
    """Times as a function of a layer and a rank says, and a race that the factors win."""

    def use(ms: Callable[[Layer, int | None], float]) -> None:
        def times(
            model: ir.Model, layers: Sequence[Layer], ranks: Mapping[str, Sequence[int]], feed: Feed, **options: Any
        ) -> dict[str, Times]:
            return {x.name: Times(ms(x, None), {rank: ms(x, rank) for rank in ranks[x.name]}) for x in layers}

        monkeypatch.setattr(factorizer, "layer_times", times)
        monkeypatch.setattr(factorizer, "whole_speedup", lambda *arguments, **options: 1.5)

    return use


def by_work(layer: Layer, rank: int | None) -> float:
    return layer.inputs * layer.outputs if rank is None else rank * (layer.inputs + layer.outputs)


def test_layer_of_low_rank_becomes_two_and_computes_the_same(quick_race: None) -> None:
    """Measured for real: a sixteenth of the work is faster on any machine."""
    model = mlp()
    result = factorize(model, data=feeds(), energy=0.999999)
    by_name = {outcome.name: outcome for outcome in result.outcomes}
    assert by_name["low"].rank == RANK
    assert by_name["low"].lost < 1e-6
    assert by_name["full"].rank is None
    assert "two factors multiply less below rank 128 only" in by_name["full"].reason
    assert result.speedup > 1
    onnx.checker.check_model(ir.to_proto(result.model), full_check=True)
    expected, found = (run(open_session(m), feeds()[3])[0] for m in (model, result.model))
    assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)
    assert model.graph[0].name == "low", "the model given was changed"


def test_energy_is_what_is_lost_at_the_layer(timed: Callable[..., None]) -> None:
    """Independent: the error of the layer's output, measured in ONNX Runtime on the calibration data."""
    timed(by_work)
    data = feeds(16)
    model = mlp()
    for value in list(model.graph.outputs):  # the first layer's output is what we look at
        model.graph.outputs.remove(value)
    model.graph.outputs.append(model.graph.node(0).outputs[0])
    model.graph.initializers["w1"].const_value = ir.tensor(
        (np.linalg.qr(np.random.default_rng(0).normal(size=(WIDTH, WIDTH)))[0] * 0.97 ** np.arange(WIDTH)).astype(
            np.float32
        )
    )
    result = factorize(model, data=data, energy=0.9)
    outcome = result.outcomes[0]
    assert outcome.rank is not None
    expected, found = (np.concatenate([run(open_session(m), feed)[0] for feed in data]) for m in (model, result.model))
    lost = np.sum(np.mean((found - expected) ** 2, axis=0)) / np.sum(np.var(expected, axis=0))
    assert lost == pytest.approx(outcome.lost, rel=0.02)
    assert lost <= 0.1


def test_what_is_not_faster_stays(timed: Callable[..., None]) -> None:
    timed(lambda layer, rank: 1.0 if rank is None else 0.96)
    result = factorize(mlp(), data=feeds(), energy=0.99)
    assert told(result)["low"] == "not faster: 0.960 ms at rank 16, 1.000 ms as it is"
    assert result.speedup == 1
    assert "no layer was factorized" in result.notes
    assert len(result.model.graph) == 3


def test_model_that_is_not_faster_as_a_whole_is_given_back(
    timed: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    timed(by_work)
    monkeypatch.setattr(factorizer, "whole_speedup", lambda *arguments, **options: 0.97)
    result = factorize(mlp(), data=feeds(), energy=0.99)
    assert len(result.model.graph) == 3
    assert not any(outcome.rank for outcome in result.outcomes)
    assert result.notes == ["with 2 layers factorized the model was x0.97 as fast: it was left as it is"]


def test_latency_takes_from_the_layer_that_loses_less(timed: Callable[..., None]) -> None:
    timed(by_work)
    result = factorize(mlp(), data=feeds(), latency=0.6)
    assert result.outcomes[0].rank is not None and result.outcomes[0].lost < 0.01
    assert told(result)["full"] == "other layers lose less for the time they save"
    assert not result.notes


def test_latency_that_cannot_be_reached_is_noted(timed: Callable[..., None]) -> None:
    timed(by_work)
    result = factorize(mlp(), data=feeds(), latency=0.05)
    assert all(outcome.rank == 16 for outcome in result.outcomes)
    assert result.notes == ["the layers take 12% of their time: no rank is faster"]


def test_excluded_and_unfit_layers_stay_with_their_reason(timed: Callable[..., None]) -> None:
    timed(by_work)
    assert told(factorize(mlp(), data=feeds(), energy=0.9, exclude=["lo*"]))["low"] == "excluded"
    with pytest.raises(ModelError, match="'nothing' matches no node"):
        factorize(mlp(), data=feeds(), exclude=["nothing"])


def test_moments_that_exceed_the_budget_take_several_passes(
    timed: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    timed(by_work)
    expected = factorize(mlp(), data=feeds(), energy=0.9)
    monkeypatch.setattr(factorizer, "MOMENTS_BUDGET", 1)
    passes = 0

    def counted() -> list[Feed]:
        nonlocal passes
        passes += 1
        return feeds()

    found = factorize(mlp(), data=counted, energy=0.9)
    assert passes >= 3  # the first feed, and one for each layer
    assert [outcome.lost for outcome in found.outcomes] == [outcome.lost for outcome in expected.outcomes]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"energy": 0.9, "latency": 0.5}, "not both"),
        ({"energy": 0.0}, "energy is a share, over 0 and at most 1, not 0.0"),
        ({"latency": 1.5}, "latency is a share, over 0 and at most 1, not 1.5"),
    ],
)
def test_options_that_make_no_sense_raise(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        factorize(mlp(), data=feeds(), **options)  # type: ignore[arg-type]


def test_data_that_cannot_be_used_raises() -> None:
    with pytest.raises(DataError, match="no feeds"):
        factorize(mlp(), data=[])
    broken = feeds(2)
    broken[1]["x"][0, 0] = np.nan
    with pytest.raises(CalibrationError, match="NaN at sample 1"):
        factorize(mlp(), data=broken)


def test_times_are_of_the_real_shapes_and_grow_with_the_rank() -> None:
    model = optimize(mlp())
    layers, _ = find_layers(model)
    ranks = {"low": [16, 112], "full": [16, 112]}
    short, long = (layer_times(model, layers, ranks, feed) for feed in (feeds(1, 8)[0], feeds(1, 1024)[0]))
    for times in (short["low"], long["low"]):
        assert 0 < times.factored[16] < times.factored[112]
    assert long["full"].dense > 8 * short["full"].dense
    assert long["low"].factored[16] < long["low"].dense


def test_recogniser_within_its_energy(zoo: Callable[[str], ZooModel], timed: Callable[..., None]) -> None:
    """A real convolution network with linear layers: its output stays near, more energy brings it nearer."""
    timed(by_work)
    model = zoo("ppocr-cls")
    data = model.feeds(24)
    session = open_session(optimize(model.path(), portable=True))
    errors = []
    for energy in (0.999, 0.95):
        result = factorize(model.path(), data=data, energy=energy)
        ranks = [outcome.rank for outcome in result.outcomes if outcome.rank]
        assert ranks
        made = open_session(result.model)
        pairs = [(run(session, feed)[0], run(made, feed)[0]) for feed in data[:8]]
        errors.append(sum(float(np.linalg.norm(a - b) / np.linalg.norm(a)) for a, b in pairs) / 8)
    assert errors[0] < 0.05
    assert errors[0] < errors[1]


@pytest.mark.slow
def test_sentence_encoder_gets_faster_and_stays_near(zoo: Callable[[str], ZooModel]) -> None:
    from tests.zoo import minilm

    model = zoo("minilm")
    data = [*minilm.speed(), *model.feeds(48)]
    result = factorize(model.path(), data=data, energy=0.995)
    assert sum(outcome.rank is not None for outcome in result.outcomes) >= 3
    assert result.speedup > 1
    sessions = [open_session(m) for m in (model.path(), result.model)]
    cosines = [
        float((run(sessions[0], feed)[0] * run(sessions[1], feed)[0]).sum())
        for feed in itertools.islice(minilm.sentences500(), 30)
    ]
    assert np.mean(cosines) > 0.93
