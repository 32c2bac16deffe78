"""Quantized models as modules: fake quantization, learned scales, integer weights and our own operators."""

from __future__ import annotations

import functools
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
import pytest
import torch

from onnxcompress.passes.quantize.weight_only import QuantizeWeights
from onnxcompress.quantizer import quantize
from onnxcompress.runtime.session import open_session, run
from onnxcompress.torch import OnnxModule
from onnxcompress.torch.quantization import Grid, fake_quantize
from tests.lowered import lowered_cnn, lowered_encoder
from tests.models import encoder, images, small_cnn, with_initializers
from tests.torch.comparison import Array, distance, in_runtime

HEADER = '<ir_version: 10, opset_import: ["" : 21]>'
STEP = 1e-3


def tokens(count: int) -> list[dict[str, Array]]:
    rng = np.random.default_rng(2)
    return [{"x": rng.normal(size=(1, 16, 64)).astype(np.float32)} for _ in range(count)]


@functools.cache
def static_cnn() -> ir.Model:
    return quantize(small_cnn(), data=images(8)).model


@functools.cache
def static_encoder() -> ir.Model:
    return quantize(encoder(), data=tokens(4)).model


LOWERED = {"cnn": functools.cache(lowered_cnn), "encoder": functools.cache(lowered_encoder)}


def trained(module: OnnxModule, feeds: list[dict[str, Array]], rate: float = STEP) -> list[float]:
    """A few steps toward outputs that all are alike: losses."""
    optimizer = torch.optim.Adam(module.parameters(), lr=rate)
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = sum((module(feed)[0].float() - 0.1).square().mean() for feed in feeds)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


MODELS: dict[str, Any] = {
    "static cnn": (static_cnn, images(2)),
    "static encoder": (static_encoder, tokens(2)),
    "dynamic encoder": (lambda: quantize(encoder(), mode="dynamic").model, tokens(2)),
    "int8 weights": (lambda: _weights(8), tokens(2)),
    "int4 weights": (lambda: _weights(4), tokens(2)),
    "int8 weights, block-wise": (lambda: _weights(8, block_size=16), tokens(2)),
    "int4 weights, MatMulNBits": (lambda: _weights(4, form="nbits", accuracy_level=1), tokens(2)),
}


def _weights(bits: Literal[4, 8], **options: Any) -> ir.Model:
    model = encoder()
    QuantizeWeights(bits=bits, **options)(model)
    return model


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("learn_scales", [False, True])
def test_quantized_models_equal_onnx_runtime(name: str, learn_scales: bool) -> None:
    make, feeds = MODELS[name]
    model = make()
    module = OnnxModule(model, learn_scales=learn_scales)
    for feed in feeds:
        assert distance(module(feed)[0], in_runtime(model, feed)[0]) < 1e-6
    back = module.write_back()
    assert distance(in_runtime(back, feeds[0])[0], in_runtime(model, feeds[0])[0]) == 0
    module(feeds[0])[0].square().sum().backward()
    for key in (*module.weight_names, *module.scale_names):
        gradient = module.parameter_of(key).grad
        assert gradient is not None and bool(gradient.isfinite().all()) and bool(gradient.any()), key


@pytest.mark.parametrize(
    "name", [name for name in MODELS if name not in ("int4 weights, MatMulNBits", "dynamic encoder")]
)
@pytest.mark.parametrize("learn_scales", [False, True])
def test_trained_quantized_models_are_the_same_in_onnx_runtime(name: str, learn_scales: bool) -> None:
    make, feeds = MODELS[name]
    model = make()
    module = OnnxModule(model, learn_scales=learn_scales)
    integers = [name for name in module.weight_names if model.graph.initializers[name].dtype != ir.DataType.FLOAT]
    assert len(integers) >= 2
    losses = trained(module, feeds, 1e-2)
    assert losses[-1] < losses[0]
    back = module.write_back()
    assert distance(module(feeds[0])[0], in_runtime(back, feeds[0])[0]) < 1e-5
    assert distance(in_runtime(back, feeds[0])[0], in_runtime(model, feeds[0])[0]) > 0.01
    for key in integers:
        before, after = (m.graph.initializers[key].const_value for m in (model, back))
        assert before is not None and after is not None and before.dtype == after.dtype
        assert bool((before.numpy() != after.numpy()).any()), key


@pytest.mark.parametrize("name", LOWERED)
def test_lowered_models_equal_the_kernels(name: str) -> None:
    """In our own operators. The kernels of attention are allowed a few steps of their own; the encoder's bodies run."""
    lowered = LOWERED[name]()
    module = OnnxModule(lowered.model)
    assert {node.domain for node in lowered.model.graph} >= {"onnxcompress"}
    session = open_session(lowered.model, native=name == "cnn")
    for feed in lowered.feeds[:3]:
        assert distance(module(feed)[0], run(session, feed)[0]) < 1e-5


