"""Exports of real modules, against torch; and exports that must be refused."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from torch import nn

import onnxcompress
from onnxcompress import model_io
from onnxcompress.errors import ExportError
from onnxcompress.exporter import Source, export, export_checked, provenance
from onnxcompress.runtime import session as session_module


class Cnn(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.bn = nn.BatchNorm2d(16)
        self.fc = nn.Linear(16, 10)
        with torch.no_grad():
            for tensor in (self.bn.running_mean, self.bn.running_var, self.bn.weight, self.bn.bias):
                assert tensor is not None
                tensor.uniform_(0.5, 1.5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.fc(torch.relu(self.bn(self.conv(image))).mean((2, 3)))
        return result


class Encoder(nn.Module):  # type: ignore[misc]
    """Token ids and a padding mask in; tied embedding and output weights; a dict out, keys not in order."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.out = nn.Linear(16, 50, bias=False)
        self.out.weight = self.embedding.weight
        self.register_buffer("scale", torch.rand(16))
        self.unused = nn.Linear(4, 4)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.layer(self.embedding(ids) * self.scale, src_key_padding_mask=mask)
        return {"logits": self.out(hidden), "best": hidden[..., 0].argmax(-1)}


class Lstm(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 12, num_layers=2, bidirectional=True, batch_first=True)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        output, state = self.lstm(x)
        return output, state


