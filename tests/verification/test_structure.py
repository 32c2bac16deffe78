"""Checks of the file, and of loading it."""

from __future__ import annotations

import base64
import zlib
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxcompress.lineage import RECIPE, SOURCE, mark
from onnxcompress.model_io import save_model
from onnxcompress.recipe import Recipe
from onnxcompress.verification import verify
from onnxcompress.verification.structure import interface_problem
from tests.lowered import lowered_cnn
from tests.models import small_cnn
from tests.verification import broken
from tests.verification.broken import failed, row, two_layers


def interface(values: str) -> list[ir.Value]:
    text = f'<ir_version: 10, opset_import: ["" : 21]> g ({values}) => (float[n] y) {{ y = Identity (x) }}'
    return list(ir.from_onnx_text(text).graph.inputs)


@pytest.mark.parametrize(("wanted", "found", "inputs", "outputs"), [
    ("float[n, 3] x", "float[n, 3] x", "", ""),
    ("float[n, 3] x", "float[m, 3] x", "", ""),
    ("float[2, 3] x", "float[n, 3] x", "", ""),
    ("float[n, 3] x", "float[1, 3] x", "dimension 0 of x is fixed to 1, the original's open", ""),
    ("float[n, 3] x", "float[n, 4] x", "dimension 1 of x is fixed to 4, the original's 3",
     "dimension 1 of x is fixed to 4, the original's 3"),
    ("float[n, 3] x", "float[n] x", "x has 1 dimensions, the original's 2", "x has 1 dimensions, the original's 2"),
    ("float[n, 3] x", "float16[n, 3] x", "x is FLOAT16, the original's FLOAT",
     "x is FLOAT16, the original's FLOAT"),
    ("float[n] x", "float[n] x, float[n] z", "the original's are x; the result's x, z",
     "the original's are x; the result's x, z"),
])  # fmt: skip
def test_interfaces(wanted: str, found: str, inputs: str, outputs: str) -> None:
    assert interface_problem(interface(wanted), interface(found), "inputs") == inputs
    assert interface_problem(interface(wanted), interface(found), "outputs") == outputs


def test_an_input_with_another_name() -> None:
    result = two_layers()
    result.graph.inputs[0].name = "other"
    found = verify(two_layers(), result, data=broken.vectors())
    assert failed(found) == {"inputs"}
    assert {c.outcome for c in found.checks if c.section in ("clean data", "robustness")} == {"skipped"}


def test_a_model_that_onnx_does_not_take() -> None:
    result = two_layers()
    result.graph.node(0).attributes["surprise"] = ir.AttrInt64("surprise", 1)
    assert "valid" in failed(verify(two_layers(), result))


def test_shapes_that_contradict_each_other(tmp_path: Path) -> None:
    proto = ir.to_proto(two_layers())
    del proto.graph.value_info[:]
    proto.graph.value_info.append(onnx.helper.make_tensor_value_info("h", onnx.TensorProto.FLOAT, ["n", 65]))
    path = tmp_path / "model.onnx"
    onnx.save(proto, path)
    outcome, note = row(verify(two_layers(), path), "valid")
    assert outcome == "fail" and "65" in note


def test_operators_without_function_bodies() -> None:
    lowered = lowered_cnn()
    assert row(verify(small_cnn(), lowered.model), "operators")[0] == "pass"
    model = lowered.model.clone()
    model.functions.clear()
    found = verify(small_cnn(), model)
    assert {"operators", "opens without the library"} <= failed(found)
    assert row(found, "opens")[0] == "pass"
    assert "no function body for onnxcompress.DequantizeNCHW, onnxcompress.QConv" in row(found, "operators")[1]


def test_operators_of_others_are_those_of_the_original() -> None:
    foreign = two_layers()
    foreign.graph.node(1).domain = "elsewhere"
    foreign.opset_imports["elsewhere"] = 1
    assert "operators" in failed(verify(two_layers(), foreign))
    found = verify(None, foreign)
    assert {"operators", "opens", "opens without the library"} <= failed(found)


def test_external_data_is_told(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    save_model(two_layers(), path, external_data=True)
    found = verify(None, path)
    assert row(found, "reads") == ("pass", "external data in 1 file beside it")


def test_external_data_out_of_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "inner" / "model.onnx"
    path.parent.mkdir()
    proto = ir.to_proto(two_layers())
    onnx.save(proto, path, save_as_external_data=True, location="model.data", size_threshold=0)
    proto = onnx.load(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../model.data"
    (path.parent / "model.data").rename(tmp_path / "model.data")
    onnx.save(proto, path)
    assert failed(verify(two_layers(), path)) == {"reads"}


def test_the_recipe() -> None:
    result = two_layers()
    assert row(verify(None, result), "recipe")[0] == "skipped"
    mark(result, Recipe(mode="static", source="ab" * 32))
    found = verify(None, result)
    assert row(found, "recipe")[0] == "pass"
    assert row(found, "source")[0] == "skipped"
    result.metadata_props[RECIPE] = base64.b64encode(zlib.compress(b"mode = 3")).decode()
    assert failed(verify(None, result)) == {"recipe"}


def test_a_recipe_of_another_model(tmp_path: Path) -> None:
    source = tmp_path / "source.onnx"
    save_model(two_layers(), source)
    result = two_layers()
    mark(result, Recipe(mode="static", source="ab" * 32))
    result.metadata_props[SOURCE] = "cd" * 32
    outcome, note = row(verify(source, result), "source")
    assert outcome == "fail" and "its recipe was made for another model" in note


def test_constants_that_are_listed_as_inputs_are_no_inputs() -> None:
    proto = ir.to_proto(two_layers())
    proto.graph.input.append(onnx.helper.make_tensor_value_info("v", onnx.TensorProto.FLOAT, [32, 64]))
    listed = ir.from_proto(proto)
    assert verify(listed, two_layers(), data=[{"x": np.ones((1, 32), np.float32)}]).passed
