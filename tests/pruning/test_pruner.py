"""`prune`: patterns, saliencies and options on small graphs, and on real models."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import onnxcompress
from onnxcompress.data import DataSet
from onnxcompress.errors import CompressError, DataError, ModelError
from onnxcompress.inspection import inspect
from onnxcompress.model_io import save_model
from onnxcompress.optimizer import optimize
from onnxcompress.passes.prune import find_layers, grid_of, layer_nodes, to_matrix, weight_of
from onnxcompress.passes.prune.channels import find_groups
from onnxcompress.passes.prune.patterns import follows
from onnxcompress.progress import silent
from onnxcompress.pruning.options import SALIENCIES, Options
from onnxcompress.pruning.pruner import Pruned, prune_file
from onnxcompress.pruning.units import score_units
from onnxcompress.runtime import open_session
from onnxcompress.runtime.session import run
from tests.models import small_cnn
from tests.passes.quantize.models import Feed, build, execute, normal, relative
from tests.zoo import ZooModel
from tests.zoo.minilm import sentences500

MASKS = ("unstructured", "2:4", "block1x4", "block4x4", "block16x4")
TEXT = """agraph (float[n,8,8,8] x) => (float[n,10] y) {
    [conv1] a = Conv <pads = [1,1,1,1]> (x, w1, b1)
    [norm] b = BatchNormalization (a, gamma, beta, mean, var)
    [relu] c = Relu (b)
    [conv2] d = Conv <pads = [1,1,1,1]> (c, w2)
    [act] e = Relu (d)
    [pool] f = GlobalAveragePool (e)
    [flat] g = Flatten (f)
    [up] h = MatMul (g, w3)
    [sum] i = Add (h, b3)
    [bend] j = Tanh (i)
    [head] y = Gemm (j, w4, b4)
}"""


def network() -> ir.Model:
    weights = {
        "w1": normal(16, 8, 3, 3, scale=0.2), "b1": normal(16), "gamma": np.ones(16, np.float32),
        "beta": normal(16, seed=1, scale=0.1), "mean": normal(16, seed=2, scale=0.1), "var": np.ones(16, np.float32),
        "w2": normal(32, 16, 3, 3, seed=3, scale=0.2), "w3": normal(32, 64, seed=4, scale=0.3), "b3": normal(64),
        "w4": normal(64, 10, seed=5), "b4": normal(10),
    }  # fmt: skip
    return build(TEXT, weights)


def feeds(start: int = 0, count: int = 12) -> list[Feed]:
    """Images whose channels hang together, so that there is something to make up with."""
    mix = normal(8, 8, seed=9)
    return [{"x": np.einsum("ij,njhw->nihw", mix, normal(4, 8, 8, 8, seed=start + i))} for i in range(count)]


def error(model: ir.Model, result: Pruned) -> float:
    held_out = feeds(100)
    wanted, got = (np.stack([execute(m, feed, optimize=True)[0] for feed in held_out]) for m in (model, result.model))
    return relative(got, wanted)


def obeys(result: Pruned, pattern: str) -> bool:
    pruned = {layer.name for layer in result.layers}
    layers = [layer for layer in find_layers(result.model)[0] if layer.name in pruned]
    return all(
        follows(to_matrix(weight_of(result.model, layer), node) != 0, grid_of(pattern))
        for layer, node in layer_nodes(result.model, layers)
    )


@pytest.mark.parametrize("pattern", MASKS)
def test_masks(pattern: Any) -> None:
    model = network()
    sparsity = None if pattern == "2:4" else 0.5
    plain = onnxcompress.prune(model, pattern=pattern, sparsity=sparsity)
    solved = onnxcompress.prune(model, pattern=pattern, sparsity=sparsity, data=feeds())
    for result in (plain, solved):
        assert obeys(result, pattern)
        assert [layer.name for layer in result.layers] == ["conv1", "conv2", "i/Gemm"]
        assert all(0.48 < layer.sparsity < 0.52 for layer in result.layers)
        assert [(r.name, r.reason) for r in result.refused] == [("head", "it has fewer than 1024 weights")]
    assert all(layer.error is None for layer in plain.layers)
    assert all(layer.error is not None and layer.error < 0.5 for layer in solved.layers)
    assert error(model, solved) < 0.75 * error(model, plain)
    assert [node.op_type for node in model.graph][1] == "BatchNormalization"  # the input is not changed


@pytest.mark.parametrize("saliency", SALIENCIES)
@pytest.mark.parametrize("compensate", [True, False])
def test_saliencies(saliency: Any, compensate: bool) -> None:
    model = network()
    result = onnxcompress.prune(
        model, pattern="unstructured", sparsity=0.4, saliency=saliency, data=feeds(), compensate=compensate
    )
    assert obeys(result, "unstructured")
    assert all(layer.sparsity == pytest.approx(0.4, abs=0.01) for layer in result.layers)
    assert (result.layers[0].error is not None) == compensate
    assert error(model, result) < (0.15 if compensate else 0.9)


@pytest.mark.parametrize("allocation", ["global", "sensitivity"])
@pytest.mark.parametrize("compensate", [True, False])
def test_allocations(allocation: Any, compensate: bool) -> None:
    model = network()
    kwargs: dict[str, Any] = {"pattern": "block1x4", "sparsity": 0.5, "data": feeds(), "compensate": compensate}
    result = onnxcompress.prune(model, allocation=allocation, **kwargs)
    shares = [layer.sparsity for layer in result.layers]
    assert max(shares) - min(shares) > 0.1
    weights = sum(layer.weights for layer in result.layers)
    assert sum(layer.weights * layer.sparsity for layer in result.layers) == pytest.approx(0.5 * weights, rel=0.01)
    assert obeys(result, "block1x4")
    assert error(model, result) < (0.3 if compensate else 0.8)


def test_the_quick_solver() -> None:
    model = network()
    quick = onnxcompress.prune(model, pattern="block4x4", sparsity=0.5, data=feeds(), solver="obs")
    slow = onnxcompress.prune(model, pattern="block4x4", sparsity=0.5, data=feeds())
    assert obeys(quick, "block4x4")
    assert (
        error(model, slow)
        < error(model, quick)
        < error(model, onnxcompress.prune(model, pattern="block4x4", sparsity=0.5))
    )


def test_excluded_layers_stay() -> None:
    result = onnxcompress.prune(network(), pattern="block4x4", sparsity=0.5, exclude=["conv*"])
    assert [layer.name for layer in result.layers] == ["i/Gemm"]
    assert {r.name: r.reason for r in result.refused}["conv1"] == "excluded"
    text = "\n".join(result.explain())
    assert "i/Gemm  Gemm  50.0% zero" in text and "conv2   Conv  stays       excluded" in text
    with pytest.raises(ModelError, match=r"exclude 'convv' matches no node.*close to it: conv"):
        onnxcompress.prune(network(), pattern="block4x4", sparsity=0.5, exclude=["convv"])


def test_a_model_with_nothing_to_prune() -> None:
    result = onnxcompress.prune(small_cnn(), pattern="block16x4", sparsity=0.5, exclude=["*"])
    assert not result.layers
    assert result.notes[0].startswith("nothing was pruned: ")


def test_quantized_models_are_refused() -> None:
    quantized = onnxcompress.quantize(network(), data=feeds()).model
    with pytest.raises(ModelError, match=r"is quantized .*: prune the float model"):
        onnxcompress.prune(quantized, pattern="2:4")


def test_the_same_seed_gives_the_same_model() -> None:
    big = [{"x": normal(4, 8, 40, 40, seed=i)} for i in range(3)]  # more positions than are sampled
    first, again, other = (
        onnxcompress.prune(build(TEXT.replace("8,8,8]", "8,40,40]"), weights()), pattern="2:4", data=big, seed=seed)
        for seed in (0, 0, 1)
    )
    arrays = [
        np.concatenate([weight_of(r.model, layer).ravel() for layer in find_layers(r.model)[0]])
        for r in (first, again, other)
    ]
    assert np.array_equal(arrays[0], arrays[1])
    assert not np.array_equal(arrays[0], arrays[2])


def weights() -> dict[str, Any]:
    return {
        name: value.const_value.numpy() for name, value in network().graph.initializers.items() if value.const_value
    }


@pytest.mark.parametrize("with_data", [True, False])
def test_channels(with_data: bool) -> None:
    model = network()
    result = onnxcompress.prune(model, pattern="channels", macs=0.5, data=feeds() if with_data else None)
    before, after = (inspect(m, shapes={"x": (4, 8, 8, 8)}).macs for m in (model, result.model))
    assert after <= 0.5 * before
    assert result.keep and result.groups
    assert any("[keeps" in line for line in result.explain())
    assert error(model, result) < (0.5 if with_data else 1)


def test_what_reads_cut_channels_is_refitted() -> None:
    model = network()
    plain, fitted = (
        onnxcompress.prune(model, pattern="channels", macs=0.6, data=feeds(), compensate=compensate)
        for compensate in (False, True)
    )
    assert plain.keep == fitted.keep
    assert error(model, fitted) < 0.7 * error(model, plain)


def test_channels_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else found(name))
    result = onnxcompress.prune(network(), pattern="channels", macs=0.6, data=feeds())
    assert result.keep and result.notes[0].endswith("choose better, but PyTorch is not installed")


def test_channels_of_a_model_that_torch_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ModelError("no torch form of Frobnicate")

    monkeypatch.setattr("onnxcompress.torch.saliency.gradient_saliency", refuse)
    result = onnxcompress.prune(network(), pattern="channels", macs=0.6, data=feeds())
    assert result.keep and result.notes[0].endswith("choose better, but no torch form of Frobnicate")
    with pytest.raises(ModelError, match="Frobnicate"):
        onnxcompress.prune(network(), pattern="channels", macs=0.6, data=feeds(), saliency="fisher")


def test_a_model_with_no_channels_to_cut() -> None:
    model = build("agraph (float[n,8] x) => (float[n,4] y) { y = MatMul (x, w) }", {"w": normal(8, 4)})
    with pytest.raises(ModelError, match=r"leaves 100\.0% of the multiply-accumulates"):
        onnxcompress.prune(model, pattern="channels", macs=0.7)
    empty = build("agraph (float[n,8] x) => (float[n,8] y) { y = Relu (x) }", {})
    result = onnxcompress.prune(empty, pattern="channels", macs=0.7)
    assert not result.keep and [note for note in result.notes if note.startswith("nothing was cut: ")]


def test_channels_between_transposed_convolutions() -> None:
    """These are no layers whose inputs are measured: what the outputs feel must do."""
    weights = {"w1": normal(8, 32, 2, 2, scale=0.2), "w2": normal(32, 4, 2, 2, seed=1, scale=0.2)}
    weights["w1"][:, 3] = 0  # a channel that no output feels
    text = """agraph (float[n,8,8,8] x) => (float[n,4,32,32] y) {
        [up] a = ConvTranspose <strides = [2,2]> (x, w1)
        [act] b = Relu (a)
        [head] y = ConvTranspose <strides = [2,2]> (b, w2)
    }"""
    result = onnxcompress.prune(build(text, weights), pattern="channels", macs=0.6, data=feeds())
    assert 3 not in result.keep["up"] and len(result.keep["up"]) < 32


def test_channels_are_chosen_by_outputs_and_readers_together() -> None:
    """A neuron that is large where no output hangs on it stays out of neither measure's sight."""
    weights = {"w1": normal(16, 32), "w2": normal(32, 16, seed=1), "w3": normal(16, 4, seed=2)}
    weights["w1"][:, 5] *= 50  # one neuron carries most of what the next layer reads
    text = """agraph (float[n,16] x) => (float[n,4] y) {
        [up] a = MatMul (x, w1)
        [act] b = Tanh (a)
        [down] c = MatMul (b, w2)
        [bend] d = Sigmoid (c)
        [head] y = MatMul (d, w3)
    }"""
    model, data = build(text, weights), [{"x": normal(64, 16, seed=i)} for i in range(4)]
    (up, down) = find_groups(optimize(model, portable=True))[0]
    layers, _ = find_layers(model)
    options, held = Options("channels", macs=0.5), DataSet(lambda: data)
    both, comparable = score_units(model, [up, down], layers, options, held, [], silent)
    alone = {
        kind: score_units(model, [up, down], layers, replace(options, saliency=kind), held, [], silent)
        for kind in ("fisher", "wanda")
    }
    assert comparable and alone["fisher"][1] and not alone["wanda"][1]
    for name, scores in both.items():
        fisher, wanda = (alone[kind][0][name] for kind in ("fisher", "wanda"))
        assert np.allclose(scores, np.sqrt(fisher * wanda * fisher.sum() / wanda.sum()))


