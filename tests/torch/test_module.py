"""`OnnxModule`: parameters, masks, transforms, taps, copies, conversions and the way back."""

from __future__ import annotations

import copy
import gc
import weakref

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from onnxcompress.errors import DataError, ModelError
from onnxcompress.torch import OnnxModule
from tests.models import encoder, images, small_cnn, with_initializers
from tests.torch.comparison import Array, distance, in_runtime

HEADER = '<ir_version: 10, opset_import: ["" : 21]>'


def graph(text: str, arrays: dict[str, Array]) -> ir.Model:
    return with_initializers(ir.from_onnx_text(f"{HEADER}\n{text}"), arrays)


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


TIED = """
tied (float[N, 4] x) => (float[N, 4] y) {
    h = MatMul (x, w)
    r = Relu (h)
    y = MatMul (r, w)
}
"""


def test_names_of_inputs_outputs_and_weights() -> None:
    module = OnnxModule(small_cnn())
    assert module.input_names == ("x",)
    assert module.output_names == ("y",)
    assert set(module.weight_names) == {f"{kind}{i}" for kind in "wb" for i in (1, 2, 3, 4)}
    assert module.scale_names == ()


def test_the_model_is_not_changed() -> None:
    model = small_cnn()
    before = ir.to_proto(model).SerializeToString()
    module = OnnxModule(model)
    with torch.no_grad():
        module.parameter_of("w1").zero_()
    module.write_back()
    assert ir.to_proto(model).SerializeToString() == before


def test_training_reaches_the_model_that_is_written_back() -> None:
    model, feeds = small_cnn(), images(4)
    module = OnnxModule(model)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    losses = []
    for _ in range(5):
        loss = sum(module(feed)[0].square().mean() for feed in feeds)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    back = module.write_back()
    assert distance(in_runtime(back, feeds[0])[0], module(feeds[0])[0]) < 1e-5
    assert distance(in_runtime(back, feeds[0])[0], in_runtime(model, feeds[0])[0]) > 0.1


def test_write_back_into_a_model_that_is_given() -> None:
    module = OnnxModule(small_cnn())
    with torch.no_grad():
        module.parameter_of("b4").fill_(2.0)
    other = small_cnn()
    assert module.write_back(other) is other
    array = other.graph.initializers["b4"].const_value
    assert array is not None and (array.numpy() == 2.0).all()
    with pytest.raises(ModelError, match="no initializer w4 of the same type and shape"):
        module.write_back(small_cnn(classes=7))


def test_write_back_of_weights_in_constant_nodes_and_subgraphs() -> None:
    model = ir.from_onnx_text(
        HEADER
        + """
        m (float[2] x, bool c) => (float[2] y) {
            w = Constant <value = float[2] {1.5, 2.5}> ()
            z = Mul (x, w)
            y = If (c) <
                then_branch = t () => (float[2] a) { k = Constant <value_floats = [0.5, 3.5]> () a = Mul (z, k) },
                else_branch = e () => (float[2] b) { k = Constant <value_floats = [0.25, 4.5]> () b = Mul (z, k) }
            >
        }
        """
    )
    module = OnnxModule(model)
    assert module.weight_names == ("w", "k", "k#2")
    with torch.no_grad():
        for name in module.weight_names:
            module.parameter_of(name).add_(1)
    feed: dict[str, Array] = {"x": np.array([1, 2], np.float32)}
    for condition, expected in ((True, (1 * 2.5 * 1.5, 2 * 3.5 * 4.5)), (False, (1 * 2.5 * 1.25, 2 * 3.5 * 5.5))):
        feed["c"] = np.array(condition)
        np.testing.assert_allclose(module(feed)[0].detach(), expected)
        np.testing.assert_allclose(in_runtime(module.write_back(), feed)[0], expected)