@pytest.mark.parametrize("name", LOWERED)
def test_lowered_models_are_trained(name: str) -> None:
    lowered = LOWERED[name]()
    module = OnnxModule(lowered.model)
    kinds = {lowered.model.graph.initializers[key].dtype for key in module.weight_names}
    assert kinds == {ir.DataType.INT8, ir.DataType.FLOAT}
    feeds = list(lowered.feeds[:2])
    losses = trained(module, feeds, 1e-2)
    assert losses[-1] < losses[0]
    for key in module.weight_names:
        gradient = module.parameter_of(key).grad
        assert gradient is not None and bool(gradient.isfinite().all()), key
    back = module.write_back()
    session = open_session(back, native=name == "cnn")
    assert distance(module(feeds[0])[0], run(session, feeds[0])[0]) < 1e-4


def test_masked_integers_stay_zero() -> None:
    model = static_cnn()
    module = OnnxModule(model, learn_scales=True)
    name = next(n for n in module.weight_names if len(module.parameter_of(n).shape) == 4)
    mask = np.random.default_rng(0).random(module.parameter_of(name).shape) < 0.5
    module.set_mask(name, mask)
    trained(module, images(2), 1e-2)
    written = module.write_back().graph.initializers[name].const_value
    assert written is not None and written.dtype == ir.DataType.INT8
    assert (written.numpy()[~mask] == 0).all() and (written.numpy()[mask] != 0).mean() > 0.9
    assert bool((module.weight(name)[torch.from_numpy(~mask)] == 0).all())


def test_the_scale_of_a_bias_follows_its_factors() -> None:
    model = static_cnn()
    module = OnnxModule(model, learn_scales=True)
    trained(module, images(2), 3e-2)
    constants = module.write_back().graph.initializers
    checked = 0
    for node in model.graph:
        if node.op_type not in ("Conv", "Gemm") or len(node.inputs) < 3:
            continue
        scales = []
        for value in node.inputs:
            maker = value.producer() if value is not None else None
            assert maker is not None and maker.op_type == "DequantizeLinear" and maker.inputs[1] is not None
            tensor = constants[str(maker.inputs[1].name)].const_value
            assert tensor is not None
            scales.append(np.asarray(tensor.numpy(), np.float64))
        np.testing.assert_allclose(scales[2], scales[0] * scales[1], rtol=1e-6)
        checked += 1
    assert checked == 4
    before = model.graph.initializers[module.scale_names[0]].const_value
    after = constants[module.scale_names[0]].const_value
    assert before is not None and after is not None and bool((before.numpy() != after.numpy()).all())


def test_a_learned_scale_is_that_of_the_model_times_exp_of_its_step() -> None:
    module = OnnxModule(static_cnn(), learn_scales=True)
    name = module.scale_names[0]
    start = module.weight(name).detach().clone()
    assert not module.parameter_of(name).any()
    with torch.no_grad():
        module.parameter_of(name).fill_(0.5)
    torch.testing.assert_close(module.weight(name), start * np.exp(0.5))


def _lsq(x: float, scale: float, low: int, high: int) -> tuple[float, float, float]:
    """Value, and gradients to x and to the scale, of the paper (symmetric)."""
    v, q = x / scale, float(np.rint(x / scale))
    if q < low or q > high:
        q = float(np.clip(q, low, high))
        return q * scale, 0.0, q
    return q * scale, 1.0, q - v


def test_gradients_of_fake_quantization_are_those_of_the_paper() -> None:
    grid = Grid(-8, 7, 0)
    xs = [-3.0, -0.81, -0.05, 0.0, 0.13, 0.62, 5.0]
    for x in xs:
        value = torch.tensor([x], dtype=torch.float64, requires_grad=True)
        scale = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
        y = fake_quantize(value, scale, None, grid)
        y.sum().backward()
        expected, to_x, slope = _lsq(x, 0.1, -8, 7)
        assert y.item() == pytest.approx(expected)
        assert scale.grad is not None and scale.grad.item() == pytest.approx(slope / np.sqrt(7))
        assert value.grad is not None and value.grad.item() == to_x


