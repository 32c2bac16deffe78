"""`quantize`: its modes and options on small graphs, against the float model in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

import onnxcompress
from onnxcompress.calibration import calibrate
from onnxcompress.data import open_data
from onnxcompress.errors import CalibrationError, ModelError
from onnxcompress.model_io import save_model
from onnxcompress.optimizer import optimize
from onnxcompress.passes.lower import KeepBiasSum
from onnxcompress.passes.quantize import Decision
from onnxcompress.quantization_channels import mean_errors
from onnxcompress.quantization_options import Options
from onnxcompress.quantizer import Quantized, quantize_file
from onnxcompress.recipe import Recipe, insert, prepare
from tests.models import small_cnn
from tests.passes.quantize.models import Feed, build, decision, execute, normal, observe, ops, relative

CONVS = """agraph (float[n,3,8,8] x) => (float[n,4] y) {
    [conv1] a = Conv <pads = [1,1,1,1]> (x, w1, b1)
    [norm] b = BatchNormalization (a, gamma, beta, mean, var)
    [relu] c = Relu (b)
    [conv2] d = Conv <pads = [1,1,1,1]> (c, w2)
    [pool] e = GlobalAveragePool (d)
    [flat] f = Flatten (e)
    [head] y = Gemm (f, w3, b3)
}"""
TRANSFORMER = """agraph (float[1,6,32] x) => (float[1,6,32] y) {
    [norm] a = LayerNormalization (x, gamma, beta)
    [up] b = MatMul (a, w1)
    [up_bias] c = Add (b, b1)
    [relu] d = Relu (c)
    [down] e = MatMul (d, w2)
    [down_bias] y = Add (e, b2)
}"""


def convs() -> ir.Model:
    gamma = 1 + normal(8, seed=3, scale=0.1)
    weights = {
        "w1": normal(8, 3, 3, 3, scale=0.3), "b1": normal(8), "gamma": gamma, "beta": normal(8, seed=4, scale=0.1),
        "mean": normal(8, seed=5, scale=0.1), "var": np.abs(normal(8, seed=6)) + 0.5,
        "w2": normal(16, 8, 3, 3, seed=1, scale=0.2), "w3": normal(16, 4, seed=2), "b3": normal(4, seed=7),
    }  # fmt: skip
    return build(CONVS, weights)


def transformer() -> ir.Model:
    """Two channels of the normalization are far larger than the others."""
    gamma = np.ones(32, np.float32)
    gamma[[3, 17]] = 30
    weights = {
        "gamma": gamma, "beta": normal(32, seed=1, scale=0.1), "w1": normal(32, 64, seed=2, scale=0.2),
        "b1": normal(64, seed=3), "w2": normal(64, 32, seed=4, scale=0.1), "b2": normal(32, seed=5),
    }  # fmt: skip
    return build(TRANSFORMER, weights)


def feeds(*shape: int, count: int = 8, start: int = 0) -> list[Feed]:
    return [{"x": normal(*shape, seed=start + i)} for i in range(count)]


IMAGES = feeds(2, 3, 8, 8)
ROWS = feeds(1, 6, 32)


def error(model: ir.Model, result: Quantized, held_out: list[Feed]) -> float:
    """Relative error over all held-out feeds together, in ONNX Runtime as users run it."""
    wanted, got = (np.stack([execute(m, feed, optimize=True)[0] for feed in held_out]) for m in (model, result.model))
    return relative(got, wanted)


@pytest.mark.parametrize("activations", ["u8", "s8", "u16"])
@pytest.mark.parametrize("portable", [True, False])
def test_static_convolutions(activations: Any, portable: bool) -> None:
    model = convs()
    result = onnxcompress.quantize(model, data=IMAGES, activations=activations, portable=portable)
    assert [(d.name, d.quantized) for d in result.decisions] == [("conv1", True), ("conv2", True), ("head", True)]
    assert error(model, result, feeds(2, 3, 8, 8, start=100)) < (0.05 if activations != "s8" else 0.1)
    assert "BatchNormalization" not in ops(result.model)  # optimized first
    assert ops(model).count("BatchNormalization") == 1  # the input is never changed
    assert not portable or set(result.model.graph.opset_imports) <= {"", "com.microsoft"}
    assert not portable or all(node.domain == "" for node in result.model.graph)
    assert any("16-bit" in note for note in result.notes) == (activations == "u16")


def test_static_transformer_matmuls_run_in_int8() -> None:
    model = transformer()
    result = onnxcompress.quantize(model, data=ROWS)
    assert ops(result.model).count("MatMulIntegerToFloat") == 2
    assert error(model, result, feeds(1, 6, 32, start=100)) < 0.1


def executed_ops(model: ir.Model, path: Path) -> list[str]:
    """Operators after ONNX Runtime has optimized the graph."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(path)
    save_model(model, path.with_suffix(".in.onnx"))
    ort.InferenceSession(path.with_suffix(".in.onnx"), options, providers=["CPUExecutionProvider"])
    return ops(ir.load(path))


