"""Commands that measure no time give the same bytes twice: in two processes, two folders, with other hashes of strings.

The two processes go through the same list of commands; everything that they write and say must be equal. One thread:
sums in another order are other sums. Times are the one thing that is left out of what they say.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnxcompress.model_io import save_model
from onnxcompress.pipeline import compress
from onnxcompress.recipe import read_recipe
from tests.models import encoder, images, small_cnn, wide_cnn
from tests.zoo import ZOO, ZooModel

ROOT = Path(__file__).parents[1]

METHODS = ("minmax", "percentile", "entropy", "mse", "moving-average")
PATTERNS = ("channels", "block4x4", "block1x4", "block16x4", "2:4", "unstructured")

RUNNER = """
import json, re, sys
from pathlib import Path
from click.testing import CliRunner
from onnxcompress import delivery
from onnxcompress.cli import main

delivery.SECONDS = 0.2
for index, line in enumerate(Path("commands.txt").read_text().splitlines()):
    result = CliRunner().invoke(main, line.split())
    if result.exit_code != 0:
        sys.exit(f"{line}: {result.output}{result.exception!r}")
    if line.startswith("compress"):
        continue
    said = re.sub(r'("seconds": |steps in )[0-9.e+-]+', r"\\1-", result.stdout)
    Path(f"said-{index:02}.txt").write_text(said)
"""

FUNCTIONS = """
import numpy as np
import torch

def feeds(count=20):
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield {"x": rng.normal(size=(1, 3, 32, 32)).astype(np.float32)}

def plenty():
    return feeds(80)

def small():
    rng = np.random.default_rng(0)
    for _ in range(20):
        yield {"x": rng.normal(size=(1, 3, 16, 16)).astype(np.float32)}

def rows():
    rng = np.random.default_rng(0)
    for _ in range(20):
        yield {"x": rng.normal(size=(1, 16, 64)).astype(np.float32)}

def net():
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Dropout(),
        torch.nn.Flatten(), torch.nn.Linear(8 * 16, 5), torch.nn.LayerNorm(5),
    )
