"""`onnxcompress distill` from the command line: alone, killed and taken up again, and under torchrun."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from click.testing import CliRunner, Result

from onnxcompress.cli import main
from onnxcompress.model_io import save_model
from onnxcompress.runtime.session import open_session
from tests.models import with_initializers

ROOT = Path(__file__).parents[2]

TEXT = """
<ir_version: 10, opset_import: ["" : 21]>
net (float[N, 8] x) => (float[N, 4] scores) {
    [up] u = Gemm (x, w1, b1)
    r = Relu (u)
    [middle] m = Gemm (r, w2, b2)
    s = Relu (m)
    [down] scores = Gemm (s, w3, b3)
}
"""

FUNCTIONS = """
import numpy as np, time
def feeds():
    rng = np.random.default_rng(0)
    for _ in range(96):
        yield {"x": rng.normal(size=(1, 8)).astype(np.float32)}
def slow():
    for feed in feeds():
        time.sleep(0.002)
        yield feed
def score(run):
    print("LOUD")
    return -float(np.abs(run(next(feeds()))[0]).sum())
"""


def network(seed: int) -> ir.Model:
    rng = np.random.default_rng(seed)
    shapes = {"w1": (8, 32), "w2": (32, 32), "w3": (32, 4), "b1": (32,), "b2": (32,), "b3": (4,)}
    arrays = {name: rng.normal(0, 0.4, shape).astype(np.float32) for name, shape in shapes.items()}
    return with_initializers(ir.from_onnx_text(TEXT), arrays)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Small networks are faster so, and the same to the bit."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(network(0), tmp_path / "t.onnx")
    save_model(network(1), tmp_path / "s.onnx")
    (tmp_path / "f.py").write_text(FUNCTIONS)
    return tmp_path


def arguments(folder: Path, *more: str) -> list[str]:
    return [
        "distill", f"{folder}/s.onnx", "--teacher", f"{folder}/t.onnx", "--data", f"{folder}/f.py:feeds",
        "-o", f"{folder}/o.onnx", *more,
    ]  # fmt: skip


def invoke(folder: Path, *more: str) -> Result:
    return CliRunner().invoke(main, arguments(folder, *more))


def weights(path: Path) -> dict[str, Any]:
    model = ir.load(path)
    return {name: np.asarray(v.const_value.numpy()) for name, v in model.graph.initializers.items() if v.const_value}


def assert_same(one: Path, other: Path, tolerance: float = 0.0) -> None:
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=0, atol=tolerance, err_msg=name)


def start(folder: Path, *more: str, command: tuple[str, ...] = ("-m", "onnxcompress")) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *command, *arguments(folder, *more)], env=environment, text=True, cwd=folder,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def output_of(process: subprocess.Popen[str]) -> str:
    """What a process that ends well printed; one that does not end is killed with its children."""
    try:
        out, err = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == 0, err
    return out


def test_scores_before_and_after(folder: Path) -> None:
    found = invoke(folder, "--steps", "40", "--lr", "0.01")
    assert found.exit_code == 0, found.output
    lines = found.stdout.splitlines()
    assert lines[0] == "top1 of scores"
    assert [line.split()[0] for line in lines[1:4]] == ["student", "result", "teacher"]
    before, after, best = (float(line.split()[1]) for line in lines[1:4])
    assert before < after <= best == 1.0
    assert lines[4].startswith("40 steps in ") and "the result is of step " in lines[4]
    x = np.random.default_rng(5).normal(size=(7, 8)).astype(np.float32)
    assert open_session(folder / "o.onnx").run(None, {"x": x})[0].shape == (7, 4)
    assert "compared:" not in found.stderr


def test_a_pattern_prunes_while_training(folder: Path) -> None:
    """In two processes, which choose the same blocks."""
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "onnxcompress")
    output_of(start(folder, "--steps", "20", "--pattern", "block4x4", "--sparsity", "0.75", command=launcher))
    middle = weights(folder / "o.onnx")["w2"].T.reshape(8, 4, 8, 4)
    blocks = np.abs(middle).sum(axis=(1, 3))
    assert np.sum(blocks == 0) == 48 and np.all(np.sum(middle == 0, axis=(1, 3))[blocks > 0] == 0)


def test_verbose_tells_what_is_compared_and_the_history(folder: Path) -> None:
    found = invoke(folder, "--steps", "4", "--loss", "kl,hidden=0.5", "-v")
    assert found.exit_code == 0, found.output
    said = [" ".join(line.split()) for line in found.stderr.splitlines()]
    assert said[:4] == ["compared:", "kl x 1 scores", "hidden x 0.25 r", "hidden x 0.25 s"]
    assert sum(line.startswith("step ") and " top1 of scores " in line for line in said) == 4


def test_json_alone_is_on_stdout(folder: Path) -> None:
    found = invoke(folder, "--json", "--steps", "2", "--eval", f"{folder}/f.py:score", "--seed", "3")
    document = json.loads(found.stdout)
    assert set(document) == {
        "output", "bytes", "metric", "score", "start", "reference", "steps", "best_step", "seconds", "terms",
        "history", "notes", "interrupted",
    }  # fmt: skip
    assert (document["metric"], document["steps"], document["output"]) == ("score", 2, f"{folder}/o.onnx")
    assert document["bytes"] == (folder / "o.onnx").stat().st_size
    assert "LOUD" in found.stderr


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--steps", "1", "--budget", "1m"], "--steps and --budget exclude each other"),
        (["--loss", "l2"], "no loss is named 'l2'"),
        (["--drop-layers", "a,b"], "'a,b' is not numbers of layers"),
        (["--lr", "0"], "0.0 is not in the range x>0"),
        (["--batch", "0"], "0 is not in the range x>=1"),
        (["--budget", "soon"], "'soon' is not a positive time"),
        (["--pattern", "2:4", "--budget", "1m"], "pruning while training needs steps"),
        (["--sparsity", "0.5"], "sparsity needs a pattern"),
    ],
)
def test_wrong_usage_exits_2(folder: Path, more: list[str], message: str) -> None:
    found = invoke(folder, *more)
    assert found.exit_code == 2 and message in " ".join(found.stderr.split())
    assert CliRunner().invoke(main, ["distill", "s.onnx", "-o", "o.onnx", "--data", "d"]).exit_code == 2


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--teacher", "{0}/none.onnx"], "{0}/none.onnx: no such file"),
        (["--data", "{0}/f.py:none"], "--data: {0}/f.py has no function 'none'"),
        (["--drop-layers", "1"], "no layers can be dropped: the model has no blocks behind a residual"),
        (["-o", "{0}/none/o.onnx"], "{0}/none: no such folder; make it first"),
        (["--eval", "{0}/f.py:feeds"], "--eval feeds failed: TypeError"),
        (["--device", "cuda"], "device cuda: torch finds no GPU here; use cpu"),
    ],
)
def test_failures_are_one_line_and_exit_1(folder: Path, more: list[str], message: str) -> None:
    import torch

    if "cuda" in more and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    found = invoke(folder, "--steps", "1", *[text.format(folder) for text in more])
    assert found.exit_code == 1
    assert found.stderr.startswith(f"error: {message.format(folder)}") and found.stderr.count("\n") == 1
    assert not (folder / "o.onnx").exists()


@pytest.mark.slow
def test_a_killed_run_ends_where_it_would_have(folder: Path) -> None:
    """SIGKILL while it trains; the same command again gives the bytes of a run that was left alone."""
    options = ["--steps", "14", "--data", f"{folder}/f.py:slow", "--json", "--resume", f"{folder}/state"]
    checkpoint = folder / "state" / "distillation.pt"
    killed = start(folder, *options)
    deadline = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < deadline and killed.poll() is None:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL and checkpoint.exists()
    assert not (folder / "o.onnx").exists()

    out = output_of(start(folder, *options))
    (folder / "o.onnx").rename(folder / "resumed.onnx")
    alone = invoke(folder, *options[:-2])
    assert (folder / "o.onnx").read_bytes() == (folder / "resumed.onnx").read_bytes()
    one, other = (json.loads(text) for text in (out, alone.stdout))
    assert [(e["step"], e["loss"], e["score"]) for e in one["history"]] == [
        (e["step"], e["loss"], e["score"]) for e in other["history"]
    ]


def test_a_signal_ends_the_run_with_its_best_state(folder: Path) -> None:
    checkpoint = folder / "state" / "distillation.pt"
    run = start(
        folder, "--budget", "20s", "--json", "--resume", str(checkpoint.parent), "--data", f"{folder}/f.py:slow",
        "--metric", "cosine",
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < deadline and run.poll() is None:
        time.sleep(0.01)
    run.send_signal(signal.SIGINT)
    document = json.loads(output_of(run))
    assert document["interrupted"] and document["steps"] > 0
    assert document["score"] >= document["start"]
    assert open_session(folder / "o.onnx").run(None, {"x": np.zeros((1, 8), np.float32)})[0].shape == (1, 4)


def test_two_processes_do_what_one_does_with_batches_of_twice_the_size(folder: Path) -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "onnxcompress")
    options = ["--steps", "12", "--json", "--loss", "kl", "--metric", "cosine"]
    pair = start(folder, *options, "--batch", "8", command=launcher)
    out = output_of(pair)
    (folder / "o.onnx").rename(folder / "pair.onnx")
    found = invoke(folder, *options, "--batch", "16")
    one, two = json.loads(found.stdout), json.loads(out)
    assert two["steps"] == 12 and two["best_step"] == one["best_step"] > 0
    assert two["score"] == pytest.approx(one["score"], abs=1e-4)
    # Gradients are summed in another order, and Adam divides by their size: the noise of rounding, no more.
    assert_same(folder / "pair.onnx", folder / "o.onnx", 1e-3)
