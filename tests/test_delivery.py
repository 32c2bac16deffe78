"""Where results go: nothing is written over, and nothing is left half-written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxcompress.errors import DataError, ModelError
from onnxcompress.passes.lower import native_nodes
from onnxcompress.pipeline import compress
from onnxcompress.recipe import Recipe, to_toml
from tests.lowered import lowered_cnn
from tests.models import images, small_cnn

Array = np.ndarray[Any, Any]

pytestmark = pytest.mark.usefixtures("quick")


def broken_off() -> Iterator[dict[str, Array]]:
    raise DataError("the data was read")
    yield {}


def test_paths_that_would_overwrite_the_original_are_refused(tmp_path: Path) -> None:
    ir.save(small_cnn(), tmp_path / "m.onnx", external_data="o.onnx.data")
    (tmp_path / "link.onnx").symlink_to("m.onnx")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for name, why in (
        ("m.onnx", "is the original model"),
        ("link.onnx", "is the original model"),
        ("o.onnx.data", "data"),
    ):
        with pytest.raises(ModelError, match=why):
            compress(tmp_path / "m.onnx", tmp_path / name, data=images(2))
    with pytest.raises(ModelError, match="is the original model"):
        compress(tmp_path / "m.onnx", tmp_path / "n.onnx", data=images(2), report=tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="would overwrite the model"):
        compress(tmp_path / "m.onnx", tmp_path / "n.onnx", data=images(2), report=tmp_path / "n.onnx")
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}


def test_places_that_cannot_be_written_are_refused_at_once(source: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for output, report in (("none/o.onnx", None), ("folder", None), ("o.onnx", "none/r.json"), ("o.onnx", "folder")):
        with pytest.raises(ModelError, match=r"no such folder|is a folder"):
            compress(source, tmp_path / output, data=broken_off, report=None if report is None else tmp_path / report)


def test_a_full_disk_leaves_nothing(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "r.toml").write_text(to_toml(Recipe(mode="dynamic")))
    monkeypatch.setattr(onnx, "save", full)
    with pytest.raises(ModelError, match=rf"^{tmp_path}/o\.onnx: cannot be written \(No space left on device\)$"):
        compress(source, tmp_path / "o.onnx", data=images(2), recipe=tmp_path / "r.toml")
    assert [path.name for path in tmp_path.iterdir()] == ["r.toml"]


def test_the_report_names_the_native_operator_of_a_node(tmp_path: Path) -> None:
    made = lowered_cnn()
    ir.save(made.source, tmp_path / "m.onnx")
    (tmp_path / "r.toml").write_text(to_toml(made.recipe))
    result = compress(
        tmp_path / "m.onnx", tmp_path / "o.onnx", data=images(2), recipe=tmp_path / "r.toml", report=tmp_path / "r.json"
    )
    written = {node.name for node in native_nodes(ir.load(tmp_path / "o.onnx"))}
    assert {node.decision for node in result.nodes} == {"int8"}
    assert {node.native for node in result.nodes} <= written
    assert {node["native"] for node in json.loads((tmp_path / "r.json").read_text())["nodes"]} <= written
    assert result.result.macs == result.original.macs