"""


class Twice:
    """Two folders with the same files, in which the same commands are run."""

    def __init__(self, parent: Path) -> None:
        self.folders = [parent / name for name in ("one", "the other")]
        for folder in self.folders:
            folder.mkdir()
            (folder / "f.py").write_text(FUNCTIONS)

    def add(self, name: str, model: ir.Model) -> None:
        """A model in both folders."""
        for folder in self.folders:
            save_model(model, folder / name)

    def run(self, *commands: str, seconds: float = 170) -> dict[str, bytes]:
        """Run commands, a process for each folder; the files, which must be equal, by name."""
        for seed, folder in enumerate(self.folders, 1):
            (folder / "commands.txt").write_text("\n".join(commands) + "\n")
            done = subprocess.run(
                [sys.executable, "-c", RUNNER], cwd=folder, env=environment(seed), capture_output=True, text=True,
                timeout=seconds, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
        one, other = ({path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
                      for folder in self.folders)  # fmt: skip
        assert one.keys() == other.keys()
        said = {f"said-{index:02}.txt": command for index, command in enumerate(commands)}
        assert [said.get(name, name) for name in one if one[name] != other[name]] == []
        return one


def environment(seed: int) -> dict[str, str]:
    """Of a process: its own order of sets of strings, and one thread."""
    threads = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
    path = os.pathsep.join([str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]).rstrip(os.pathsep)
    return {**os.environ, **threads, "PYTHONHASHSEED": str(seed), "PYTHONPATH": path}


@pytest.fixture
def twice(tmp_path: Path) -> Twice:
    found = Twice(tmp_path)
    found.add("wide.onnx", wide_cnn())
    found.add("small.onnx", small_cnn())
    found.add("encoder.onnx", encoder())
    return found


def test_graphs_and_ranges_and_numbers(twice: Twice) -> None:
    found = twice.run(
        "optimize small.onnx -o o1.onnx --json",
        "optimize encoder.onnx -o o2.onnx --portable",
        "extract wide.onnx -o e.onnx --inputs r --outputs s,t --json",
        "inspect wide.onnx --nodes --json",
        "inspect small.onnx",
        "diff small.onnx o1.onnx --json",
        "diff encoder.onnx o2.onnx --data f.py:rows --json",
        *(f"calibrate wide.onnx -o {m}.json --data f.py:feeds --threads 1 --method {m} --json" for m in METHODS),
        *(f"quantize wide.onnx -o q{m}.onnx --ranges {m}.json --json --explain" for m in METHODS),
        "quantize wide.onnx -o q0.onnx --data f.py:feeds --threads 1 --json",
        "quantize wide.onnx -o q1.onnx --data f.py:feeds --threads 1 --equalize --bias-correction --activations s8",
        "quantize encoder.onnx -o q2.onnx --data f.py:rows --threads 1 --smooth 0.5 --wide down",
        "quantize encoder.onnx -o q3.onnx --mode dynamic --json",
        "quantize encoder.onnx -o q4.onnx --mode weight-only --json",
        "quantize encoder.onnx -o q5.onnx --mode weight-only --weights int4 --json",
        "quantize encoder.onnx -o q6.onnx --mode weight-only --weights int4 --gptq --data f.py:rows --threads 1",
    )
    assert found["q0.onnx"] == found["qmse.onnx"]
    assert len({found[name] for name in found if name.startswith("q")}) == len(METHODS) + 6
    assert json.loads(found["said-00.txt"])["nodes_after"] > 0


SHARES = {pattern: "--macs 0.6" if pattern == "channels" else "--sparsity 0.5" for pattern in PATTERNS}


def test_pruned_models(twice: Twice) -> None:
    given = "--data f.py:small --threads 1 --json --explain"
    found = twice.run(
        *(f"prune wide.onnx -o n{i}.onnx --pattern {p} {SHARES[p]} --json" for i, p in enumerate(PATTERNS)),
        *(f"prune small.onnx -o d{i}.onnx --pattern {p} {SHARES[p]} {given}" for i, p in enumerate(PATTERNS)),
        "prune small.onnx -o a.onnx --pattern block4x4 --sparsity 0.5 --allocation sensitivity --solver obs "
        "--data f.py:small --threads 1",
        "prune encoder.onnx -o b.onnx --pattern channels --macs 0.6 --saliency taylor --data f.py:rows --threads 1",
    )
    models = {name: data for name, data in found.items() if name.endswith(".onnx")}
    assert len(set(models.values())) == len(models) == 3 + 2 * len(PATTERNS) + 2


@pytest.mark.slow
def test_models_pruned_on_data(twice: Twice) -> None:
    given = "--data f.py:feeds --threads 1 --json --explain"
    saliencies = ("magnitude", "wanda", "obs", "taylor", "fisher")
    twice.run(
        *(f"prune wide.onnx -o d{i}.onnx --pattern {p} {SHARES[p]} {given}" for i, p in enumerate(PATTERNS)),
        *(f"prune wide.onnx -o {s}.onnx --pattern block4x4 --sparsity 0.5 --saliency {s} {given}" for s in saliencies),
        *(f"prune encoder.onnx -o {s}-channels.onnx --pattern channels --macs 0.5 --saliency {s} --data f.py:rows "
          "--threads 1" for s in saliencies if s != "obs"),
        seconds=500,
    )  # fmt: skip


@pytest.mark.slow
def test_exported_and_distilled_models(twice: Twice) -> None:
    twice.run(
        "export f.py:net -o m.onnx --input x=f32[2,3,4,4] --dynamic x:0=batch --seed 3 --json",
        "prune wide.onnx -o s.onnx --pattern unstructured --sparsity 0.7",
        "distill s.onnx --teacher wide.onnx -o d.onnx --data f.py:feeds --steps 3 --batch 4 --json --seed 5",
        "quantize wide.onnx -o q.onnx --data f.py:feeds --threads 1 --portable",
        "distill q.onnx --teacher wide.onnx -o l.onnx --data f.py:feeds --steps 2 --batch 4 --learn-scales --lr 1e-3",
    )


@pytest.mark.usefixtures("quick")
def test_a_recipe_gives_the_bytes_of_its_result(twice: Twice, tmp_path: Path) -> None:
    """From its file and from the model that carries it, in processes of another day."""
    compress(twice.folders[0] / "wide.onnx", tmp_path / "r.onnx", data=images(20, 32), max_drop=0.2)
    for folder in twice.folders:
        for suffix in ("", ".recipe.toml"):
            (folder / f"r.onnx{suffix}").write_bytes((tmp_path / f"r.onnx{suffix}").read_bytes())
    wanted = (tmp_path / "r.onnx").read_bytes()
    assert wanted != (twice.folders[0] / "wide.onnx").read_bytes()
    found = twice.run(*REPLAYS)
    assert found["a.onnx"] == found["b.onnx"] == wanted
    assert found["a.onnx.recipe.toml"] == found["b.onnx.recipe.toml"] == found["r.onnx.recipe.toml"]


REPLAYS = [
    f"compress wide.onnx -o {name}.onnx --data f.py:feeds --max-drop 1 --recipe {recipe}"
    for name, recipe in (("a", "r.onnx.recipe.toml"), ("b", "r.onnx"))
]


PRUNING = """
from onnxcompress.cli import main
from onnxcompress.delivery import Delivery
from onnxcompress.slimming import Slimming
from onnxcompress.workbench import Workbench