def test_a_shared_initializer_is_one_parameter() -> None:
    module = OnnxModule(graph(TIED, {"w": normal(4, 4)}))
    assert module.weight_names == ("w",)
    assert len(list(module.parameters())) == 1
    x = torch.from_numpy(normal(3, 4, seed=1))
    module({"x": x})[0].sum().backward()
    w = torch.from_numpy(normal(4, 4)).requires_grad_()
    (torch.relu(x @ w) @ w).sum().backward()
    torch.testing.assert_close(module.parameter_of("w").grad, w.grad)


def test_masks_stay_through_training() -> None:
    module = OnnxModule(small_cnn())
    mask = np.random.default_rng(0).random((32, 32, 1, 1)) < 0.3
    module.set_mask("w3", mask)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2, weight_decay=0.1)
    for feed in images(3):
        optimizer.zero_grad()
        module(feed)[0].square().sum().backward()
        optimizer.step()
    weight = module.weight("w3").detach().numpy()
    assert (weight[~mask] == 0).all() and (weight[mask] != 0).all()
    written = module.write_back().graph.initializers["w3"].const_value
    assert written is not None
    np.testing.assert_array_equal(written.numpy(), weight)


def test_a_later_mask_takes_the_place_of_the_earlier() -> None:
    module = OnnxModule(graph(TIED, {"w": normal(4, 4)}))
    module.set_mask("w", np.zeros((4, 4)))
    module.set_mask("w", np.eye(4))
    np.testing.assert_array_equal(module.weight("w").detach(), normal(4, 4) * np.eye(4, dtype=np.float32))
    assert module.parameter_of("w").shape == (4, 4)


class Double(nn.Module):  # type: ignore[misc]
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight * 2 + 1


class Cut(nn.Module):  # type: ignore[misc]
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight[:1]


def test_a_transform_comes_before_the_mask() -> None:
    w = normal(4, 4)
    module = OnnxModule(graph(TIED, {"w": w}))
    module.set_mask("w", np.eye(4))
    module.add_transform("w", Double())
    np.testing.assert_allclose(module.weight("w").detach(), (w * 2 + 1) * np.eye(4), rtol=1e-6)
    x = normal(2, 4, seed=2)
    (y,) = in_runtime(module.write_back(), {"x": x})
    assert distance(module({"x": x})[0], y) < 1e-6


def test_a_transform_keeps_the_shape() -> None:
    with pytest.raises(ModelError, match="the transform of w must keep its shape"):
        OnnxModule(graph(TIED, {"w": normal(4, 4)})).add_transform("w", Cut())


def test_values_are_those_of_onnx_runtime() -> None:
    model, feed = encoder(), {"x": normal(2, 16, 64)}
    module = OnnxModule(model)
    names = ["n", "u", "v", "a", "y", "x", "w1"]
    found = module.values(feed, names)
    assert list(found) == names
    tapped = model.clone()
    tapped.graph.outputs.extend(v for node in tapped.graph for v in node.outputs if v.name in ("n", "u", "v", "a"))
    expected = dict(zip(["y", "n", "u", "v", "a"], in_runtime(tapped, feed), strict=True))
    for name, array in expected.items():
        assert distance(found[name], array) < 1e-5
    np.testing.assert_array_equal(found["x"], feed["x"])
    assert found["w1"] is module.parameter_of("w1")
    found["u"].sum().backward()
    assert module.parameter_of("w2").grad is None


def test_values_compute_only_what_they_need() -> None:
    """`y` would fail with this feed, `h` does not."""
    module = OnnxModule(
        graph("m (float[N, K] x) => (float[N, 4] y) { h = Relu (x) y = MatMul (h, w) }", {"w": normal(4, 4)})
    )
    feed = {"x": normal(2, 3)}
    assert module.values(feed, ["h"])["h"].shape == (2, 3)
    with pytest.raises(ModelError, match=r"node y \(MatMul\): torch cannot compute it: mat1 and mat2"):
        module(feed)
    with pytest.raises(ModelError, match="the graph has no value 'absent'"):
        module.values(feed, ["absent"])


