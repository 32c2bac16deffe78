"""Ranges saved, loaded, merged and refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from onnxcompress.calibration import METHODS, Ranges, calibrate
from onnxcompress.errors import CalibrationError, ModelError
from tests.calibration.models import MLP, f32, feeds, parse


@pytest.mark.parametrize("method", METHODS)
def test_parts_saved_loaded_and_merged_are_the_whole(method: str, tmp_path: Path) -> None:
    data = feeds(20)
    parts = []
    for index, part in enumerate((data[:3], data[3:12], data[12:])):
        path = tmp_path / f"{index}.json"
        calibrate(parse(MLP), part, method=method, percentile=99.0).save(path)
        parts.append(Ranges.load(path))
    merged = parts[2].merge(parts[0]).merge(parts[1])
    whole = calibrate(parse(MLP), data, method=method, percentile=99.0)
    assert merged.samples == whole.samples == 20
    assert merged.names == whole.names
    for name in whole.names:
        for symmetric in (False, True):
            got, expected = (r.interval(name, symmetric=symmetric) for r in (merged, whole))
            assert got == (pytest.approx(expected) if method == "moving-average" else expected)


def test_a_file_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    ranges = replace(calibrate(parse(MLP), feeds(3), method="percentile", percentile=99.5), left_out={"m": "a mask"})
    ranges.save(tmp_path / "r.json")
    assert Ranges.load(tmp_path / "r.json") == ranges
    assert json.loads((tmp_path / "r.json").read_text())["schema"] == 1


def test_an_interval_is_chosen_for_the_quantizer() -> None:
    ranges = calibrate(parse(MLP), feeds(20), method="mse")
    low, high = ranges.interval("h", symmetric=True)
    assert -low == high
    assert ranges.interval("h", levels=16)[1] < ranges.interval("h", levels=65536)[1]


def test_ranges_of_another_model_are_refused() -> None:
    other = MLP.replace("0.1, -0.2, 0.3", "0.1, -0.2, 0.4")
    ranges = calibrate(parse(MLP), feeds(2))
    ranges.check(parse(MLP))
    with pytest.raises(CalibrationError, match="another model"):
        ranges.check(parse(other))
    with pytest.raises(CalibrationError, match="different models"):
        ranges.merge(calibrate(parse(other), feeds(2)))


def test_ranges_of_other_methods_or_tensors_are_refused() -> None:
    ranges = calibrate(parse(MLP), feeds(2), method="percentile")
    with pytest.raises(CalibrationError, match=r"percentile 99\.99 and by minmax"):
        ranges.merge(calibrate(parse(MLP), feeds(2)))
    with pytest.raises(CalibrationError, match=r"percentile 99\.99 and by percentile 99 "):
        ranges.merge(calibrate(parse(MLP), feeds(2), method="percentile", percentile=99))
    with pytest.raises(CalibrationError, match=r"different tensors .*'s' is in one only"):
        ranges.merge(calibrate(parse(MLP), feeds(2), method="percentile", tensors=["x", "h", "a", "y"]))


def document(tmp_path: Path, method: str = "mse") -> dict[str, Any]:
    calibrate(parse(MLP), feeds(2), method=method).save(tmp_path / "good.json")
    loaded: dict[str, Any] = json.loads((tmp_path / "good.json").read_text())
    return loaded


DAMAGES: list[tuple[str, dict[str, Any], str]] = [
    ("foreign", {"format": None}, "not a file of ranges"),
    ("newer", {"schema": 2}, "ranges of schema 2"),
    ("method", {"method": "median"}, "damaged"),
    ("method type", {"method": ["mse"]}, "damaged"),
    ("percentile", {"method": "percentile", "percentile": "high"}, "damaged"),
    ("samples", {"samples": "many"}, "damaged"),
    ("digest", {"model": None}, "damaged"),
    ("tensors", {"tensors": [1]}, "damaged"),
    ("state", {"tensors": {"x": {"range": [0, 1]}}}, "damaged"),
    ("null state", {"tensors": {"x": None}}, "damaged"),
    ("left out", {"left_out": 3}, "damaged"),
]


@pytest.mark.parametrize(("change", "message"), [d[1:] for d in DAMAGES], ids=[d[0] for d in DAMAGES])
def test_a_damaged_file_is_one_clear_error(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(document(tmp_path) | change))
    with pytest.raises(CalibrationError, match=f"bad.json: .*{message}") as caught:
        Ranges.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["format", "method", "percentile", "samples", "model", "tensors", "left_out"])
def test_a_missing_key_is_one_clear_error(key: str, tmp_path: Path) -> None:
    damaged = document(tmp_path)
    del damaged[key]
    (tmp_path / "bad.json").write_text(json.dumps(damaged))
    with pytest.raises(CalibrationError, match=r"bad\.json"):
        Ranges.load(tmp_path / "bad.json")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe\x00", b"[" * 100_000, b"\x08\x0a model"])
def test_what_is_not_ranges_at_all_is_one_clear_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_bytes(content)
    with pytest.raises(CalibrationError, match="not a file of ranges"):
        Ranges.load(tmp_path / "bad.json")


def test_a_truncated_file_is_an_error(tmp_path: Path) -> None:
    document(tmp_path)
    text = (tmp_path / "good.json").read_text()
    (tmp_path / "bad.json").write_text(text[: len(text) // 2])
    with pytest.raises(CalibrationError, match="not a file of ranges"):
        Ranges.load(tmp_path / "bad.json")


def test_a_missing_file_or_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="no such file"):
        Ranges.load(tmp_path / "none.json")
    with pytest.raises(ModelError, match="no such folder"):
        calibrate(parse(MLP), feeds(1)).save(tmp_path / "none" / "r.json")


def test_an_interrupted_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.json"
    path.write_text("old")

    def stop(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    ranges = calibrate(parse(MLP), feeds(1))
    monkeypatch.setattr("onnxcompress.calibration.ranges.os.replace", stop)
    with pytest.raises(KeyboardInterrupt):
        ranges.save(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_numpy_numbers_of_observers_are_plain_in_the_file(tmp_path: Path) -> None:
    data = [{"x": f32([[1, 2, 3, 4]])}]
    calibrate(parse(MLP), data, method="entropy").save(tmp_path / "r.json")
    state = json.loads((tmp_path / "r.json").read_text())["tensors"]["x"]
    assert state["range"] == [1.0, 4.0]
    assert sum(state["counts"]) == 4


def test_the_digest_is_of_the_content_and_not_of_the_file(tmp_path: Path) -> None:
    ranges = calibrate(parse(MLP), feeds(1))
    model = parse(MLP)
    model.doc_string, model.producer_name = "words", "someone"
    ir.save(model, tmp_path / "m.onnx", external_data="m.data")
    ranges.check(ir.load(tmp_path / "m.onnx"))