def timed(bench, candidate):
    candidate.speedup = 1.0 + 0.5 * candidate.recipe.native + 2.0 * bool(candidate.recipe.slim)
    bench._remember(candidate)
    return candidate

Workbench.timed = timed
Delivery._pays = lambda *arguments: True
Slimming.affordable_steps = lambda *arguments: 16
main()
"""
"""`compress` on a machine where whatever is pruned is faster, and where there is time for 16 steps of distillation."""


@pytest.mark.slow
def test_a_recipe_of_a_distilled_model_gives_the_bytes_of_its_result(twice: Twice) -> None:
    """The metric that chose the best state is told to `compress` once: the recipe keeps it."""
    first, second = twice.folders
    done = subprocess.run(
        [sys.executable, "-c", PRUNING, "compress", "wide.onnx", "-o", "r.onnx", "--data", "f.py:plenty", "--pattern",
         "block4x4", "--sparsity", "0.6", "--max-drop", "0.02", "--metric", "cosine"],
        cwd=first, env=environment(3), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    slim = read_recipe(first / "r.onnx.recipe.toml").slim
    wanted = {"pattern": "block4x4", "sparsity": 0.6, "steps": 16, "seed": 0, "metric": "cosine"}
    assert slim == wanted, done.stderr
    for suffix in ("", ".recipe.toml"):
        (second / f"r.onnx{suffix}").write_bytes((first / f"r.onnx{suffix}").read_bytes())
    found = twice.run(*(line.replace(":feeds", ":plenty") for line in REPLAYS), seconds=400)
    assert found["a.onnx"] == found["b.onnx"] == found["r.onnx"]


ZOO_DATA = 3
"""Feeds of a zoo model that commands are given."""


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_zoo_models(name: str, zoo: Callable[[str], ZooModel], twice: Twice) -> None:
    for folder in twice.folders:
        (folder / "data").mkdir()
        for index, feed in enumerate(zoo(name).feeds(ZOO_DATA)):
            np.savez(folder / "data" / f"{index}.npz", **feed)  # type: ignore[arg-type]
        (folder / "m.onnx").write_bytes(zoo(name).path().read_bytes())
    given = "--data data --threads 1 --json"
    twice.run(
        "optimize m.onnx -o o.onnx --json",
        "optimize m.onnx -o p.onnx --portable --json",
        "inspect m.onnx --nodes --json",
        "diff m.onnx o.onnx --data data --json",
        f"calibrate m.onnx -o r.json --method percentile {given}",
        *([] if zoo(name).is_quantized else [
            f"quantize m.onnx -o q.onnx --explain {given}",
            "quantize m.onnx -o d.onnx --mode dynamic --json",
            "quantize m.onnx -o w.onnx --mode weight-only --weights int4 --json",
            "prune m.onnx -o b.onnx --pattern block4x4 --sparsity 0.5 --json",
            f"prune m.onnx -o c.onnx --pattern 2:4 --samples 2 {given}",
        ]),
        seconds=900,
    )  # fmt: skip