def test_portable_products_with_fixed_shapes_are_not_dequantized_on_every_run(tmp_path: Path) -> None:
    recipe = Recipe(mode="static", portable=True)
    prepared = prepare(transformer(), recipe)
    result = onnxcompress.quantize(transformer(), data=ROWS, portable=True)
    executed = executed_ops(result.model, tmp_path / "sum.onnx")
    assert executed.count("MatMulIntegerToFloat") == 2 and "Gemm" not in executed
    # Without the pass ONNX Runtime does make float Gemms of them: the day it stops, the pass can go.
    for node in prepared.graph:
        assert node.op_type != "Sum"
    for node in result.model.graph:
        if node.op_type == "Sum":
            node.op_type = "Add"
    assert executed_ops(result.model, tmp_path / "add.onnx").count("Gemm") == 2
    assert KeepBiasSum()(result.model).modified
    assert not KeepBiasSum()(result.model).modified
    assert not KeepBiasSum()(transformer()).modified


def test_dynamic() -> None:
    model = transformer()
    result = onnxcompress.quantize(model, mode="dynamic")
    assert [d.quantized for d in result.decisions] == [True, True]
    assert onnxcompress.quantize(model, mode="dynamic", exclude=[], wide=[]).decisions == result.decisions
    assert error(model, result, ROWS) < 0.1
    smoothed = onnxcompress.quantize(model, mode="dynamic", smooth=0.5, data=ROWS)
    assert error(model, smoothed, ROWS) < 0.7 * error(model, result, ROWS)
    conv = onnxcompress.quantize(convs(), mode="dynamic")
    assert decision(conv.decisions, "conv1")[1].startswith("dynamic int8 convolution is slower")
    assert "ConvInteger" not in ops(conv.model)


@pytest.mark.parametrize("portable", [True, False])
@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_weight_only(weights: Any, portable: bool) -> None:
    model = transformer()
    result = onnxcompress.quantize(model, mode="weight-only", weights=weights, portable=portable)
    assert [(d.name, d.quantized) for d in result.decisions] == [("up", True), ("down", True)]
    assert error(model, result, ROWS) < (0.02 if weights == "int8" else 0.2)
    assert ("MatMulNBits" in ops(result.model)) == (weights == "int4" and not portable)
    assert not result.notes


@pytest.mark.parametrize("portable", [True, False])
@pytest.mark.parametrize(("weights", "block_size"), [("int4", None), ("int8", 32)])
def test_weight_only_by_gptq(weights: Any, block_size: int | None, portable: bool) -> None:
    model = transformer()
    options: dict[str, Any] = {"mode": "weight-only", "weights": weights, "block_size": block_size}
    mixed = [{"x": feed["x"] @ normal(32, 32, seed=8)} for feed in ROWS]
    solved = onnxcompress.quantize(model, data=mixed, gptq=True, portable=portable, **options)
    rounded = onnxcompress.quantize(model, portable=portable, **options)
    assert ops(solved.model) == ops(rounded.model)
    assert solved.decisions == rounded.decisions
    assert solved.notes[0] == "rounded 2 weights by GPTQ"

    # As the graph is written: ONNX Runtime quantizes the activations of what it optimizes, which hides the gain.
    def total(result: Quantized) -> float:
        return sum(relative(execute(result.model, feed)[0], execute(model, feed)[0]) for feed in mixed)

    assert total(solved) < 0.95 * total(rounded) or (not portable and weights == "int4")


def test_weight_only_says_what_will_not_be_faster() -> None:
    model = build(CONVS.replace("float[n,4]", "float[n,64]"), {
        "w1": normal(64, 3, 3, 3), "b1": normal(64), "gamma": normal(64), "beta": normal(64), "mean": normal(64),
        "var": np.ones(64, np.float32), "w2": normal(16, 64, 3, 3), "w3": normal(16, 64), "b3": normal(64),
    })  # fmt: skip
    result = onnxcompress.quantize(model, mode="weight-only")
    assert "BatchNormalization" in ops(result.model)  # only weights change
    assert "3 Conv and Gemm nodes on every run" in result.notes[0]
    assert relative(execute(result.model, IMAGES[0])[0], execute(model, IMAGES[0])[0]) < 0.02