class Function(nn.Module):  # type: ignore[misc]
    """A linear layer and a function of it, for modules of one line."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self.linear, x)


def run_onnx(model: ir.Model, feeds: dict[str, torch.Tensor]) -> list[Any]:
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, {name: tensor.numpy() for name, tensor in feeds.items()}))


def assert_close(value: Any, reference: torch.Tensor, tolerance: float = 1e-5) -> None:
    expected = reference.detach().numpy()
    assert value.shape == expected.shape
    assert np.linalg.norm(value - expected) <= tolerance * np.linalg.norm(expected)


def shape_of(value: ir.Value) -> list[int | str | None]:
    assert value.shape is not None
    return [d if isinstance(d, int) else d.value for d in value.shape]


def test_cnn_with_batch_norm_keeps_every_parameter() -> None:
    module = Cnn()
    model = export(module, (torch.randn(1, 3, 8, 8),), dynamic={"image": {0: "batch"}})
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    assert model.opset_imports[""] == 21
    assert [(v.name, shape_of(v)) for v in model.graph.inputs] == [("image", ["batch", 3, 8, 8])]
    assert [(v.name, shape_of(v)) for v in model.graph.outputs] == [("output", ["batch", 10])]
    assert "BatchNormalization" in [node.op_type for node in model.graph]
    sources = provenance(model)
    assert set(sources) == set(model.graph.initializers)
    assert {key for source in sources.values() for key in source.keys} == {
        key for key in module.state_dict() if not key.endswith("num_batches_tracked")
    }
    for name, source in sources.items():
        tensor = model.graph.initializers[name].const_value
        assert tensor is not None
        np.testing.assert_array_equal(tensor.numpy(), module.state_dict()[source.keys[0]].numpy())
    image = torch.randn(5, 3, 8, 8)
    module.eval()
    assert_close(run_onnx(model, {"image": image})[0], module(image))


def test_transformer_with_dynamic_batch_and_sequence() -> None:
    module = Encoder()
    ids, mask = torch.randint(0, 50, (2, 7)), torch.zeros(2, 7, dtype=torch.bool)
    mask[1, 5:] = True
    axes = {0: "batch", 1: "sequence"}
    exported = export_checked(module, {"mask": mask, "ids": ids}, dynamic={"ids": axes, "mask": axes})
    model = exported.model
    assert [v.name for v in model.graph.inputs] == ["ids", "mask"]
    assert [v.name for v in model.graph.outputs] == ["logits", "best"]
    assert [check.output for check in exported.checks] == ["logits", "best"]
    assert 0 < exported.checks[0].error < 1e-5
    assert exported.checks[1].error == 0
    ids, mask = torch.randint(0, 50, (3, 11)), torch.zeros(3, 11, dtype=torch.bool)
    mask[2, 3:] = True
    module.eval()
    with torch.no_grad():
        logits, best = run_onnx(model, {"ids": ids, "mask": mask})
        reference = module(ids, mask)
    assert_close(logits, reference["logits"])
    np.testing.assert_array_equal(best, reference["best"].numpy())


def test_tied_weights_map_to_all_their_keys_and_buffers_are_mapped() -> None:
    module = Encoder()
    arguments = {"ids": torch.randint(0, 50, (2, 7)), "mask": torch.zeros(2, 7, dtype=torch.bool)}
    sources = provenance(export(module, arguments))
    tied = [source for source in sources.values() if "out.weight" in source.keys]
    assert tied == [Source(("embedding.weight", "out.weight"))]
    assert sources["scale"] == Source(("scale",))
    assert not any("unused" in name for name in sources)


def test_lstm_outputs_have_true_dynamic_shapes() -> None:
    module = Lstm()
    model = export(module, (torch.randn(2, 7, 8),), dynamic={"x": {0: "batch", 1: "time"}})
    assert [(v.name, shape_of(v)) for v in model.graph.outputs] == [
        ("output_0", ["batch", "time", 24]),
        ("output_1", [4, "batch", 12]),
        ("output_2", [4, "batch", 12]),
    ]
    x = torch.randn(1, 13, 8)
    module.eval()
    output, (hidden, cell) = module(x)
    for value, reference in zip(run_onnx(model, {"x": x}), (output, hidden, cell), strict=True):
        assert_close(value, reference)


def test_recurrent_layers_stay_dynamic_when_they_were_exported_before() -> None:
    """Torch 2.13 fixes the length of the sequence from the second export of a process on."""
    for layer in (nn.LSTM(8, 4), nn.GRU(8, 4)):
        for _ in range(2):
            model = export(layer, (torch.randn(7, 2, 8),), dynamic={"input": {0: "time"}})
            assert shape_of(model.graph.outputs[0]) == ["time", 2, 4]


def test_inner_shapes_are_true_at_other_sizes() -> None:
    model = export(Lstm(), (torch.randn(2, 7, 8),), dynamic={"x": {0: "batch", 1: "time"}})
    inner = [v for node in model.graph for v in node.outputs if v.shape is not None and v.dtype is not None]
    names = [v for v in inner if v not in model.graph.outputs]
    model.graph.outputs.extend(names)
    values = run_onnx(model, {"x": torch.randn(3, 5, 8)})
    for value, array in zip(model.graph.outputs, values, strict=True):
        declared = shape_of(value)
        assert all(d == n for d, n in zip(declared, array.shape, strict=True) if isinstance(d, int)), value.name


def test_multiple_inputs_by_position_with_own_names() -> None:
    class Two(nn.Module):  # type: ignore[misc]
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return a @ b, a - 1

    arguments = (torch.randn(2, 3), torch.randn(3, 4))
    model = export(Two(), arguments, input_names=["left", "right"], output_names=["product", "less"])
    assert [v.name for v in model.graph.inputs] == ["left", "right"]
    assert [v.name for v in model.graph.outputs] == ["product", "less"]
    product, less = run_onnx(model, dict(zip(["left", "right"], arguments, strict=True)))
    assert_close(product, arguments[0] @ arguments[1])
    assert_close(less, arguments[0] - 1)


def test_variable_positional_inputs_can_be_dynamic() -> None:
    class Sum(nn.Module):  # type: ignore[misc]
        def forward(self, *xs: torch.Tensor) -> torch.Tensor:
            return xs[0] + xs[1] * 2

    axes = {0: "n"}
    model = export(Sum(), (torch.randn(2, 3), torch.randn(2, 3)), dynamic={"xs_0": axes, "xs_1": axes})
    assert [(v.name, shape_of(v)) for v in model.graph.inputs] == [("xs_0", ["n", 3]), ("xs_1", ["n", 3])]


def test_an_output_that_is_an_input_or_given_twice_has_its_own_name() -> None:
    class Through(nn.Module):  # type: ignore[misc]
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            y = x + 1
            return {"x": x, "y": y, "z": y}

    x = torch.randn(2, 3)
    model = export(Through(), x)
    assert [v.name for v in model.graph.inputs] == ["x"]
    assert [v.name for v in model.graph.outputs] == ["x_out", "y", "z"]
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    for value, reference in zip(run_onnx(model, {"x": x}), (x, x + 1, x + 1), strict=True):
        assert_close(value, reference)


def test_a_name_that_is_taken_inside_the_graph_is_made_free() -> None:
    inner = export(Function(lambda linear, x: linear(x) * 2), torch.randn(2, 4)).graph
    taken = inner[0].outputs[0].name
    assert taken is not None
    model = export(Function(lambda linear, x: linear(x) * 2), torch.randn(2, 4), output_names=[taken])
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    assert [v.name for v in model.graph.outputs] == [taken]


@pytest.mark.parametrize(("size", "function"), [
    (8, lambda linear, x: linear(x).reshape(-1, 2, 4).sum(1)),
    (6, lambda linear, x: linear(x) + torch.arange(6.0)[: x.shape[0], None]),
    (1, lambda linear, x: linear(x).reshape(x.shape[0], 2, 2)),
])  # fmt: skip
def test_dynamic_sizes_that_only_twice_half_or_one_more_fits(size: int, function: Callable[..., Any]) -> None:
    module = Function(function)
    model = export(module, torch.randn(size, 4), dynamic={"x": {0: "n"}})
    x = torch.randn(max(2, size // 2), 4)
    assert_close(run_onnx(model, {"x": x})[0], module(x))


def test_half_precision() -> None:
    module = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.LayerNorm(64), nn.Linear(64, 8)).half()
    exported = export_checked(module, torch.randn(4, 16).half(), input_names=["x"])
    assert exported.model.graph.inputs[0].dtype == ir.DataType.FLOAT16
    assert exported.checks[0].error < 1e-3


@pytest.mark.parametrize("opset", [18, 25])
def test_opset(opset: int) -> None:
    assert export(Cnn(), torch.randn(1, 3, 8, 8), opset=opset).opset_imports[""] == opset


def test_provenance_survives_saving_and_loading(tmp_path: Path) -> None:
    model = export(Cnn(), torch.randn(1, 3, 8, 8))
    for external in (False, True):
        path = tmp_path / f"{external}.onnx"
        model_io.save_model(model, path, external_data=external)
        loaded = model_io.load_model(path)
        assert provenance(loaded) == provenance(model) != {}


def test_large_models_are_verified_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the limits of protobuf the model goes through external data, here with the limits lowered."""
    saved: list[Path] = []
    original = model_io.save_model

    def save(model: ir.Model, path: Path, **options: Any) -> None:
        original(model, path, **options)
        saved.extend(Path(path).parent.iterdir())

    monkeypatch.setattr(session_module, "IN_MEMORY_LIMIT", 100)
    monkeypatch.setattr(model_io, "EXTERNAL_DATA_THRESHOLD", 100)
    monkeypatch.setattr(model_io, "save_model", save)
    model = export(Cnn(), torch.randn(1, 3, 8, 8))
    assert any(path.suffix == ".data" for path in saved)
    original(model, tmp_path / "m.onnx")
    loaded = model_io.load_model(tmp_path / "m.onnx")
    assert len(list(model_io.external_tensors(loaded))) > 0
    assert set(provenance(loaded)) == set(model.graph.initializers)
    for name, value in model.graph.initializers.items():
        expected, written = value.const_value, loaded.graph.initializers[name].const_value
        assert expected is not None
        assert written is not None
        np.testing.assert_array_equal(written.numpy(), expected.numpy())


