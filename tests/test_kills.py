"""Long commands, killed at random moments and taken up again: the old state or the new one, and the same result.

Each command is started as a user starts it. The signal goes to the first process only; the one that works dies with it.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxcompress.calibration import Ranges
from onnxcompress.calibration.checkpoints import FILE as CALIBRATION
from onnxcompress.lineage import recipe_of
from onnxcompress.model_io import load_model, save_model
from onnxcompress.recipe import read_recipe
from onnxcompress.runtime.session import open_session
from tests.models import small_cnn, wide_cnn

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a command runs in its first process")

ROOT = Path(__file__).parents[1]

FUNCTIONS = """
import time
import numpy as np

def feeds(count=120):
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield {"x": rng.normal(size=(1, 3, 32, 32)).astype(np.float32)}

def many():
    return feeds(1600)

def slow():
    for feed in feeds():
        time.sleep(0.03)
        yield feed
"""

PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1

OLD = b"what was there before"


@dataclass(frozen=True)
class Command:
    """A command to kill.

    Attributes:
        arguments: after the folder's files; `{0}` is the folder.
        output: what it writes last, or alone.
        kills: at how many moments.
        exact: a resumed run gives the bytes of one that was left alone.
    """

    arguments: str
    output: str
    kills: int
    exact: bool = True

    def start(self, folder: Path, *more: str, **options: Any) -> subprocess.Popen[str]:
        """The process, with its state in `folder/state`."""
        words = [word.format(folder) for word in self.arguments.split()]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TMPDIR": str(folder / "tmp")}
        return subprocess.Popen(
            [sys.executable, "-m", "onnxcompress", *words, "--resume", f"{folder}/state", *more],
            env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
        )  # fmt: skip

    def finish(self, folder: Path, *more: str) -> bytes:
        """A run to the end: the bytes of what it writes."""
        process = self.start(folder, *more)
        _, err = process.communicate(timeout=180)
        assert process.returncode == 0, err
        return (folder / self.output).read_bytes()


COMMANDS = {
    "calibrate": Command(
        "calibrate {0}/t.onnx -o {0}/o.json --data {0}/f.py:many --method mse --threads 1", "o.json", 8
    ),
    "distill": Command(
        "distill {0}/s.onnx --teacher {0}/t.onnx -o {0}/o.onnx --data {0}/f.py:feeds --steps 20 --lr 1e-4 "
        "--metric cosine",
        "o.onnx",
        7,
    ),
    "compress": Command(
        "compress {0}/t.onnx -o {0}/o.onnx --data {0}/f.py:feeds --report {0}/report.json", "o.onnx", 5, exact=False
    ),
}  # fmt: skip


def noisy() -> ir.Model:
    """A student of `wide_cnn` that has something to learn."""
    model = wide_cnn()
    rng = np.random.default_rng(0)
    for name in ("w2", "w3"):
        value = model.graph.initializers[name]
        assert value.const_value is not None
        array = value.const_value.numpy()
        value.const_value = ir.tensor(array + rng.normal(0, 0.03, array.shape).astype(np.float32), name=name)
    return model


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[[str], Path]:
    """A new folder with models, data, and old files in the places of the results."""

    def make(name: str) -> Path:
        folder = tmp_path / name
        (folder / "tmp").mkdir(parents=True)
        save_model(wide_cnn(), folder / "t.onnx")
        save_model(noisy(), folder / "s.onnx")
        (folder / "f.py").write_text(FUNCTIONS)
        for old in ("o.json", "o.onnx", "o.onnx.recipe.toml", "report.json"):
            (folder / old).write_bytes(OLD)
        return folder

    return make


def killed(process: subprocess.Popen[str], after: float) -> bool:
    """Kill a process at a moment, and wait until the one that works is gone too; False: it had ended before."""
    try:
        process.wait(timeout=after)
    except subprocess.TimeoutExpired:
        process.kill()
    process.communicate(timeout=60)  # to the end of what both processes write to
    return process.returncode == -signal.SIGKILL


def assert_whole(folder: Path) -> None:
    """Every result is the old one or a new one, whole."""
    for name, read in (
        ("o.json", Ranges.load),
        ("o.onnx", open_session),
        ("o.onnx.recipe.toml", read_recipe),
        ("report.json", lambda path: json.loads(path.read_text())),
    ):
        if (folder / name).read_bytes() != OLD:
            read(folder / name)


def assert_clean(folder: Path) -> None:
    """Nothing but what belongs there: no temporary files, no half-written states."""
    names = {path.name for path in folder.iterdir()} - {"__pycache__"}
    results = {"o.json", "o.onnx", "o.onnx.recipe.toml", "report.json"}
    assert names == {"t.onnx", "s.onnx", "f.py", "state", "tmp", *results}
    assert len(list((folder / "state").iterdir())) == 1


def assert_within_bound(folder: Path) -> None:
    """The result of `compress`: opened, and within the bound by the report of the same run."""
    report = json.loads((folder / "report.json").read_text())
    assert report["within_bound"] and not report["interrupted"]
    assert (folder / "o.onnx").stat().st_size == report["result"]["bytes"]
    assert recipe_of(load_model(folder / "o.onnx")) == read_recipe(folder / "o.onnx.recipe.toml")
    feed = {"x": np.random.default_rng(1).normal(size=(4, 3, 32, 32)).astype(np.float32)}
    one, other = (open_session(folder / name).run(None, feed)[0] for name in ("t.onnx", "o.onnx"))
    assert np.linalg.norm(one - other) < 0.2 * np.linalg.norm(one)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_at_random_moments(name: str, make_folder: Callable[[str], Path]) -> None:
    """20 kills of the three commands in all, and where there is time for it another of the run that goes on."""
    command = COMMANDS[name]
    alone = make_folder("alone")
    started = time.monotonic()
    wanted = command.finish(alone)
    seconds = time.monotonic() - started
    chance = random.Random(name)
    kills = 0
    for index in range(command.kills):
        folder = make_folder(str(index))
        # One moment in each part of the run's length, which the machine may go through faster the next time.
        moment = seconds * (index + chance.random()) / command.kills
        while not killed(command.start(folder), moment):
            folder = make_folder(f"{folder.name}-again")
            moment *= 0.7
        assert_whole(folder)
        kills += 1
        if killed(command.start(folder), chance.random() * seconds):
            assert_whole(folder)
        result = command.finish(folder)
        assert result == wanted or not command.exact
        if not command.exact:
            assert_within_bound(folder)
        assert_clean(folder)
    print(f"{name}: {kills} of {command.kills} kills survived, of runs of {seconds:.1f} s")


def test_calibration_killed_with_a_state_goes_on_from_there(make_folder: Callable[[str], Path]) -> None:
    """Twice in a row, each time when the state has grown."""
    command, quick = (
        Command(COMMANDS["calibrate"].arguments.replace("many", f), "o.json", 2) for f in ("slow", "feeds")
    )
    wanted = quick.finish(make_folder("alone"))
    folder = make_folder("killed")
    feeds = 0
    for _ in range(command.kills):
        process = command.start(folder)
        feeds = grown(folder / "state" / CALIBRATION, feeds, process)
        assert killed(process, 0)
        assert (folder / "o.json").read_bytes() == OLD
    assert quick.finish(folder) == wanted
    assert_clean(folder)


def grown(state: Path, feeds: int, process: subprocess.Popen[str]) -> int:
    """Wait until a calibration's state holds more feeds than it did; how many."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        found = json.loads(state.read_text())["position"]["feeds"] if state.exists() else 0
        if found > feeds:
            return int(found)
        time.sleep(0.01)
    raise AssertionError("the state does not grow")