def test_block_size() -> None:
    result = onnxcompress.quantize(transformer(), mode="weight-only", weights="int4", block_size=16)
    (node,) = [n for n in result.model.graph if n.name == "up"]
    assert node.attributes.get_int("block_size") == 16


def test_ranges_of_the_model_quantize_it_as_it_stands(tmp_path: Path) -> None:
    model = convs()
    ranges = calibrate(model, IMAGES, method="mse")
    ranges.save(tmp_path / "r.json")
    result = onnxcompress.quantize(model, ranges=tmp_path / "r.json")
    assert "BatchNormalization" in ops(result.model)
    assert error(model, result, IMAGES) < 0.05
    assert "optimizing would make" in result.notes[0]
    assert ir.to_proto(onnxcompress.quantize(model, ranges=ranges).model) == ir.to_proto(result.model)


def test_ranges_of_the_optimized_model_give_what_data_gives() -> None:
    optimized = optimize(convs())
    ranges = calibrate(optimized, IMAGES, method="mse")
    result = onnxcompress.quantize(optimized, ranges=ranges)
    assert not result.notes
    assert ir.to_proto(result.model) == ir.to_proto(onnxcompress.quantize(optimized, data=IMAGES).model)
    by_minmax = onnxcompress.quantize(optimized, ranges=ranges, method="minmax")
    assert ir.to_proto(by_minmax.model) == ir.to_proto(
        onnxcompress.quantize(optimized, data=IMAGES, method="minmax").model
    )


def test_ranges_that_do_not_fit() -> None:
    model = convs()
    ranges = calibrate(optimize(model), IMAGES)
    with pytest.raises(CalibrationError, match="taken from another model: quantize the very model"):
        onnxcompress.quantize(model, ranges=ranges)
    part = calibrate(model, IMAGES, tensors=["x", "a"])
    with pytest.raises(CalibrationError, match=r"lack 4 tensors that are needed: .*; calibrate all tensors"):
        onnxcompress.quantize(model, ranges=part)


def test_a_tensor_that_is_always_empty_leaves_its_node_float() -> None:
    text = """agraph (float[1,4,32] x, int64[1] stop) => (float[1,4,32] y, float[1,n,32] z) {
        [live] y = MatMul (x, w)
        part = Slice (x, zero, stop, one)
        [dead] z = MatMul (part, w)
    }"""
    constants = {"w": normal(32, 32), "zero": np.array([0]), "one": np.array([1])}
    model = build(text, constants)
    data = [{"x": normal(1, 4, 32, seed=i), "stop": np.array([0])} for i in range(3)]
    result = onnxcompress.quantize(model, data=data)
    assert decision(result.decisions, "live") == (True, "int8")
    assert decision(result.decisions, "dead") == (False, "tensor 'part' has no range: it was empty in every sample")
    assert execute(result.model, {**data[0], "stop": np.array([3])}, optimize=True)[1].shape == (1, 3, 32)


def test_minus_infinity_in_a_mask_leaves_its_node_float() -> None:
    text = """agraph (float[1,2,4,4] x, float[1,2,4,4] mask) => (float[1,2,4,4] y) {
        [scores] s = Conv (x, w)
        [masking] m = Add (s, mask)
        [shares] y = Softmax (m)
    }"""
    model = build(text, {"w": normal(2, 2, 1, 1)})
    mask = np.where(np.tril(np.ones((4, 4))) > 0, 0, -np.inf).astype(np.float32)[None, None].repeat(2, 1)
    data = [{"x": normal(1, 2, 4, 4, seed=i), "mask": mask} for i in range(3)]
    result = onnxcompress.quantize(model, data=data)
    assert decision(result.decisions, "scores") == (True, "int8")
    assert relative(execute(result.model, data[0])[0], execute(model, data[0])[0]) < 0.05
    with pytest.raises(CalibrationError, match=r"tensor 'x' holds \+inf"):
        onnxcompress.quantize(model, data=[{**data[0], "x": data[0]["x"] * np.inf}])