def test_excluded_channels_stay() -> None:
    result = onnxcompress.prune(network(), pattern="channels", macs=0.8, exclude=["conv1"])
    assert all("conv1" not in [member.node for member in group.members] for group in result.groups)
    assert result.keep
    with pytest.raises(ModelError, match=r"macs 0.01: cutting all that can be cut leaves"):
        onnxcompress.prune(network(), pattern="channels", macs=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pattern": "diagonal"}, "pattern must be one of channels"),
        ({"pattern": "channels"}, "needs macs"),
        ({"pattern": "channels", "macs": 1.5}, "macs must lie between 0 and 1"),
        ({"pattern": "channels", "sparsity": 0.5}, "sparsity is for masks"),
        ({"pattern": "channels", "macs": 0.5, "allocation": "global"}, "take no allocation"),
        ({"pattern": "channels", "macs": 0.5, "solver": "obs"}, "no solver"),
        ({"pattern": "block4x4", "macs": 0.5}, "macs is for the pattern channels"),
        ({"pattern": "block4x4"}, "needs a sparsity"),
        ({"pattern": "block4x4", "sparsity": 80}, "sparsity must be at least 0 and below 1"),
        ({"pattern": "2:4", "sparsity": 0.6}, "has a sparsity of 0.5"),
        ({"pattern": "2:4", "allocation": "global"}, "takes no allocation"),
        ({"pattern": "block4x4", "sparsity": 0.98, "allocation": "global"}, "at most 0.97 can be removed"),
        ({"pattern": "2:4", "saliency": "love"}, "saliency must be one of magnitude"),
        ({"pattern": "2:4", "exclude": "conv"}, "exclude takes a list"),
        ({"pattern": "2:4", "samples": 0}, "samples must be at least 1"),
        ({"pattern": "2:4", "solver": "obs", "saliency": "wanda"}, "solver is for compensation"),
        ({"pattern": "2:4", "saliency": "wanda"}, "the saliency wanda needs data"),
        ({"pattern": "block4x4", "sparsity": 0.5, "allocation": "sensitivity"}, "sensitivity needs data"),
        ({"pattern": "2:4", "compensate": True}, "compensation needs data"),
    ],
)  # fmt: skip
def test_options_that_do_not_go_together(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        onnxcompress.prune(network(), **options)


@pytest.mark.parametrize("options", [{"pattern": "2:4"}, {"pattern": "channels", "macs": 0.6}])
def test_few_rows_are_told(options: dict[str, Any]) -> None:
    few = onnxcompress.prune(network(), data=[{"x": normal(4, 8, 8, 8)}], **options)
    assert any(re.search(r"fewer rows than they have inputs \(.*: 4 of \d+\): give more data", n) for n in few.notes)
    enough = [{"x": normal(32, 8, 8, 8, seed=i)} for i in range(4)]
    assert not onnxcompress.prune(network(), data=enough, **options).notes


def test_data_that_does_not_fit() -> None:
    with pytest.raises(DataError, match="input 'x' is missing"):
        onnxcompress.prune(network(), pattern="2:4", data=[{"z": normal(1)}])


def test_saliency_by_gradients_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "torch" or "onnxcompress.torch" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnxcompress.torch.saliency", None)

    class NoTorch:
        def find_spec(self, name: str, *_: object) -> None:
            if name.split(".")[0] == "torch":
                raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.delitem(sys.modules, "onnxcompress.torch.saliency")
    monkeypatch.setattr(sys, "meta_path", [NoTorch(), *sys.meta_path])
    with pytest.raises(CompressError, match=r"fisher needs PyTorch: pip install 'onnxcompress\[torch\]'"):
        onnxcompress.prune(network(), pattern="2:4", saliency="fisher", data=feeds(), compensate=False)


def test_from_file_to_file(tmp_path: Path) -> None:
    save_model(network(), tmp_path / "m.onnx")
    for index, feed in enumerate(feeds()):
        np.savez(tmp_path / f"{index}.npz", x=feed["x"])
    data = [tmp_path / f"{index}.npz" for index in range(3)]
    options = Options("block4x4", 0.5)
    summary = prune_file(tmp_path / "m.onnx", tmp_path / "p.onnx", options, data=data)
    assert summary.before.sparsity < 0.01 and 0.4 < summary.after.sparsity < 0.5
    assert summary.before.macs == summary.after.macs is not None
    assert summary.after.bytes == (tmp_path / "p.onnx").stat().st_size
    assert len(summary.layers) == 3 and summary.as_dict()["pattern"] == "block4x4"
    with pytest.raises(ModelError, match="no such folder"):
        prune_file(tmp_path / "m.onnx", tmp_path / "absent" / "p.onnx", options)
    with pytest.raises(ModelError, match="no such file"):
        prune_file(tmp_path / "absent.onnx", tmp_path / "p.onnx", options)


def test_a_result_that_does_not_open_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxcompress.runtime import session

    def refuse(path: Path, **_: object) -> None:
        raise ModelError(f"{path}: ONNX Runtime cannot open it: because")

    save_model(network(), tmp_path / "m.onnx")
    monkeypatch.setattr(session, "open_session", refuse)
    with pytest.raises(ModelError, match="the pruned model does not load and was not written: ONNX Runtime"):
        prune_file(tmp_path / "m.onnx", tmp_path / "p.onnx", Options("2:4"))
    assert not (tmp_path / "p.onnx").exists()


REAL: list[Any] = [
    ("ppocr-cls", {"pattern": "unstructured", "sparsity": 0.4, "allocation": "global"}, 97.0),
    ("ppocr-cls", {"pattern": "channels", "macs": 0.85}, 97.0),
    pytest.param("magika", {"pattern": "2:4"}, 92.0, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "options", "floor"), REAL)
def test_real_models_keep_their_metric(
    name: str, options: dict[str, Any], floor: float, zoo: Callable[[str], ZooModel]
) -> None:
    model = zoo(name)
    data = model.feeds(None if name == "magika" else 16)  # one row a feed, where others have hundreds
    result = onnxcompress.prune(model.path(), data=data, **options)
    session = open_session(result.model)
    assert model.measure(lambda feed: run(session, feed)) >= floor
    if options["pattern"] != "channels":
        assert obeys(result, options["pattern"])


def agreement(model: ZooModel, result: ir.Model, data: list[Feed]) -> float:
    """Mean cosine of the first output with the original's."""
    original, changed = open_session(model.path()), open_session(result)
    cosines = []
    for feed in data:
        a, b = (run(session, feed)[0].ravel() for session in (original, changed))
        cosines.append(float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))
    return float(np.mean(cosines))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "floor"),
    [
        ({"pattern": "2:4"}, 0.86),
        ({"pattern": "block4x4", "sparsity": 0.5}, 0.6),
        ({"pattern": "channels", "macs": 0.7}, 0.88),
    ],
)
def test_minilm_embeddings(options: dict[str, Any], floor: float, zoo: Callable[[str], ZooModel]) -> None:
    model = zoo("minilm")
    result = onnxcompress.prune(model.path(), data=model.feeds(64), **options)
    assert agreement(model, result.model, list(sentences500())[::10]) >= floor


@pytest.mark.slow
def test_minilm_by_gptq(zoo: Callable[[str], ZooModel]) -> None:
    model = zoo("minilm")
    result = onnxcompress.quantize(
        model.path(), mode="weight-only", weights="int4", gptq=True, data=model.data, portable=True
    )
    assert agreement(model, result.model, list(sentences500())[::5]) >= 0.98
