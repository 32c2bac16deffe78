"""Racing sessions in this process, and `bench`, which gives each model a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import psutil
import pytest

import onnxcompress
from onnxcompress.data import Feed
from onnxcompress.errors import DataError, ModelError
from onnxcompress.model_io import file_bytes, save_model
from onnxcompress.runtime.benching import FEEDS, BenchResult, bench
from onnxcompress.runtime.benchmark import Latency, latencies, race
from onnxcompress.runtime.session import open_session
from onnxcompress.runtime.table import bench_table
from onnxcompress.runtime.worker import read_feeds, write_feeds

SIDE = 256
MATRIX_BYTES = 4 * SIDE * SIDE


def chain(products: int, *, extra: int = 0) -> ir.Model:
    """`x` [rows, 256] times a matrix, `products` times; and a constant of `extra` bytes that is given out."""
    rng = np.random.default_rng(0)
    x = ir.val("x", ir.DataType.FLOAT, ["rows", SIDE])
    weight = ir.Value(name="w", const_value=ir.tensor(rng.normal(size=(SIDE, SIDE)).astype(np.float32) / 16, name="w"))
    nodes, initializers, outputs, last = [], [weight], [], x
    for _ in range(products):
        nodes.append(ir.node("MatMul", [last, weight]))
        last = nodes[-1].outputs[0]
    last.name, last.type, last.shape = "y", x.type, x.shape
    outputs.append(last)
    if extra:
        big = ir.tensor(rng.normal(size=extra // 4).astype(np.float32), name="big")
        initializers.append(ir.Value(name="big", const_value=big))
        nodes.append(ir.node("Neg", [initializers[-1]]))
        negative = nodes[-1].outputs[0]
        negative.name, negative.type, negative.shape = "n", x.type, ir.Shape([extra // 4])
        outputs.append(negative)
    graph = ir.Graph([x], outputs, nodes=nodes, initializers=initializers, opset_imports={"": 21})
    return ir.Model(graph, ir_version=10)


def feeds(rows: int = 16) -> list[Feed]:
    return [{"x": np.random.default_rng(0).normal(size=(rows, SIDE)).astype(np.float32)}]


@pytest.fixture
def light(tmp_path: Path) -> Path:
    save_model(chain(1), tmp_path / "light.onnx")
    return tmp_path / "light.onnx"


@pytest.fixture
def heavy(tmp_path: Path) -> Path:
    save_model(chain(12, extra=64 << 20), tmp_path / "heavy.onnx")
    return tmp_path / "heavy.onnx"


def test_race_finds_the_faster_session() -> None:
    sessions = [open_session(chain(12), threads=1), open_session(chain(1), threads=1)]
    slow, fast = race(sessions, feeds(), threads=1, rounds=3, runs=5)
    assert slow.speedup_median == slow.speedup_least == 1.0
    assert fast.speedup_median > 2
    assert 0 < fast.least_ms <= fast.median_ms < slow.median_ms
    assert (fast.threads, fast.rounds, fast.runs) == (1, 3, 5)


def test_race_goes_round_by_round() -> None:
    calls: list[str] = []

    class Session:
        def __init__(self, name: str) -> None:
            self.name = name

        def run(self, _outputs: None, _feed: object) -> None:
            calls.append(self.name)

    race([Session("a"), Session("b")], feeds(), threads=1, rounds=2, runs=2)
    assert "".join(calls) == "ab" + "aaabbb" * 2  # warm-up, then turns of one untimed and two timed runs


def test_latencies_take_ratios_within_a_round() -> None:
    """The machine was half as fast in the second round: that moves times, not ratios."""
    first, second = latencies([[4.0, 8.0, 4.0], [2.0, 4.0, 2.0]], [[3.0, 6.0, 3.0], [1.0, 2.0, 1.5]], 2, 7)
    assert first == Latency(2, 3, 7, 4.0, 3.0, 1.0, 1.0)
    assert second == Latency(2, 3, 7, 2.0, 1.0, 2.0, 3.0)


def test_bench_measures_time_memory_and_size(light: Path, heavy: Path) -> None:
    results = bench([heavy, light], shapes={"x": (16, SIDE)}, rounds=3, runs=5)
    assert [result.path for result in results] == [str(heavy), str(light)]
    assert [result.bytes for result in results] == [heavy.stat().st_size, light.stat().st_size]
    assert results[0].latency.speedup_median == 1.0
    assert results[1].latency.speedup_median > 2
    assert results[1].latency.runs == 5
    if sys.platform == "linux":
        assert results[0].memory is not None
        assert results[1].memory is not None
        assert results[0].memory - results[1].memory > 60 << 20
        assert results[1].memory < 40 << 20
    document = results[1].as_dict()
    assert set(document) == {"path", "bytes", "memory", "latency", "speedup"}
    assert document["speedup"]["median"] == results[1].latency.speedup_median


def test_memory_of_this_process_is_not_counted(light: Path) -> None:
    """getrusage in a child starts at its parent's peak."""
    ballast = np.ones(200 << 20, np.uint8)
    (result,) = bench([light], shapes={"x": (1, SIDE)}, rounds=1, runs=1)
    assert ballast.nbytes == 200 << 20
    assert result.memory is None or result.memory < 40 << 20


def test_bench_of_models_in_memory_and_with_data(light: Path) -> None:
    results = bench([chain(1), light], data=[*feeds(2), *feeds(3)], rounds=1, runs=2, threads=2)
    assert results[0].path == ""
    assert results[0].bytes == file_bytes(light)
    assert results[0].latency.threads == 2


def test_data_is_read_no_further_than_needed(light: Path) -> None:
    read = []

    def many() -> object:
        for index in range(1000):
            read.append(index)
            yield feeds(1)[0]

    bench([light], data=many, rounds=1, runs=1)  # type: ignore[arg-type]
    assert len(read) <= FEEDS + 1