def test_intermediate_values_are_let_go_of() -> None:
    module = OnnxModule(graph("m (float[N] x) => (float[N] y) { a = Exp (x) b = Exp (a) y = Exp (b) }", {}))
    alive: list[int] = []
    made: list[weakref.ref[torch.Tensor]] = []

    def watched(x: torch.Tensor) -> torch.Tensor:
        gc.collect()
        alive.append(sum(ref() is not None for ref in made))
        y = torch.exp(x)
        made.append(weakref.ref(y))
        return y

    program = module._program(module.output_names)
    program.steps[:] = [step._replace(function=watched) for step in program.steps]
    with torch.no_grad():
        module({"x": normal(5) * 0.1})
    assert alive == [0, 1, 1]


def test_state_dict_round_trip() -> None:
    arrays = {"encoder.layer.0/weight": normal(4, 4)}
    model = graph(TIED, {"w": normal(4, 4)})
    model.graph.initializers["w"].name = "encoder.layer.0/weight"
    first, second = OnnxModule(model), OnnxModule(model)
    for module in (first, second):
        module.set_mask("encoder.layer.0/weight", np.ones((4, 4)))
    with torch.no_grad():
        first.parameter_of("encoder.layer.0/weight").mul_(3)
    first.set_mask("encoder.layer.0/weight", np.eye(4))
    state = first.state_dict()
    assert any("encoder%2Elayer%2E0/weight" in key for key in state)
    second.load_state_dict(state)
    np.testing.assert_allclose(
        second.weight("encoder.layer.0/weight").detach(), 3 * arrays["encoder.layer.0/weight"] * np.eye(4), rtol=1e-6
    )


@pytest.mark.parametrize(
    "name", ["training", "forward", "weight", "a.b", "%2E", "keys", "_parameters", "parametrizations"]
)
def test_any_name_of_an_initializer_will_do(name: str) -> None:
    model = graph(TIED, {"w": normal(4, 4)})
    model.graph.initializers["w"].name = name
    module = OnnxModule(model)
    module.set_mask(name, np.eye(4))
    assert module.weight_names == (name,)
    assert name in module.write_back().graph.initializers
    module({"x": normal(1, 4)})[0].sum().backward()
    assert module.parameter_of(name).grad is not None


def test_a_copy_is_trained_apart() -> None:
    module = OnnxModule(small_cnn())
    module.set_mask("w3", np.ones((32, 32, 1, 1)))
    feed = images(1)[0]
    before = module(feed)[0].detach()
    twin = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert not twin(feed)[0].any()
    torch.testing.assert_close(module(feed)[0], before)
    twin.double()
    assert module(feed)[0].dtype == torch.float32


def test_double_converts_the_whole_computation() -> None:
    """Casts to float inside the graph follow, shape arithmetic stays."""
    text = """
    m (float[N, 4] x, int64[N] i) => (float[N, 4] y) {
        s = Shape (x)
        f = Cast <to = 1> (s)
        t = ReduceSum <keepdims = 0> (f)
        c = Cast <to = 1> (i)
        u = Unsqueeze (c, one)
        a = Mul (x, u)
        b = Div (a, t)
        y = MatMul (b, w)
    }
    """
    model = graph(text, {"w": normal(4, 4), "one": np.array([1])})
    feed = {"x": normal(3, 4), "i": np.arange(3)}
    single = OnnxModule(model)(feed)[0]
    double = OnnxModule(model).double()(feed)[0]
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    assert 0 < distance(single, double) < 1e-6
    assert distance(single, in_runtime(model, feed)[0]) < 1e-6