def test_ctrl_c_while_calibrating(make_folder: Callable[[str], Path]) -> None:
    command = Command(COMMANDS["calibrate"].arguments.replace(":many", ":slow"), "o.json", 1)
    folder = make_folder("stopped")
    process = command.start(folder)
    grown(folder / "state" / CALIBRATION, 0, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.strip().splitlines()[-1]) == (130, "", "interrupted")
    assert (folder / "o.json").read_bytes() == OLD
    assert_clean(folder)


@pytest.mark.parametrize("name", ["calibrate", pytest.param("distill", marks=pytest.mark.slow),
                                  pytest.param("compress", marks=pytest.mark.slow)])  # fmt: skip
def test_a_full_disk_leaves_the_old_files(name: str, make_folder: Callable[[str], Path]) -> None:
    """Files end at 4,000 bytes: neither state nor result can be written."""
    folder = make_folder("full")
    arguments = COMMANDS[name].arguments.replace(":many", ":feeds")
    process = Command(arguments, COMMANDS[name].output, 0).start(folder, preexec_fn=_small_files)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (1, "")
    assert "cannot be written" in err.splitlines()[-1] and "Traceback" not in err
    assert {path.name for path in folder.iterdir() if path.is_file()} == {
        "t.onnx", "s.onnx", "f.py", "o.json", "o.onnx", "o.onnx.recipe.toml", "report.json",
    }  # fmt: skip
    for old in ("o.json", "o.onnx", "o.onnx.recipe.toml", "report.json"):
        assert (folder / old).read_bytes() == OLD
    assert not [path for path in (folder / "tmp").iterdir() if "onnxcompress" in path.name]


def _small_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """A folder that cannot be written to."""
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    yield folder
    folder.chmod(0o700)


@pytest.mark.parametrize(
    "name", ["calibrate", *(pytest.param(name, marks=pytest.mark.slow) for name in ("distill", "compress"))]
)
def test_closed_folders_are_told(name: str, make_folder: Callable[[str], Path], closed: Path) -> None:
    folder = make_folder("open")
    for place, said in (("-o", "closed: cannot be written to"), ("--resume", "--resume ")):
        process = COMMANDS[name].start(folder, place, f"{closed}/new", preexec_fn=_not_almighty)
        out, err = process.communicate(timeout=120)
        assert (process.returncode, out) == (1, "")
        assert said in err.splitlines()[-1] and "Traceback" not in err
        assert not list(closed.iterdir())
        assert_whole(folder)


def _not_almighty() -> None:
    """Take from root, after the next exec, that it may write where the owner may not."""
    ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE)


def test_models_differ(make_folder: Callable[[str], Path]) -> None:
    """The student is another model than its teacher, and the old files are no models: else nothing would be shown."""
    folder = make_folder("f")
    assert len({(folder / name).read_bytes() for name in ("t.onnx", "s.onnx", "o.onnx")}) == 3
    save_model(small_cnn(), folder / "o.onnx")
    assert_whole(folder)
