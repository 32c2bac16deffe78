"""Models for CUDA devices: compiled for one that is not here, and quantized as told; what they compute is the same."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxcompress import load, quantize
from onnxcompress.errors import CompressError
from onnxcompress.lineage import recipe_of, target_of
from onnxcompress.model_io import load_model
from onnxcompress.passes.lower import native_nodes
from onnxcompress.pipeline import compress
from onnxcompress.runtime import devices, library, session
from onnxcompress.runtime.devices import CPU, CUDA, Device, find_device
from tests.models import encoder, images, wide_cnn
from tests.passes.lower_transformer.encoders import sentence_encoder, sentences
from tests.zoo import ZooModel

Array = np.ndarray[Any, Any]


@pytest.fixture(autouse=True)
def _no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cuda_devices", lambda: 0)


def tokens(count: int) -> list[dict[str, Array]]:
    rng = np.random.default_rng(0)
    return [{"x": rng.normal(size=(1, 16, 64)).astype(np.float32)} for _ in range(count)]


def test_compiling_for_an_absent_device_times_nothing_and_says_so(tmp_path: Path) -> None:
    ir.save(wide_cnn(), tmp_path / "m.onnx")
    result = compress(
        tmp_path / "m.onnx", tmp_path / "o.onnx", data=images(20, 32), target="cuda", report=tmp_path / "r.json"
    )
    assert result.within_bound and result.speedup is None
    assert result.original.latency is None and result.result.latency is None
    assert result.result.metric is not None and result.result.bytes < 0.5 * result.original.bytes
    assert any("made for cuda without timing anything (no CUDA device" in note for note in result.notes)
    assert all(node.decision == "int8" and node.native for node in result.nodes if node.op == "Conv")
    assert json.loads((tmp_path / "r.json").read_text())["speedup"] is None
    made = load_model(tmp_path / "o.onnx")
    recipe = recipe_of(made)
    assert recipe is not None and recipe.target == "cuda" and recipe.native and target_of(tmp_path / "o.onnx") == "cuda"
    feed = images(1, 32, seed=3)[0]
    (expected,) = load(tmp_path / "m.onnx").run(None, feed)
    (actual,) = load(tmp_path / "o.onnx").run(None, feed)
    assert np.argmax(actual) == np.argmax(expected)


def test_a_replayed_recipe_gives_the_same_bytes(tmp_path: Path) -> None:
    ir.save(wide_cnn(), tmp_path / "m.onnx")
    feeds = images(12, 32)
    compress(tmp_path / "m.onnx", tmp_path / "a.onnx", data=feeds, target="cuda")
    compress(tmp_path / "m.onnx", tmp_path / "b.onnx", data=feeds, target="cuda", recipe=tmp_path / "a.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_a_recipe_brings_its_target(tmp_path: Path) -> None:
    ir.save(wide_cnn(), tmp_path / "m.onnx")
    feeds = images(12, 32)
    compress(tmp_path / "m.onnx", tmp_path / "a.onnx", data=feeds, target="cuda")
    result = compress(tmp_path / "m.onnx", tmp_path / "b.onnx", data=feeds, recipe=tmp_path / "a.onnx")
    assert result.speedup is None and result.recipe["target"] == "cuda"


def test_standard_operators_only_are_not_for_cuda(tmp_path: Path) -> None:
    ir.save(wide_cnn(), tmp_path / "m.onnx")
    with pytest.raises(CompressError, match="operators of our own only, which --portable leaves out"):
        compress(tmp_path / "m.onnx", tmp_path / "o.onnx", data=images(4, 32), target="cuda", portable=True)


def test_the_bound_holds_without_a_device_too(tmp_path: Path) -> None:
    """What is too coarse goes back to float, and nothing within a bound of nothing is the original."""
    ir.save(wide_cnn(), tmp_path / "m.onnx")
    scores = iter([1.0])  # of the original; every other model scores less
    result = compress(
        tmp_path / "m.onnx", tmp_path / "o.onnx", data=images(8, 32), target="cuda", max_drop=0.0,
        evaluate=lambda run: next(scores, 0.5),
    )  # fmt: skip
    assert result.recipe["mode"] == "original" and result.speedup is None
    assert (tmp_path / "o.onnx").read_bytes() == (tmp_path / "m.onnx").read_bytes()


def test_pruning_is_refused_where_nothing_can_be_timed(tmp_path: Path) -> None:
    ir.save(wide_cnn(), tmp_path / "m.onnx")
    with pytest.raises(CompressError, match=r"no CUDA device of .* was found: prune and distil the model first"):
        compress(tmp_path / "m.onnx", tmp_path / "o.onnx", data=images(4, 32), target="cuda", pattern="channels")
    assert not (tmp_path / "o.onnx").exists()


@pytest.mark.parametrize(
    ("count", "providers", "works", "reason"),
    [
        (None, CUDA, True, "the native library was built without CUDA kernels"),
        (0, CUDA, True, "no CUDA device of compute capability 8.0 or later was found"),
        (1, CPU, True, "this ONNX Runtime has no CUDA provider"),
        (1, CUDA, False, "ONNX Runtime's CUDA provider does not work here"),
        (1, CUDA, True, ""),
    ],
)
def test_a_device_says_why_it_is_absent(
    count: int | None, providers: tuple[str, ...], works: bool, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "cuda_devices", lambda: count)
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: list(providers))
    monkeypatch.setattr(devices, "provider_works", lambda name: works)
    assert find_device("cuda") == Device("cuda", CPU if reason else CUDA, reason)
    assert find_device("cpu") == Device("cpu", CPU, "")


def test_load_takes_a_model_for_cuda_there_where_it_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for target in ("cpu", "cuda"):
        model = wide_cnn()
        model.metadata_props["onnxcompress.target"] = target
        ir.save(model, tmp_path / f"{target}.onnx")
    defaults = session._default_providers
    assert defaults(tmp_path / "cuda.onnx") == CPU
    monkeypatch.setattr(session, "cuda_devices", lambda: 1)
    assert defaults(tmp_path / "cuda.onnx") == CPU  # there is a device, and ONNX Runtime cannot use it
    monkeypatch.setattr(devices, "why_no_cuda", lambda: "")
    assert (defaults(tmp_path / "cuda.onnx"), defaults(tmp_path / "cpu.onnx")) == (CUDA, CPU)


# -- quantize -------------------------------------------------------------------------------------------------


def test_static_quantization_for_cuda_is_in_operators_of_ours() -> None:
    model, feeds = wide_cnn(), images(8, 32)
    result = quantize(model, data=feeds, target="cuda")
    assert {"QConv"} <= {node.op_type for node in native_nodes(result.model)}
    assert all(decision.quantized for decision in result.decisions if decision.op == "Conv")
    check(model, result.model, feeds[0], 0.99)


def test_a_transformer_for_cuda_has_its_attention_in_int8() -> None:
    model, feeds = sentence_encoder(), sentences()
    result = quantize(model, data=feeds, target="cuda")
    assert {"QAttention", "QLinear"} <= {node.op_type for node in native_nodes(result.model)}
    check(model, result.model, feeds[0], 0.98)


@pytest.mark.parametrize(("weights", "least"), [("int8", 0.999), ("int4", 0.98)])
def test_weights_alone_for_cuda(weights: Any, least: float) -> None:
    model, feed = encoder(), tokens(1)[0]
    result = quantize(model, mode="weight-only", weights=weights, target="cuda")
    assert {node.op_type for node in native_nodes(result.model)} == {"WeightOnlyLinear"}
    check(model, result.model, feed, least)


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_weights_of_a_real_transformer_for_cuda(weights: Any, zoo: Callable[[str], ZooModel]) -> None:
    minilm = zoo("minilm")
    result = quantize(minilm.path(), mode="weight-only", weights=weights, target="cuda")
    assert sum(node.op_type == "WeightOnlyLinear" for node in native_nodes(result.model)) == 36
    check(load_model(minilm.path()), result.model, minilm.feeds(1)[0], 0.99 if weights == "int8" else 0.9)


def test_ranges_alone_leave_attention_in_float(tmp_path: Path) -> None:
    from onnxcompress import calibrate, optimize

    model, feeds = optimize(sentence_encoder()), sentences()
    ranges = calibrate(model, data=feeds)
    result = quantize(model, ranges=ranges, target="cuda")
    assert any("attention stays in float" in note for note in result.notes)
    assert not any(node.op_type == "QAttention" for node in native_nodes(result.model))
    check(model, result.model, feeds[0], 0.98)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--mode", "dynamic"], "there is static and weight-only quantization, no dynamic one"),
        (["--mode", "weight-only", "--portable"], "which portable leaves out"),
        (["--activations", "s8", "--data", "x.npz"], "take u8 activations"),
        (["--target", "tpu"], "'tpu' is not one of 'cpu', 'cuda'"),
    ],
)
def test_options_that_do_not_go_with_cuda_are_refused(more: list[str], message: str, tmp_path: Path) -> None:
    ir.save(encoder(), tmp_path / "m.onnx")
    command = [sys.executable, "-m", "onnxcompress", "quantize", "m.onnx", "-o", "o.onnx", "--target", "cuda", *more]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 2 and message in " ".join(done.stderr.replace("│", " ").split())
    assert not (tmp_path / "o.onnx").exists()


def test_the_library_tells_of_its_devices() -> None:
    """The one that is installed here: with CUDA kernels where nvcc was, and no crash without a driver."""
    count = library.cuda_devices()
    assert count is None or count >= 0


def check(original: ir.Model, result: ir.Model, feed: dict[str, Array], least: float) -> None:
    """The results' cosine, by the kernels of the CPU and by the function bodies."""
    from onnxcompress.runtime.session import open_session

    (expected,) = open_session(original).run(None, feed)[:1]
    for native in (True, False):
        (actual,) = open_session(result, native=native).run(None, feed)[:1]
        one, other = np.asarray(expected, np.float64).ravel(), np.asarray(actual, np.float64).ravel()
        assert one @ other > least * np.linalg.norm(one) * np.linalg.norm(other)
