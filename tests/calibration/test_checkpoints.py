"""A calibration that is stopped and taken up again ends as if it had not been."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxcompress.calibration import METHODS, Ranges, calibrate, checkpoints, collect
from onnxcompress.calibration.checkpoints import FILE, chained
from onnxcompress.errors import CalibrationError
from onnxcompress.runtime import session
from tests.calibration.models import MLP, Feeds, f32, feeds, parse
from tests.cli.commands import assert_fails, run

MASKED = """
    masked (float[N, 4] x, float[N, 4] m) => (float[N, 4] p) {
        s = Add (x, m)
        p = Softmax (s)
    }"""


class Stopped(Exception):
    """The process is gone."""


@pytest.fixture(autouse=True)
def _every_feed(monkeypatch: pytest.MonkeyPatch) -> None:
    """States are written after every feed."""
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "SHARE", 1e9)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every run of the model that is observed."""
    done: list[int] = []

    def counted(*args: Any) -> Any:
        done.append(1)
        return session.run(*args)

    monkeypatch.setattr(collect, "run", counted)
    return done


def stopped_at(count: int, data: Feeds, folder: Path, text: str = MLP, **options: Any) -> None:
    """A run whose process ends after `count` reports of progress."""
    reports: list[int] = []

    def stop(stage: str, done: int, total: int | None) -> None:
        reports.append(done)
        if len(reports) == count:
            raise Stopped

    with pytest.raises(Stopped):
        calibrate(parse(text), data, resume=folder, progress=stop, **options)


def saved(ranges: Ranges, folder: Path) -> bytes:
    ranges.save(folder / "r.json")
    return (folder / "r.json").read_bytes()


@pytest.mark.parametrize(
    ("budget", "stops"),
    [(1 << 30, (1, 2, 3)), (1, (2, 3, 7, 12))],  # the latter in four passes of three feeds
)
@pytest.mark.parametrize("method", METHODS)
def test_a_stopped_run_ends_with_the_same_bytes(
    method: str, budget: int, stops: tuple[int, ...], tmp_path: Path, runs: list[int]
) -> None:
    data = feeds(3)
    options: dict[str, Any] = {"method": method, "memory_budget": budget, "threads": 1}
    wanted = saved(calibrate(parse(MLP), data, **options), tmp_path)
    whole = len(runs)
    assert whole == stops[-1]
    for count in stops:
        folder = tmp_path / str(count)
        runs.clear()
        stopped_at(count, data, folder, **options)
        found = calibrate(parse(MLP), data, resume=folder, **options)
        assert saved(found, tmp_path) == wanted
        assert len(runs) == whole  # what was observed is not run again
        assert [path.name for path in folder.iterdir()] == [FILE]


def test_stopped_again_and_again(tmp_path: Path, runs: list[int]) -> None:
    data = feeds(7)
    for count in (2, 3, 4):
        stopped_at(count, data, tmp_path / "state", method="mse")  # reports of known feeds are counted too
    assert len(runs) == 4
    found = calibrate(parse(MLP), data, method="mse", resume=tmp_path / "state")
    assert len(runs) == 7 and found == calibrate(parse(MLP), data, method="mse")


def test_a_run_that_has_ended_is_given_again(tmp_path: Path, runs: list[int]) -> None:
    data = feeds(3)
    found = calibrate(parse(MLP), data, resume=tmp_path, memory_budget=1)
    runs.clear()
    assert calibrate(parse(MLP), data, resume=tmp_path, memory_budget=1) == found
    assert not runs


def test_feeds_that_came_since_are_observed_too(tmp_path: Path, runs: list[int]) -> None:
    data = feeds(5)
    calibrate(parse(MLP), data[:3], resume=tmp_path)
    assert calibrate(parse(MLP), data, resume=tmp_path) == calibrate(parse(MLP), data)
    assert len(runs) == 3 + 2 + 5


def test_a_mask_stays_left_out(tmp_path: Path) -> None:
    data: Feeds = [{"x": f32([[1, 2, 3, 4]]), "m": f32([[0, -np.inf, 0, 0]])}] + [
        {"x": f32([[i, 2, 3, 4]]), "m": f32([[0, 0, 0, 0]])} for i in range(3)
    ]
    stopped_at(2, data, tmp_path, MASKED)
    found = calibrate(parse(MASKED), data, resume=tmp_path)
    assert found == calibrate(parse(MASKED), data) and set(found.left_out) == {"m", "s"}


def test_states_are_written_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(checkpoints, "write_text", lambda path, text: written.append(text))
    calibrate(parse(MLP), feeds(5), resume=tmp_path)
    assert len(written) == 5 + 1  # after every feed, and at the end
    written.clear()
    monkeypatch.setattr(checkpoints, "SECONDS", 60.0)
    calibrate(parse(MLP), feeds(5), resume=tmp_path)
    assert len(written) == 1
    written.clear()
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    monkeypatch.setattr(checkpoints, "SHARE", 1e-9)  # one state, and there is no time for another
    calibrate(parse(MLP), feeds(5), resume=tmp_path)
    assert len(written) == 1 + 1