def test_shape_arithmetic_stays_on_the_host() -> None:
    """The meta device has no values: whatever reads one there fails."""
    text = """
    m (float[N, 4, 6] x) => (float[N, 3, 8] y, float[N, 4, 6] z) {
        s = Shape (x)
        n = Gather (s, zero)
        u = Unsqueeze (n, zero_axis)
        t = Concat <axis = 0> (u, tail)
        r = Reshape (x, t)
        y = Mul (r, scale)
        shape = Shape (x)
        ones = ConstantOfShape <value = float[1] {2.0}> (shape)
        p = Range (begin, n, step)
        q = Cast <to = 1> (p)
        m1 = ReduceMax <keepdims = 0> (q)
        v = Mul (x, ones)
        z = Add (v, m1)
    }
    """
    arrays = {
        "zero": np.array(0), "zero_axis": np.array([0]), "tail": np.array([3, 8]), "scale": normal(8),
        "begin": np.array(0), "step": np.array(1),
    }  # fmt: skip
    model = graph(text, arrays)
    module = OnnxModule(model)
    feed = {"x": normal(2, 4, 6)}
    for result, expected in zip(module(feed), in_runtime(model, feed), strict=True):
        assert distance(result, expected) < 1e-6
    assert module.weight_names == ("scale",)
    results = module.to("meta")(feed)
    assert [result.device.type for result in results] == ["meta", "meta"]
    assert [tuple(result.shape) for result in results] == [(2, 3, 8), (2, 4, 6)]


WEIGHTS = {
    "w": normal(4, 4),
    "one": np.array([0.5], np.float32),
    "grid": np.array([[8, 16, 32, 8]], np.float32),
    "mask": np.array([[0, 0, -np.inf, 0]], np.float32),
    "low": np.array(-1.0, np.float32),
    "slope": np.array([0.25], np.float32),
    "factor": np.array([2.0], np.float32),
    "mean": np.zeros(4, np.float32),
    "variance": np.ones(4, np.float32),
    "gain": np.ones(4, np.float32),
    "shift": np.zeros(4, np.float32),
}


def test_what_is_trained_and_what_is_not() -> None:
    text = """
    m (float[N, 4] x) => (float[N, 4] y, float[K] z) {
        a = MatMul (x, w)
        b = Mul (a, one)
        c = Mul (b, grid)
        d = Add (c, mask)
        e = Clip (d, low)
        f = PRelu (e, slope)
        y = BatchNormalization (f, gain, shift, mean, variance)
        s = Shape (x)
        t = Cast <to = 1> (s)
        z = Mul (t, factor)
    }
    """
    assert set(OnnxModule(graph(text, WEIGHTS)).weight_names) == {"w", "slope", "gain", "shift"}
    frozen = OnnxModule(graph(text, WEIGHTS), freeze=["gain", "w"])
    assert set(frozen.weight_names) == {"slope", "shift"}
    frozen({"x": normal(2, 4)})
    with pytest.raises(ModelError, match="freeze names absent"):
        OnnxModule(graph(text, WEIGHTS), freeze=["absent"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("y = Loop (n, f, x) <body = b (int64 i, bool k, float[2] v) => (bool k, float[2] v) { }>", "ai.onnx::Loop, v"),
        ("[odd] y = my.domain.Strange (x)", r"node odd \(my.domain::Strange, version 3\): there is no torch form"),
        ("y = BatchNormalization <training_mode = 1> (x, x, x, x, x)", "training mode is not supported"),
        ("y = Cast <to = 8> (x)", "torch has no tensors of element type 8"),
        ('y = Pad <mode = "mirror"> (x, p)', "mode 'mirror' is not known"),
        ('y, h = RNN <hidden_size = 2, activations = ["Affine"]> (x, x, x)', "activations Affine are not supported"),
        ("y = QuantizeLinear <output_dtype = 17> (x, s)", "quantization to FLOAT8E4M3FN is not supported"),
        ("y = MaxPool <kernel_shape = [2, 2], storage_order = 1> (x)", "column-major"),
        ("y = MaxPool <kernel_shape = [2, 2, 2, 2]> (x)", "pools over 4 axes"),
        ('y = Resize <mode = "linear", coordinate_transformation_mode = "odd"> (x, , s)', "with coordinates 'odd'"),
        ("y = Attention (x, x, x, , x, x)", "past keys"),
        ("y = com.microsoft.MatMulNBits <K = 2, N = 2, bits = 2, block_size = 16> (x, x, x)", "only weights of 4"),
        ("y, h, c = com.microsoft.DynamicQuantizeLSTM <hidden_size = 2> (x, x, x, , x)", "sequence lengths"),
        ("y = com.microsoft.FusedMatMul <transBatchA = 1> (x, x)", "transposed batches"),
    ],
)  # fmt: skip
def test_what_has_no_torch_form_is_refused_when_the_module_is_made(text: str, message: str) -> None:
    header = '<ir_version: 10, opset_import: ["" : 21, "my.domain" : 3, "com.microsoft" : 1]>'
    if "Attention" in text:
        header = header.replace("21", "23")
    inputs = "float[2] x, float s, int64[2] p, int64 n, bool f"
    model = ir.from_onnx_text(f"{header}\nm ({inputs}) => (float[2] y) {{ {text} }}")
    with pytest.raises(ModelError, match=message):
        OnnxModule(model)


