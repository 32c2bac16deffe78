"""Bad files of every kind end in one clear line and exit status 1: no traceback, nothing written, nothing run."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from onnxcompress.model_io import save_model
from tests.cli.commands import run
from tests.hostile import Bad
from tests.hostile.feeds import BAD_FEEDS
from tests.hostile.models import UNSOUND_MODELS
from tests.hostile.operators import RUN_TIME_ERRORS, WRONG_OPERATORS
from tests.hostile.pictures import BAD_PICTURES
from tests.hostile.texts import BAD_RANGES, BAD_RECIPES, BAD_SCORES
from tests.models import images, small_cnn

ALL = [
    *UNSOUND_MODELS,
    *WRONG_OPERATORS,
    *RUN_TIME_ERRORS,
    *BAD_FEEDS,
    *BAD_PICTURES,
    *BAD_RANGES,
    *BAD_RECIPES,
    *BAD_SCORES,
]


def named(cases: list[Bad]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("bad", cases, ids=[case.name for case in cases])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hostile") / "model.onnx"
    save_model(small_cnn(), path)
    return path


@pytest.fixture(scope="module")
def data(model: Path) -> Path:
    path = model.with_name("data.npz")
    np.savez(path, **images(1)[0])  # type: ignore[arg-type]
    return path


def assert_one_error(result: Result, bad: Bad, output: Path) -> None:
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: ") and line.isprintable()
    assert re.search(bad.error, line), line
    assert not output.exists() and not list(output.parent.glob(".onnxcompress-*"))


def test_there_are_enough() -> None:
    assert len(ALL) >= 500
    assert len({case.name for case in ALL}) == len(ALL)


@named(UNSOUND_MODELS)
def test_an_unsound_model(bad: Bad, tmp_path: Path) -> None:
    assert_one_error(run("inspect", bad.write(tmp_path)), bad, tmp_path / "o.onnx")


@named(WRONG_OPERATORS)
def test_a_wrong_operator(bad: Bad, tmp_path: Path) -> None:
    output = tmp_path / "o.onnx"
    assert_one_error(run("optimize", bad.write(tmp_path), "-o", output), bad, output)


@named(RUN_TIME_ERRORS)
def test_an_operator_that_fails_when_it_runs(bad: Bad, tmp_path: Path) -> None:
    feed = {"x": np.ones((1, 4, 8, 8), np.float32)}
    np.savez(tmp_path / "d.npz", **feed)  # type: ignore[arg-type]
    output = tmp_path / "o.json"
    result = run("calibrate", bad.write(tmp_path), "-o", output, "--data", tmp_path / "d.npz")
    assert_one_error(result, bad, output)


@named([*BAD_FEEDS, *BAD_PICTURES])
def test_bad_data(bad: Bad, model: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.json"
    assert_one_error(run("calibrate", model, "-o", output, "--data", bad.write(tmp_path)), bad, output)
    assert not (tmp_path / "owned").exists()


@named(BAD_RANGES)
def test_bad_ranges(bad: Bad, model: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.onnx"
    assert_one_error(run("quantize", model, "-o", output, "--ranges", bad.write(tmp_path)), bad, output)


@named(BAD_RECIPES)
def test_a_bad_recipe(bad: Bad, model: Path, data: Path, tmp_path: Path) -> None:
    recipe = bad.write(tmp_path)
    if not recipe.is_file():
        pytest.skip("click refuses it, with exit status 2")
    output = tmp_path / "o.onnx"
    assert_one_error(run("compress", model, "-o", output, "--data", data, "--recipe", recipe), bad, output)


@named(BAD_SCORES)
def test_bad_scores(bad: Bad, model: Path, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.onnx"
    result = run("compress", model, "-o", output, "--data", data, "--resume", bad.write(tmp_path))
    assert_one_error(result, bad, output)


COMMANDS: dict[str, list[str]] = {
    "optimize": ["-o", "OUT"],
    "quantize": ["-o", "OUT", "--mode", "weight-only"],
    "quantize static": ["-o", "OUT", "--data", "DATA"],
    "prune": ["-o", "OUT", "--pattern", "unstructured", "--sparsity", "0.5"],
    "calibrate": ["-o", "OUT", "--data", "DATA"],
    "distill": ["--teacher", "MODEL", "-o", "OUT", "--data", "DATA", "--steps", "1"],
    "bench": ["MODEL", "--rounds", "1", "--runs", "1"],
    "extract": ["-o", "OUT", "--inputs", "x", "--outputs", "y"],
    "compress": ["-o", "OUT", "--data", "DATA"],
    "diff": ["MODEL"],
    "verify": ["MODEL", "--data", "DATA"],
}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
@named(UNSOUND_MODELS)
def test_an_unsound_model_in_every_command(command: str, bad: Bad, model: Path, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.onnx"
    places = {"OUT": str(output), "DATA": str(data), "MODEL": str(model)}
    arguments = [places.get(argument, argument) for argument in COMMANDS[command]]
    assert_one_error(run(command.split()[0], bad.write(tmp_path), *arguments), bad, output)