@pytest.mark.parametrize(
    ("other", "options"),
    [
        (MLP.replace("0.1, -0.2", "0.1, -0.3"), {}),
        (MLP, {"method": "mse"}),
        (MLP, {"method": "percentile", "percentile": 90.0}),
        (MLP, {"tensors": ["a"]}),
        (MLP, {"memory_budget": 1}),
        (MLP, {"threads": 2}),
    ],
)
def test_the_folder_of_another_run_is_refused(other: str, options: dict[str, Any], tmp_path: Path) -> None:
    calibrate(parse(MLP), feeds(3), resume=tmp_path, method="percentile" if "percentile" in options else "minmax")
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(CalibrationError, match=r"--resume .*: holds a calibration of another .* give an empty folder"):
        calibrate(parse(other), feeds(3), resume=tmp_path, **options)
    assert (tmp_path / FILE).read_bytes() == before


def test_other_feeds_are_refused(tmp_path: Path, runs: list[int]) -> None:
    data = feeds(5)
    stopped_at(3, data, tmp_path)
    runs.clear()
    other = [*data[:1], {"x": data[1]["x"] + 1e-6}, *data[2:]]
    with pytest.raises(CalibrationError, match=r"the feeds of data have changed \(the first 3 are others\)"):
        calibrate(parse(MLP), other, resume=tmp_path)
    with pytest.raises(CalibrationError, match=r"there are 2, and 3 were observed"):
        calibrate(parse(MLP), data[:2], resume=tmp_path)
    assert not runs


def test_a_pass_that_gives_other_feeds_is_refused(tmp_path: Path) -> None:
    walks: list[int] = []

    def unseeded() -> Iterator[dict[str, Any]]:
        walks.append(1)
        for feed in feeds(3):
            yield {"x": feed["x"] + np.float32(len(walks) > 2)}

    with pytest.raises(CalibrationError, match=r"unseeded have changed \(this pass gave others than the first\)"):
        calibrate(parse(MLP), unseeded, resume=tmp_path, memory_budget=1)


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[]",
        "null",
        '{"format": "onnxcompress ranges"}',
        '{"format": "onnxcompress calibration"}',
        {"position": {}, "tensors": {}},
        {"position": {"index": -1}},
        {"position": {"index": 1}},
        {"position": {"feeds": "3"}},
        {"position": {"more": 3}},
        {"tensors": {"x": {"range": [0, 1]}}},
        {"left_out": 3},
    ],
)
def test_a_damaged_state_is_refused(damage: str | dict[str, Any], tmp_path: Path) -> None:
    calibrate(parse(MLP), feeds(3), resume=tmp_path)
    file = tmp_path / FILE
    text = damage if isinstance(damage, str) else json.dumps(json.loads(file.read_text()) | damage)
    file.write_text(text)
    with pytest.raises(CalibrationError, match=rf"--resume .*: {FILE} is damaged .* give an empty folder"):
        calibrate(parse(MLP), feeds(3), resume=tmp_path)


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "taken" / FILE).mkdir(parents=True)
    for folder in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "taken"):
        with pytest.raises(CalibrationError, match=r"--resume .*: cannot be used"):
            calibrate(parse(MLP), feeds(3), resume=folder)


def test_a_state_that_cannot_be_written(tmp_path: Path) -> None:
    def remove(stage: str, done: int, total: int | None) -> None:
        (tmp_path / "state" / FILE).unlink()
        (tmp_path / "state").rmdir()

    with pytest.raises(CalibrationError, match=r"--resume .*state: .*cannot be written"):
        calibrate(parse(MLP), feeds(3), resume=tmp_path / "state", progress=remove)


def test_digests_tell_feeds_apart() -> None:
    one = {"a": f32([1, 2]), "b": f32([3])}
    others = [
        {"a": f32([1, 2]), "b": f32([4])},
        {"a": f32([1, 2]), "c": f32([3])},
        {"a": f32([[1, 2]]), "b": f32([3])},
        {"a": np.array([1, 2], np.int32), "b": f32([3])},
        {"a": f32([1]), "b": f32([2, 3])},
        {"a": np.array(["x", "y"], object), "b": f32([3])},
        {"a": np.array(["x", "z"], object), "b": f32([3])},
    ]
    digests = {chained("", feed) for feed in [one, *others]}
    assert len(digests) == len(others) + 1
    assert chained("", dict(reversed(one.items()))) in digests
    assert chained(chained("", one), others[0]) != chained(chained("", others[0]), one)


def test_from_the_command_line(tmp_path: Path) -> None:
    ir.save(parse(MLP), tmp_path / "m.onnx")
    for index, feed in enumerate(feeds(3)):
        (tmp_path / "d").mkdir(exist_ok=True)
        np.savez(tmp_path / "d" / f"{index}.npz", **feed)  # type: ignore[arg-type]
    arguments = [tmp_path / "m.onnx", "-o", tmp_path / "r.json", "--resume", tmp_path / "state"]
    assert run("calibrate", *arguments, "--data", tmp_path / "d").exit_code == 0
    assert Ranges.load(tmp_path / "r.json") == calibrate(parse(MLP), feeds(3))
    assert json.loads((tmp_path / "state" / FILE).read_text())["position"]["feeds"] == 3
    assert_fails(
        run("calibrate", *arguments, "--data", tmp_path / "d", "--method", "mse"), "holds a calibration of another"
    )
    assert_fails(run("calibrate", *arguments, "--merge", tmp_path / "r.json"), "give that too", 2)