def test_exclude_takes_names_and_patterns() -> None:
    result = onnxcompress.quantize(convs(), data=IMAGES, exclude=["conv?", "head"])
    assert {d.reason for d in result.decisions} == {"excluded by the user"}
    assert result.notes == ["nothing was quantized: 3 of 3 nodes stay float because: excluded by the user"]
    assert "QuantizeLinear" not in ops(result.model)
    for mode, options in (("dynamic", {}), ("weight-only", {"weights": "int4"})):
        other = onnxcompress.quantize(transformer(), mode=mode, exclude=["up"], **options)  # type: ignore[arg-type]
        assert [(d.name, d.quantized) for d in other.decisions] == [("up", False), ("down", True)]


def test_a_pattern_that_matches_nothing_lists_close_names() -> None:
    with pytest.raises(ModelError, match=r"exclude 'conv_1' matches no node .*; close to it: conv1, conv2"):
        onnxcompress.quantize(convs(), data=IMAGES, exclude=["conv1", "conv_1"])
    with pytest.raises(ModelError, match=r"wide '\*CONV\*' matches no node .*; close to it: conv1, conv2"):
        onnxcompress.quantize(convs(), data=IMAGES, wide=["*CONV*"])
    with pytest.raises(ModelError, match="exclude 'nothing like it' matches no node"):
        onnxcompress.quantize(transformer(), mode="weight-only", exclude=["nothing like it"])


def test_wide() -> None:
    model = transformer()
    result = onnxcompress.quantize(model, data=ROWS, wide=["up"])
    types = [n.inputs[2].dtype for n in result.model.graph if n.op_type == "QuantizeLinear"]  # type: ignore[union-attr]
    assert types == [ir.DataType.UINT16, ir.DataType.UINT8]
    assert error(model, result, ROWS) < 0.5 * error(model, onnxcompress.quantize(model, data=ROWS), ROWS)
    idle = onnxcompress.quantize(model, data=ROWS, wide=["up"], exclude=["up"])
    assert "wide has no effect: none of its nodes is quantized" in idle.notes


def test_smooth_and_equalize() -> None:
    model = transformer()
    plain = onnxcompress.quantize(model, data=ROWS)
    smoothed = onnxcompress.quantize(model, data=ROWS, smooth=0.5)
    assert smoothed.notes == ["smoothed the inputs of 1 of 1 linear layers after a normalization"]
    assert error(model, smoothed, ROWS) < 0.7 * error(model, plain, ROWS)
    assert onnxcompress.quantize(convs(), data=IMAGES, smooth=0.5).notes[0].startswith("smooth has no effect")

    uneven = convs()
    scale = np.geomspace(1e-3, 1, 8).astype(np.float32)
    for name, shape in (("gamma", (8,)), ("beta", (8,)), ("w2", (1, 8, 1, 1))):
        tensor = uneven.graph.initializers[name]
        factor = (1 / scale if name == "w2" else scale).reshape(shape)
        assert tensor.const_value is not None
        tensor.const_value = ir.tensor(tensor.const_value.numpy() * factor, name=name)
    plain = onnxcompress.quantize(uneven, data=IMAGES)
    equalized = onnxcompress.quantize(uneven, data=IMAGES, equalize=True)
    assert equalized.notes == ["equalized 2 pairs of layers"]
    assert error(uneven, equalized, IMAGES) < 0.3 * error(uneven, plain, IMAGES)


def test_bias_correction_takes_the_mean_error_of_weights_away() -> None:
    """The mean error of each layer on float inputs, measured again after the correction, is gone but for rounding."""
    model = convs()
    data = [{"x": np.abs(feed["x"])} for feed in feeds(4, 3, 8, 8, count=4)]
    recipe = Recipe(mode="static", portable=True)
    prepared = prepare(model, recipe)
    result = onnxcompress.quantize(model, data=data, bias_correction=True, portable=True)
    assert result.notes == ["corrected the biases of 3 of 3 layers"]
    ranges = calibrate(prepared, data, method="mse")
    given = {name: ranges.interval(name) for name in ranges.names}
    plain, _ = insert(prepared, Recipe(mode="static", portable=True, ranges=given))
    before, after = (mean_errors(prepared, m, open_data(data, prepared)) for m in (plain, result.model))
    assert set(before) == {"conv1", "conv2", "head"}
    for name in before:
        assert np.linalg.norm(after[name]) < 0.2 * np.linalg.norm(before[name]), name


