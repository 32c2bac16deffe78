"""report.json: strict JSON of the agreed form, written whole or not at all."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from onnxcompress.errors import ModelError
from onnxcompress.files import write_text
from onnxcompress.report import Measured, NodeReport, Result, write_report

LATENCY = {"threads": 1, "rounds": 3, "runs": 4, "median_ms": 2.0, "least_ms": 1.0}
MEASURED = Measured("m.onnx", 100, 10, None, "ab", LATENCY, {"name": "top1 of y", "value": 1.0})
RESULT = Result(
    original=MEASURED, result=MEASURED, speedup={"median": 1.0, "least": 1.0}, within_bound=True, max_drop=0.01,
    nodes=[NodeReport("n", "Conv", "int8", "int8", [{"kind": "float", "ms": 1.0}])], recipe={}, environment={},
)  # fmt: skip


def test_the_document(tmp_path: Path) -> None:
    write_report(RESULT, tmp_path / "r.json")
    document = json.loads((tmp_path / "r.json").read_text())
    assert document["schema"] == 1
    assert set(document) >= {"original", "result", "speedup", "nodes", "recipe", "environment"}
    assert set(document["result"]) == {"path", "bytes", "parameters", "macs", "sha256", "latency", "metric"}
    assert document["nodes"] == [
        {
            "name": "n", "op": "Conv", "decision": "int8", "reason": "int8", "native": "",
            "candidates": [{"kind": "float", "ms": 1.0}],
        }
    ]  # fmt: skip


def test_numbers_that_json_has_not_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        write_report(replace(RESULT, seconds=math.nan), tmp_path / "r.json")
    assert not list(tmp_path.iterdir())


def test_a_text_that_cannot_be_put_in_place_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(ModelError, match="folder: cannot be written"):
        write_text(tmp_path / "folder", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none/r\.json: cannot be written"):
        write_text(tmp_path / "none" / "r.json", "text")


def test_a_text_replaces_the_old_one(tmp_path: Path) -> None:
    write_text(tmp_path / "t", "old and long")
    write_text(tmp_path / "t", "nëw")
    assert (tmp_path / "t").read_text("utf-8") == "nëw"
    assert len(list(tmp_path.iterdir())) == 1