def test_an_old_opset_is_refused() -> None:
    model = ir.from_onnx_text('<ir_version: 3, opset_import: ["" : 6]> m (float[2] x) => (float[2] y) { y = Relu (x) }')
    with pytest.raises(ModelError, match="opset 6 is too old"):
        OnnxModule(model)


def test_dropout_in_training_mode_is_refused_when_it_runs() -> None:
    model = graph(
        "m (float[2] x) => (float[2] y) { y = Dropout (x, r, t) }",
        {"r": np.array(0.5, np.float32), "t": np.array(True)},
    )
    with pytest.raises(ModelError, match="training mode is not supported"):
        OnnxModule(model)({"x": normal(2)})


def test_what_does_not_fit_is_said() -> None:
    module = OnnxModule(small_cnn())
    with pytest.raises(DataError, match="the feed lacks the input 'x'; it has z"):
        module({"z": normal(1)})
    with pytest.raises(ModelError, match="absent is no initializer"):
        module.weight("absent")
    with pytest.raises(ModelError, match="the mask of w3 has shape"):
        module.set_mask("w3", np.ones(3))
    with pytest.raises(ModelError, match="low is not trained"):
        OnnxModule(graph("m (float[2] x) => (float[2] y) { y = Clip (x, low) }", {"low": WEIGHTS["low"]})).parameter_of(
            "low"
        )


def test_functions_are_inlined() -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 21, "local" : 1]>
    m (float[N, 4] x) => (float[N, 4] y) { h = local.Twice (x) y = MatMul (h, w) }
    <domain: "local", opset_import: ["" : 21]>
    Twice (a) => (b) { b = Add (a, a) }
    """
    model = with_initializers(ir.from_onnx_text(text), {"w": normal(4, 4)})
    module, x = OnnxModule(model), normal(2, 4, seed=3)
    assert distance(module({"x": x})[0], 2 * x @ normal(4, 4)) < 1e-6
    assert distance(in_runtime(module.write_back(), {"x": x})[0], 2 * x @ normal(4, 4)) < 1e-6


def test_an_initializer_that_is_an_input_too_is_a_weight() -> None:
    model = graph(TIED, {"w": normal(4, 4)})
    model.graph.inputs.append(model.graph.initializers["w"])
    module = OnnxModule(model)
    assert (module.input_names, module.weight_names) == (("x",), ("w",))


def test_feeds_take_the_types_of_the_inputs() -> None:
    model = ir.from_onnx_text(f"{HEADER}\nm (float[2] x, int64[1] i) => (float[1] y) {{ y = Gather (x, i) }}")
    module = OnnxModule(model)
    feed = {"x": np.array([1.0, 2.0]), "i": np.array([1], np.int32), "unused": np.zeros(1)}
    (y,) = module(feed)
    assert y.dtype == torch.float32 and y.item() == 2.0
    x = torch.tensor([3.0, 4.0], requires_grad=True)
    module({"x": x, "i": torch.tensor([0])})[0].sum().backward()
    assert x.grad is not None and x.grad.tolist() == [1.0, 0.0]