def test_mean_errors_are_those_of_numpy() -> None:
    model = transformer()
    recipe = Recipe(mode="static", portable=True)
    prepared = prepare(model, recipe)
    names = ("a", "d")
    ranges = calibrate(prepared, ROWS)
    quantized, _ = insert(prepared, Recipe(mode="static", portable=True, ranges={n: ranges.interval(n) for n in names}))
    found = mean_errors(prepared, quantized, open_data(ROWS, prepared))
    for name, tensor, weight in (("up", "a", "w1"), ("down", "d", "w2")):
        x = np.concatenate([observe(prepared, feed, [tensor])[tensor][0] for feed in ROWS]).astype(np.float64)
        w = prepared.graph.initializers[weight].const_value.numpy()  # type: ignore[union-attr]
        scale = np.abs(w).max(axis=0) / 127
        expected = (x @ (np.rint(w / scale) * scale - w)).mean(axis=0)
        np.testing.assert_allclose(found[name], expected, atol=1e-5)


def test_quantized_models_are_left_as_they_are() -> None:
    once = onnxcompress.quantize(transformer(), data=ROWS).model
    before = ir.to_proto(once)
    options: list[dict[str, Any]] = [{"data": ROWS}, {"mode": "dynamic"}, {"mode": "weight-only"}]
    for given in options:
        again = onnxcompress.quantize(once, **given)
        assert again.notes[0].startswith("the model is quantized already (2 QuantizeLinear") and not again.decisions
        assert ir.to_proto(again.model) == before
    inside = build("""agraph (bool c, float[4] x) => (float[4] y) {
        y = If (c) <then_branch = yes () => (float[4] a) { q, s, z = DynamicQuantizeLinear (x)
            a = DequantizeLinear (q, s, z) }, else_branch = no () => (float[4] b) { b = Identity (x) }>
    }""")  # fmt: skip
    assert "1 DynamicQuantizeLinear" in onnxcompress.quantize(inside, mode="dynamic").notes[0]


def test_nothing_to_quantize_is_said() -> None:
    model = build("agraph (float[4] x) => (float[4] y) { y = Relu (x) }")
    result = onnxcompress.quantize(model, data=[{"x": normal(4)}])
    assert result.notes == ["nothing was quantized: the model has no Conv, Gemm or MatMul"]