PAIR = """
m (float[4, 6] x) => (float[4, 6] y) {
    q = QuantizeLinear <axis = 0> (x, s, z)
    y = DequantizeLinear <axis = 0> (q, t, z)
}
"""


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int16])
def test_a_pair_in_one_equals_the_two_in_turn(kind: Any) -> None:
    """With separate but equal scales; gradients to the input and to the scale, and what is written back."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Array] = {
        "s": rng.uniform(0.01, 0.03, 4).astype(np.float32),
        "z": np.array([3, 0, 9, 100]).astype(kind),
    }
    model = with_initializers(ir.from_onnx_text(HEADER + PAIR), {**arrays, "t": arrays["s"].copy()})
    module = OnnxModule(model, learn_scales=True)
    assert module.scale_names == ("s",)
    x = torch.from_numpy(rng.normal(size=(4, 6)).astype(np.float32)).requires_grad_()
    weight = torch.from_numpy(rng.normal(size=(4, 6)).astype(np.float32))
    gradients, outputs = [], []
    for names in (("y",), ("q", "y")):
        found = module.values({"x": x}, names)
        y = found["y"] if "q" not in found else (found["q"] - _column(arrays["z"])) * module.weight("s")[:, None]
        outputs.append(y)
        gradients.append(torch.autograd.grad((y * weight).sum(), [x, module.parameter_of("s")]))
    torch.testing.assert_close(outputs[0], outputs[1])
    torch.testing.assert_close(gradients[0][0], gradients[1][0])
    with torch.no_grad():
        module.parameter_of("s").fill_(0.1)
    constants = module.write_back().graph.initializers
    for name in ("s", "t"):
        tensor = constants[name].const_value
        assert tensor is not None
        np.testing.assert_allclose(tensor.numpy(), arrays["s"] * np.exp(np.float32(0.1)), rtol=1e-6)


def _column(array: Array) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.float32))[:, None]


def test_a_pair_with_other_parameters_is_not_one() -> None:
    text = PAIR.replace("t, z", "t, w")
    arrays: dict[str, Array] = {
        "s": np.full(4, 0.1, np.float32), "t": np.full(4, 0.2, np.float32),
        "z": np.zeros(4, np.uint8), "w": np.full(4, 5, np.uint8),
    }  # fmt: skip
    model = with_initializers(ir.from_onnx_text(HEADER + text), arrays)
    x = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    module = OnnxModule(model, learn_scales=True)
    assert module.scale_names == ("s", "t")
    assert distance(module({"x": x})[0], in_runtime(model, {"x": x})[0]) < 1e-7


def test_a_bias_scale_of_several_layers_stays() -> None:
    """Two layers with other input scales share the scale of their biases: nothing it depends on is learned."""
    text = """
    m (float[1, 2] x) => (float[1, 2] y) {
        q = QuantizeLinear (x, s, z)
        a = DequantizeLinear (q, s, z)
        w = DequantizeLinear (wq, ws)
        b = DequantizeLinear (bq, bs)
        h = Gemm (a, w, b)
        r = QuantizeLinear (h, t, z)
        c = DequantizeLinear (r, t, z)
        v = DequantizeLinear (vq, vs)
        d = DequantizeLinear (dq, bs)
        y = Gemm (c, v, d)
    }
    """
    arrays: dict[str, Array] = {
        "s": np.float32(0.1) * np.ones(()), "t": np.float32(0.2) * np.ones(()), "z": np.array(128, np.uint8),
        "ws": np.array(0.02), "vs": np.array(0.01), "bs": np.array(0.002),
        "wq": np.array([[50, -3], [7, 90]], np.int8), "vq": np.array([[5, 30], [-70, 9]], np.int8),
        "bq": np.array([100, -200], np.int32), "dq": np.array([10, 20], np.int32),
    }  # fmt: skip
    arrays = {name: a.astype(np.float32) if a.dtype == np.float64 else a for name, a in arrays.items()}
    model = with_initializers(ir.from_onnx_text(HEADER + text), arrays)
    module = OnnxModule(model, learn_scales=True)
    assert module.scale_names == ()
    assert module.weight_names == ("wq", "vq", "bq", "dq")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("y = DequantizeLinear (w, s) r = Cast <to = 1> (w) u = Add (y, r)", np.int8),  # read as it is, too
        ("y = DequantizeLinear (w, s) r = DequantizeLinear (w, t) u = Add (y, r)", np.int8),  # two scales
        ("y = DequantizeLinear (w, x)", np.int8),  # a scale that is computed
    ],
)
def test_integers_that_are_read_in_several_ways_stay(text: str, kind: Any) -> None:
    model = with_initializers(
        ir.from_onnx_text(f"{HEADER}\nm (float x) => (float[2, 3] y) {{ {text} }}"),
        {"w": np.ones((2, 3), kind), "s": np.array(0.5, np.float32), "t": np.array(0.25, np.float32)},
    )
    module = OnnxModule(model)
    assert module.weight_names == ()
    assert distance(module({"x": np.float32(0.5)})[0], np.full((2, 3), 0.5)) == 0


def test_bytes_that_come_from_outside_stay_integers() -> None:
    text = "m (uint8[2, 3] a) => (int32[2, 2] y) { y = MatMulInteger (a, b) }"
    model = with_initializers(ir.from_onnx_text(f"{HEADER}\n{text}"), {"b": np.arange(6, dtype=np.int8).reshape(3, 2)})
    (y,) = OnnxModule(model)({"a": np.full((2, 3), 200, np.uint8)})
    assert y.dtype == torch.int32
    assert y.tolist() == [[1200, 1800], [1200, 1800]]