def test_module_is_left_as_it_was() -> None:
    class Counting(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.part = Cnn()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls: torch.Tensor = self.calls + 1
            result: torch.Tensor = self.part(x)
            return result

    module = Counting()
    module.train()
    module.part.bn.eval()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    export(module, torch.randn(2, 3, 8, 8))
    assert module.training
    assert module.part.training
    assert not module.part.bn.training
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_training_on_does_not_change_the_model() -> None:
    module = Cnn()
    model = export(module, torch.randn(1, 3, 8, 8))
    tensor = model.graph.initializers["fc.weight"].const_value
    assert tensor is not None
    before = tensor.numpy().copy()
    with torch.no_grad():
        module.fc.weight.zero_()
    np.testing.assert_array_equal(tensor.numpy(), before)


def test_model_holds_no_paths_of_this_machine_and_keeps_module_scopes() -> None:
    model = export(Cnn(), torch.randn(1, 3, 8, 8))
    data = ir.to_proto(model).SerializeToString()
    assert b".py" not in data
    convolution = next(node for node in model.graph if node.op_type == "Conv")
    assert "'conv'" in convolution.metadata_props["pkg.torch.onnx.name_scopes"]


def test_export_is_silent_and_restores_logging(capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export(Lstm(), (torch.randn(2, 7, 8),), dynamic={"x": {0: "batch", 1: "time"}})
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    assert logging.root.manager.disable == logging.NOTSET


# Exports that must be refused.


def other_when_exported(linear: nn.Linear, x: torch.Tensor) -> Any:
    return linear(x) if torch.compiler.is_exporting() else linear(x) * 2


class GlobalState(nn.Module):  # type: ignore[misc]
    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        GlobalState.calls += 1
        return x + GlobalState.calls


@pytest.mark.parametrize(("module", "cause"), [
    (Function(lambda linear, x: linear(x) + torch.rand(4)), "random"),
    (Function(lambda linear, x: nn.functional.dropout(linear(x), training=True)), "random"),
    (GlobalState(), "keeps state"),
    (Function(other_when_exported), "not what the module computes"),
])  # fmt: skip
def test_wrong_exports_are_detected(module: nn.Module, cause: str) -> None:
    with pytest.raises(ExportError, match=f"output 'output' .* differs .*{cause}"):
        export(module, torch.randn(2, 4))


def test_without_verification_a_wrong_export_is_given() -> None:
    exported = export_checked(Function(other_when_exported), torch.randn(2, 4), verify=False)
    assert exported.checks == []
    assert [node.op_type for node in exported.model.graph] == ["Gemm"]


def test_a_wrong_second_output_is_named() -> None:
    module = Function(lambda linear, x: {"right": linear(x), "wrong": other_when_exported(linear, x)})
    with pytest.raises(ExportError, match="output 'wrong'"):
        export(module, torch.randn(2, 4))


def test_a_size_is_followed_and_not_taken_for_constant() -> None:
    module = Function(lambda linear, x: linear(x) * int(x.shape[0]))
    x = torch.randn(5, 4)
    assert_close(run_onnx(export(module, torch.randn(2, 4), dynamic={"x": {0: "n"}}), {"x": x})[0], module(x))


def refuse(message: str, *arguments: Any, **options: Any) -> None:
    with pytest.raises(ExportError, match=message) as caught:
        export(*arguments, **options)
    assert "\n" not in str(caught.value)


def test_data_dependent_control_flow_names_the_line() -> None:
    def branch(linear: nn.Linear, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else x + 1  # the line at fault

    refuse(r"use torch.where or torch.cond \(at .*test_exporter.py:\d+: return x if x.sum", Function(branch),
           torch.randn(2, 4))  # fmt: skip


def test_an_operator_without_onnx_form() -> None:
    refuse(
        "No ONNX function found for .*eigh",
        Function(lambda _, x: torch.linalg.eigvalsh(x)),
        torch.randn(4, 4),
    )


def test_wrong_type_of_example() -> None:
    refuse(r"fails on x int64\[2, 4\]: .*dtype", Function(lambda linear, x: linear(x)), torch.ones(2, 4).long())


def test_module_that_takes_no_other_size() -> None:
    fixed = Function(lambda linear, x: linear(x.view(5, 4)))
    refuse("the module fixes dimension 0 of input 'x' to 5", fixed, torch.randn(5, 4), dynamic={"x": {0: "n"}})

    def five_rows(linear: nn.Linear, x: torch.Tensor) -> Any:
        return linear(x if torch.compiler.is_exporting() else x.view(5, 4))

    refuse("'n' is not dynamic: the module takes 5 but none of 6, 10, 2", Function(five_rows), torch.randn(5, 4),
           dynamic={"x": {0: "n"}})  # fmt: skip


def test_output_that_is_never_finite() -> None:
    refuse("not finite", Function(lambda linear, x: (linear(x) - 100).sqrt()), torch.randn(2, 4))


@pytest.mark.parametrize(("arguments", "options", "message"), [
    ([1.0], {}, "example input 0 is a float"),
    ({"x": None}, {}, "example input 'x' is a NoneType"),
    ("x", {}, "example input 0 is a str"),
    (7, {}, "example inputs are a int"),
    ({"y": torch.ones(2, 4)}, {}, "do not fit the module's forward"),
    ((torch.ones(2, 4),) * 2, {}, "do not fit the module's forward"),
    (torch.ones(2, 4), {"dynamic": {"y": {0: "n"}}}, "dynamic names 'y'; the inputs are x"),
    (torch.ones(2, 4), {"dynamic": {"x": {2: "n"}}}, "it has 2 dimensions"),
    (torch.ones(2, 4), {"dynamic": {"x": {0: "a b"}}}, "'a b' is not a name"),
    (torch.ones(2, 4), {"dynamic": {"x": {0: "n", 1: "n"}}}, "'n' is 2 and 4"),
    (torch.ones(2, 4), {"input_names": ["a", "b"]}, "must be 1 different names"),
    (torch.ones(2, 4), {"output_names": ["a", "b"]}, "must be 1 names"),
    (torch.ones(2, 4), {"output_names": ["x"]}, "not those of inputs"),
    (torch.ones(2, 4), {"opset": 26}, "opset 26 is not supported"),
    (torch.ones(2, 4).to(torch.complex64), {}, "fails on x complex64|complex"),
])  # fmt: skip
def test_bad_arguments(arguments: Any, options: dict[str, Any], message: str) -> None:
    refuse(message, Function(lambda linear, x: linear(x)), arguments, **options)


def test_only_modules_and_only_tensors() -> None:
    refuse("a dict cannot be exported", {}, torch.ones(1))
    refuse("gives a int, not tensors", Function(lambda linear, x: (linear(x), 3)), torch.randn(2, 4))


def test_another_opset_than_asked_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    original = torch.onnx.export

    def mislabelled(*arguments: Any, **options: Any) -> Any:
        program = original(*arguments, **options)
        assert program is not None
        program.model.opset_imports[""] = 18
        return program

    monkeypatch.setattr(torch.onnx, "export", mislabelled)
    refuse("wrote opset 18 where 21", Function(lambda linear, x: linear(x)), torch.randn(2, 4))


def test_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    refuse(r"pip install 'onnxcompress\[torch\]'", object(), ())


def test_public_name() -> None:
    assert onnxcompress.export is export
    json.loads(export(Cnn(), torch.randn(1, 3, 8, 8)).metadata_props["onnxcompress.provenance"])