def test_signed_activations_beside_data_movements_load() -> None:
    """From opset 21 on ONNX Runtime 1.31 refuses what it makes of this graph itself."""
    text = """agraph (float[1,2,8] x) => (float[1,8] y) {
        [conv] a = Conv <pads = [1,1]> (x, w)
        part = Slice (a, zero, one, one)
        flat = Squeeze (part, one)
        y = Relu (flat)
    }"""
    model = build(text.replace("flat = Squeeze (part, one)", "flat = Squeeze (part, axis)"), {
        "w": normal(2, 2, 3), "zero": np.array([0]), "one": np.array([1]), "axis": np.array([1]),
    })  # fmt: skip
    for node in model.graph:
        if node.op_type == "Slice":
            node.resize_inputs(4)
            node.replace_input_with(3, model.graph.initializers["axis"])
    proto = ir.to_proto(model)
    proto.opset_import[0].version = 18
    model = ir.from_proto(proto)
    data = [{"x": normal(1, 2, 8, seed=i)} for i in range(4)]
    result = onnxcompress.quantize(model, data=data, activations="s8")
    assert result.model.graph.opset_imports[""] == 20
    assert error(model, result, data) < 0.1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mode": "statics"}, "mode must be one of static, dynamic, weight-only"),
        ({"method": "median", "data": IMAGES}, "method must be one of"),
        ({"activations": "s16", "data": IMAGES}, "activations must be one of"),
        ({}, "static quantization needs data to calibrate on, or ranges"),
        ({"mode": "dynamic", "weights": "int4"}, "weights is for static and weight-only quantization, not dynamic"),
        ({"data": IMAGES, "weights": "int4", "portable": True}, "an operator of ours, which portable leaves out"),
        ({"data": IMAGES, "weights": "int4", "activations": "s8"}, "4-bit weights go with u8 activations"),
        ({"data": IMAGES, "weights": "int4", "wide": ["conv1"]}, "4-bit weights go with u8 activations"),
        ({"data": IMAGES, "weights": "int4", "block_size": 16}, "blocks of at least 32 inputs"),
        ({"data": IMAGES, "weights": "int4", "block_size": 48}, "block_size must be a power of two"),
        ({"data": IMAGES, "block_size": 32}, "block size is for weight-only"),
        ({"mode": "weight-only", "block_size": 33}, "block_size must be a power of two"),
        ({"mode": "dynamic", "activations": "s8"}, "activations is for static quantization, not dynamic"),
        ({"mode": "dynamic", "wide": ["a"]}, "wide is for static"),
        ({"mode": "dynamic", "bias_correction": True}, "bias correction is for static"),
        ({"mode": "weight-only", "smooth": 0.5}, "smooth is for static and dynamic"),
        ({"mode": "weight-only", "equalize": True}, "equalize is for static and dynamic"),
        ({"mode": "weight-only", "method": "mse"}, "method is for static"),
        ({"mode": "weight-only", "data": IMAGES}, "weight-only quantization takes no data"),
        ({"mode": "weight-only", "weights": "int4", "gptq": True}, "weight-only quantization with gptq needs data"),
        ({"mode": "weight-only", "data": IMAGES, "gptq": True}, "gptq is for weights in blocks"),
        ({"data": IMAGES, "gptq": True}, "gptq is for weight-only quantization, not static"),
        ({"mode": "dynamic", "data": IMAGES}, "dynamic quantization takes no data"),
        ({"mode": "dynamic", "smooth": 0.5}, "dynamic quantization with smooth needs data"),
        ({"mode": "dynamic", "ranges": "r.json"}, "dynamic quantization takes no ranges"),
        ({"data": IMAGES, "ranges": "r.json"}, "give data or ranges, not both"),
        ({"ranges": "r.json", "equalize": True}, "smooth and equalize change the tensors"),
        ({"ranges": "r.json", "bias_correction": True}, "bias correction needs data"),
        ({"data": IMAGES, "smooth": 1.5}, "smooth must lie between 0 and 1"),
        ({"data": IMAGES, "exclude": "conv1"}, "exclude and wide take a list"),
        ({"data": IMAGES, "activations": "s8", "wide": ["conv1"]}, "wide goes with u8"),
    ],
)
def test_wrong_arguments(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        onnxcompress.quantize(convs(), **given)


def test_an_opset_that_cannot_be_converted_is_an_error() -> None:
    proto = ir.to_proto(convs())
    proto.opset_import[0].version = 6
    model = ir.from_proto(proto)
    for given in ({"data": IMAGES}, {"mode": "dynamic"}):
        with pytest.raises(ModelError, match=r"needs opset 13, the model has 6: .*older than 7"):
            onnxcompress.quantize(model, **given)
    with pytest.raises(ModelError, match=r"needs opset 21, and .*older than 7"):
        onnxcompress.quantize(model, mode="weight-only")


def test_a_file_that_does_not_load_is_never_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(transformer(), tmp_path / "m.onnx")

    def broken(model: ir.Model, recipe: Recipe) -> list[Decision]:
        model.graph[-1].op_type = "NoSuchOperator"
        return []

    monkeypatch.setattr("onnxcompress.quantizer.lower", broken)
    data = tmp_path / "feed.npz"
    np.savez(data, x=ROWS[0]["x"])
    with pytest.raises(ModelError, match=r"does not load and was not written: .*NoSuchOperator"):
        quantize_file(tmp_path / "m.onnx", tmp_path / "q.onnx", Options(), data=[str(data)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["feed.npz", "m.onnx"]


def test_external_data_is_streamed(tmp_path: Path) -> None:
    """Weights outside memory are still outside it when the result is saved."""
    model = transformer()
    save_model(model, tmp_path / "m.onnx", external_data=True)
    result = onnxcompress.quantize(tmp_path / "m.onnx", mode="weight-only")
    stored = [
        v.const_value for v in result.model.graph.initializers.values() if v.name and v.name.endswith("quantized")
    ]
    assert len(stored) == 2 and all(isinstance(tensor, ir.LazyTensor) for tensor in stored)
    save_model(result.model, tmp_path / "q.onnx")
    assert relative(execute(ir.load(tmp_path / "q.onnx"), ROWS[0])[0], execute(model, ROWS[0])[0]) < 0.02


def test_a_file_of_ranges_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"no.json: no such file"):
        onnxcompress.quantize(convs(), ranges=str(tmp_path / "no.json"))


def test_int4_says_which_nodes_take_eight_bits() -> None:
    result = onnxcompress.quantize(small_cnn(classes=40), mode="weight-only", weights="int4")
    assert any("take 8 bits" in note for note in result.notes)
    assert not any("take 8 bits" in note for note in onnxcompress.quantize(small_cnn(), mode="weight-only").notes)
