"""`onnxcompress sign`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from onnxcompress.cli.sign import key_password
from onnxcompress.lineage import RECIPE, SOURCE
from onnxcompress.model_io import load_model, save_model
from onnxcompress.signing import check_signature
from tests.cli.commands import assert_fails, run, save_two_layers
from tests.keys import Pair, certificate, pair


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_two_layers(tmp_path / "m.onnx")


@pytest.fixture
def keys(tmp_path: Path) -> Pair:
    return pair(tmp_path, "key")


def test_it_signs(model: Path, keys: Pair) -> None:
    result = run("sign", model, "--private-key", keys.private)
    assert result.exit_code == 0, result.output
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    assert result.stdout.splitlines() == [f"signed into {model}.sig:", f"  m.onnx  sha256 {digest}"]
    check_signature(model, public_key=keys.public)


def test_it_tells_where_a_compressed_model_comes_from(model: Path, keys: Pair) -> None:
    traced = load_model(model)
    traced.metadata_props.update({SOURCE: "12ab", RECIPE: "deflated"})
    save_model(traced, model)
    result = run("sign", model, "--private-key", keys.private)
    assert result.stdout.splitlines()[-1] == "compressed from a model of sha256 12ab, with its recipe"


def test_json(model: Path, keys: Pair, tmp_path: Path) -> None:
    target = tmp_path / "s.json"
    result = run("sign", model, "--private-key", keys.private, "-o", target, "--json")
    assert json.loads(result.stdout) == {
        "schema": 1, "model": str(model), "signature": str(target), "source": None, "has_recipe": False,
        "files": {"m.onnx": hashlib.sha256(model.read_bytes()).hexdigest()},
    }  # fmt: skip
    check_signature(model, target, public_key=keys.public)


def test_a_certificate(model: Path, tmp_path: Path, keys: Pair) -> None:
    root = pair(tmp_path, "root")
    top = certificate(tmp_path, "root", root, root, "root", usage="ca")
    end = certificate(tmp_path, "leaf", keys, root, "root", usage="signing")
    result = run("sign", model, "--private-key", keys.private, "--certificate", end, "--chain", top)
    assert result.exit_code == 0, result.output
    check_signature(model, certificates=[top])


def test_the_password_comes_from_the_environment(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = pair(tmp_path, "closed", password="word")
    monkeypatch.delenv("ONNXCOMPRESS_KEY_PASSWORD", raising=False)
    assert_fails(run("sign", model, "--private-key", keys.private), "as ONNXCOMPRESS_KEY_PASSWORD")
    monkeypatch.setenv("ONNXCOMPRESS_KEY_PASSWORD", "other")
    assert_fails(run("sign", model, "--private-key", keys.private), "does not open the key")
    assert not Path(f"{model}.sig").exists()
    monkeypatch.setenv("ONNXCOMPRESS_KEY_PASSWORD", "word")
    assert run("sign", model, "--private-key", keys.private).exit_code == 0
    check_signature(model, public_key=keys.public)


def test_a_terminal_is_asked_for_the_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def prompt(text: str, *, hide_input: bool, err: bool) -> str:
        asked.append(hide_input and err)
        return "word"

    monkeypatch.delenv("ONNXCOMPRESS_KEY_PASSWORD", raising=False)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("click.prompt", prompt)
    assert key_password() == "word"
    assert asked == [True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "with a private key or with Sigstore"),
        (["--sigstore", "--private-key", "k"], "one of the two"),
        (["--sigstore", "--certificate", "c"], "give it too"),
        (["--private-key", "k", "--chain", "c"], "give it too"),
    ],
)
def test_usage(model: Path, options: list[str], message: str) -> None:
    assert_fails(run("sign", model, *options), message, code=2)


def test_failures(model: Path, tmp_path: Path, keys: Pair) -> None:
    assert_fails(run("sign", tmp_path / "absent.onnx", "--private-key", keys.private), "no such file")
    assert_fails(run("sign", model, "--private-key", tmp_path / "absent.pem"), "no such file")
    assert_fails(run("sign", model, "--private-key", model), "error:")
    assert_fails(run("sign", model, "--private-key", keys.private, "-o", model), "part of the model")