def test_runs_are_chosen_by_the_slowest_model(light: Path, heavy: Path) -> None:
    together = bench([light, heavy], shapes={"x": (2, SIDE)}, rounds=1)
    alone = bench([light], shapes={"x": (2, SIDE)}, rounds=1)
    assert 3 <= together[0].latency.runs == together[1].latency.runs < alone[0].latency.runs <= 1000


def test_progress_counts_turns(light: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []

    def note(stage: str, done: int, total: int | None) -> None:
        seen.append((stage, done, total))

    bench([light, light], shapes={"x": (1, SIDE)}, rounds=2, runs=1, progress=note)
    assert seen == [("timing", i, 4) for i in range(5)]


def test_errors_name_the_model(light: Path, tmp_path: Path) -> None:
    wrong = chain(1)
    wrong.graph[0].op_type = "NoSuchOperator"
    save_model(wrong, tmp_path / "wrong.onnx")
    with pytest.raises(ModelError, match=r"^.*wrong\.onnx: ONNX Runtime cannot open it: .*NoSuchOperator"):
        bench([light, tmp_path / "wrong.onnx"], shapes={"x": (1, SIDE)})
    with pytest.raises(ModelError, match=r"absent\.onnx: no such file"):
        bench([light, tmp_path / "absent.onnx"], shapes={"x": (1, SIDE)})
    with pytest.raises(DataError, match="dynamic dimensions"):
        bench([light])
    with pytest.raises(DataError, match="--shape names 'z'"):
        bench([light], shapes={"z": (1,)})
    with pytest.raises(DataError, match="cannot run this feed"):
        bench([light], shapes={"x": (1, SIDE + 1)})
    with pytest.raises(DataError, match="no feeds"):
        bench([light], data=lambda: [])
    with pytest.raises(DataError, match="with data the feeds have their own"):
        bench([light], data=feeds(), shapes={"x": (1, SIDE)})
    for options in ({"rounds": 0}, {"runs": 0}, {"threads": -1}):
        with pytest.raises(ModelError, match="at least one"):
            bench([light], shapes={"x": (1, SIDE)}, **options)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="at least one model"):
        bench([])


def test_a_worker_that_dies_is_an_error(light: Path) -> None:
    def kill(stage: str, done: int, total: int | None) -> None:
        if done == 1:
            for child in psutil.Process().children():
                child.kill()
                wait_until(lambda: child.status() == psutil.STATUS_ZOMBIE)  # noqa: B023

    with pytest.raises(ModelError, match=r"light\.onnx: the process that ran it ended with code -9"):
        bench([light], shapes={"x": (1, SIDE)}, rounds=3, runs=1, progress=kill)


def test_nothing_is_left_when_progress_stops_the_work(
    light: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def stop(stage: str, done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench([chain(1), light], shapes={"x": (1, SIDE)}, progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["light.onnx"]
    assert psutil.Process().children() == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_their_parent(kind: signal.Signals, light: Path, tmp_path: Path) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    command = [sys.executable, "-c", "from onnxcompress.cli import main; main()", "bench", str(light), str(light),
               "--shape", f"x=16,{SIDE}", "--rounds", "100000"]  # fmt: skip
    root = Path(onnxcompress.__file__).parent.parent
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(root)}
    parent = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: len(psutil.Process(parent.pid).children()) == 2)
    workers = psutil.Process(parent.pid).children()
    wait_until(lambda: all(worker.cpu_times().user > 0.2 for worker in workers))
    parent.send_signal(kind)
    _, message = parent.communicate(timeout=30)
    wait_until(lambda: not any(worker.is_running() for worker in workers))
    if kind == signal.SIGINT:
        assert parent.returncode == 130
        assert message == "interrupted\n"
        assert list(folder.glob("onnxcompress*")) == []


def wait_until(condition: object, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


def test_feeds_survive_the_hand_over(tmp_path: Path) -> None:
    given: list[Feed] = [
        {"a/b:0": np.arange(3), "x": np.array(2.0)},
        {"a/b:0": np.zeros((0, 2)), "x": np.ones(1)},
    ]
    write_feeds(str(tmp_path / "f.npz"), given * 6)
    read = read_feeds(str(tmp_path / "f.npz"))
    assert len(read) == 12
    for a, b in zip(given * 6, read, strict=True):
        assert a.keys() == b.keys()
        for name, array in a.items():
            assert array.dtype == b[name].dtype
            np.testing.assert_array_equal(array, b[name])


def test_table() -> None:
    def result(path: str, milliseconds: float, memory: int | None) -> BenchResult:
        latency = Latency(1, 5, 10, milliseconds, milliseconds / 2, 12 / milliseconds, 1)
        return BenchResult(path, 2_500_000, memory, latency)

    lines = bench_table([result("a/m.onnx", 12.0, 3_000_000), result("a/int8.onnx", 1.5, None)]).splitlines()
    assert lines[:4] == [
        "model      median ms  least ms  speedup  memory MB  file MB",
        "---------  ---------  --------  -------  ---------  -------",
        "m.onnx         12.00     6.000    1.00x        3.0     2.50",
        "int8.onnx      1.500     0.750    8.00x          -     2.50",
    ]
    assert lines[4] == "1 thread, 5 rounds in turn of 10 runs"
    both = bench_table([result("a/m.onnx", 1.0, None), result("b/m.onnx", 1.0, None)])
    assert "a/m.onnx" in both
    assert "b/m.onnx" in both


def test_public_name_and_session_type(light: Path) -> None:
    assert onnxcompress.bench is bench
    assert isinstance(onnxcompress.load(light), ort.InferenceSession)
