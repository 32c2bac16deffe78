"""The totals of `inspect`, and what it says in text and JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

import onnxcompress
from onnxcompress.errors import ModelError
from onnxcompress.inspection import text

MODEL = """<ir_version: 10, opset_import: ["": 21], producer_name: "maker", producer_version: "2.0",
    metadata_props: ["author": "someone"]>
g (float[N,4] x, int64[1] shape) => (float[N,3] y) {
    w = Constant<value = float[4,3] {1,0,0,0,0,0,1,1,1,0,0,0}>()
    b = Constant<value_floats = [1.0, 2.0, 3.0]>()
    unused = Identity(shape)
    h = MatMul(x, w)
    y = Add(h, b)
}"""


def model() -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(MODEL))


def test_totals() -> None:
    found = onnxcompress.inspect(model(), shapes={"x": (5, 4)})
    assert (found.parameters, found.weight_bytes, found.bytes_by_dtype) == (15, 60, {"float": 60})
    assert (found.macs, found.unknown_macs) == (5 * 4 * 3, 0)
    # The outputs of Identity (one int64), MatMul and Add (5x3 floats each).
    assert (found.activation_bytes, found.unknown_activations) == (8 + 2 * 60, 0)
    assert found.operators == {"Constant": 2, "Identity": 1, "MatMul": 1, "Add": 1}
    assert found.sparsity == pytest.approx(8 / 12)
    assert (found.producer, found.ir_version, found.opsets) == ("maker 2.0", 10, {"": 21})
    assert found.metadata == {"author": "someone"}
    assert [(n.op, n.parameters) for n in found.nodes] == [("Identity", 0), ("MatMul", 12), ("Add", 3)]


def test_unknown_shapes_are_said_with_the_option_that_helps() -> None:
    found = onnxcompress.inspect(model())
    assert (found.macs, found.unknown_macs, found.unknown_activations) == (0, 1, 2)
    assert any("--shape x=?,4" in note for note in found.notes)
    assert any("unknown for 1 node" in line for line in text.summary(found))


def test_shared_weights_count_once() -> None:
    source = """<ir_version: 10, opset_import: ["": 21]> g (float[2,2] x) => (float[2,2] y) <float[2,2] w = {1,2,3,4}> {
        h = MatMul(x, w) y = MatMul(h, w) }"""
    found = onnxcompress.inspect(ir.from_proto(onnx.parser.parse_model(source)))
    assert found.parameters == 4
    assert [node.parameters for node in found.nodes] == [4, 4]


def test_weight_behind_constant_nodes_belongs_to_the_node_that_uses_it() -> None:
    source = """<ir_version: 10, opset_import: ["": 21]> g (float[2,2] x) => (float[2,2] y)
    <int8[2,2] w = {1,2,3,4}, float s = {0.5}> { d = DequantizeLinear(w, s) t = Transpose(d) y = MatMul(x, t) }"""
    found = onnxcompress.inspect(ir.from_proto(onnx.parser.parse_model(source)))
    assert [(n.op, n.parameters) for n in found.nodes] == [
        ("DequantizeLinear", 0),
        ("Transpose", 0),
        ("MatMul", 4),
    ]
    assert (found.parameters, found.weight_bytes) == (4, 8)
    assert found.activation_bytes == 16


def test_model_is_not_changed() -> None:
    source = model()
    before = ir.to_proto(source).SerializeToString()
    onnxcompress.inspect(source, shapes={"x": (5, 4)})
    assert ir.to_proto(source).SerializeToString() == before


def test_external_files_are_named_with_their_size(tmp_path: Path) -> None:
    source = model()
    weight = ir.Value(name="big", const_value=ir.tensor(np.zeros((100, 100), np.float32)))
    source.graph.register_initializer(weight)
    ir.save(source, tmp_path / "m.onnx", external_data="m.data")
    found = onnxcompress.inspect(tmp_path / "m.onnx")
    assert found.external_files == {"m.data": (tmp_path / "m.data").stat().st_size}
    assert any("m.data 40.0 kB" in line for line in text.summary(found))


def test_json_has_everything() -> None:
    document = json.loads(json.dumps(onnxcompress.inspect(model(), shapes={"x": (5, 4)}).as_dict()))
    assert document["tensors"][0]["sparsity"] == pytest.approx(8 / 12)
    assert document["nodes"][1]["outputs"][0] == {
        "name": "h",
        "dtype": "float",
        "shape": [5, 3],
        "constant": False,
    }
    assert document["coverage"]["reasons"] == {"no DequantizeLinear before it": 1}


def test_text_is_not_wide() -> None:
    found = onnxcompress.inspect(model(), shapes={"x": (5, 4)})
    assert all(len(line) <= 120 for line in [*text.summary(found), *text.node_table(found)])


def test_node_in_full() -> None:
    found = onnxcompress.inspect(model(), shapes={"x": (5, 4)})
    (by_value,) = text.find_nodes(found, "h")
    (by_name,) = text.find_nodes(found, by_value.name)
    assert by_name is by_value
    lines = "\n".join(text.node_detail(found, by_value))
    assert "float[5,3]" in lines
    assert "60" in lines
    with pytest.raises(ModelError, match="did you mean MatMul_3"):
        text.find_nodes(found, "MatMul_4")


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (12_345, "12.3 kB"),
        (999_999, "1.00 MB"),
        (3_221_225_472, "3.22 GB"),
    ],
)
def test_sizes_are_decimal(number: int, expected: str) -> None:
    assert text.size(number) == expected


def test_onnxruntime_is_not_imported() -> None:
    code = "import sys; from onnxcompress import inspect, diff; sys.exit('onnxruntime' in sys.modules)"
    environ = {"PYTHONPATH": str(Path(__file__).parents[2])}
    assert subprocess.run([sys.executable, "-c", code], env=environ).returncode == 0
