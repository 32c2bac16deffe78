"""`load` with a key: what was checked is what runs, and nothing else reaches ONNX Runtime."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from onnxcompress import load
from onnxcompress.errors import ModelError, SignatureError
from onnxcompress.model_io import save_model
from onnxcompress.runtime import library
from onnxcompress.signing import sign
from tests.keys import Pair, pair
from tests.lowered import lowered_cnn
from tests.models import images, small_cnn

FEED = images(1)[0]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return pair(tmp_path_factory.mktemp("keys"), "key")


@pytest.fixture
def model(tmp_path: Path, keys: Pair) -> Path:
    """Signed, in one file."""
    path = tmp_path / "model.onnx"
    save_model(small_cnn(), path)
    sign(path, private_key=keys.private)
    return path


@pytest.fixture
def large(tmp_path: Path, keys: Pair) -> Path:
    """Signed, with external data."""
    path = tmp_path / "large" / "model.onnx"
    path.parent.mkdir()
    onnx.save(ir.to_proto(small_cnn()), path, save_as_external_data=True, location="weights", size_threshold=0)
    sign(path, private_key=keys.private)
    return path


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime must not be reached."""

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("ONNX Runtime was given a model")

    monkeypatch.setattr(ort, "InferenceSession", fail)


def change(path: Path) -> None:
    """One bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def output(session: ort.InferenceSession) -> np.ndarray[Any, Any]:
    result: np.ndarray[Any, Any] = session.run(None, FEED)[0]
    return result


def test_a_signed_model_runs_as_it_does_without_a_key(model: Path, large: Path, keys: Pair) -> None:
    expected = output(load(model))
    for path in (model, large):
        np.testing.assert_array_equal(output(load(path, public_key=keys.public)), expected)


def test_a_lowered_model_runs_with_its_native_kernels(tmp_path: Path, keys: Pair) -> None:
    made = lowered_cnn()
    path, elsewhere = tmp_path / "m.onnx", tmp_path / "signature"
    save_model(made.model, path)
    sign(path, elsewhere, private_key=keys.private)
    options = ort.SessionOptions()
    session = load(path, sess_options=options, public_key=keys.public, signature=elsewhere)
    np.testing.assert_array_equal(output(session), output(load(path)))
    np.testing.assert_array_equal(output(load(path, sess_options=options)), output(session))


@pytest.mark.usefixtures("closed")
def test_what_is_not_signed_never_reaches_onnx_runtime(model: Path, large: Path, keys: Pair, tmp_path: Path) -> None:
    other = pair(tmp_path, "other")
    with pytest.raises(SignatureError, match="not a valid signature"):
        load(model, public_key=other.public)
    change(model)
    with pytest.raises(SignatureError, match=r"model\.onnx differs"):
        load(model, public_key=keys.public)
    Path(f"{model}.sig").unlink()
    with pytest.raises(SignatureError, match="no such signature"):
        load(model, public_key=keys.public)
    change(large.parent / "weights")
    with pytest.raises(SignatureError, match="weights differs"):
        load(large, public_key=keys.public)
    (large.parent / "weights").unlink()
    with pytest.raises(ModelError, match="weights is missing"):
        load(large, public_key=keys.public)
    with pytest.raises(ModelError, match="no such file"):
        load(tmp_path / "absent.onnx", public_key=keys.public)
    with pytest.raises(ValueError, match="public_key"):
        load(large, signature=f"{large}.sig")


def test_a_model_swapped_after_the_check_does_not_run(
    model: Path, keys: Pair, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whoever changes the file between the check and the opening gains nothing: the bytes that were checked run."""
    expected = output(load(model))
    swapped = tmp_path / "other.onnx"
    save_model(small_cnn(classes=3), swapped)
    register = library.register

    def swap(options: ort.SessionOptions) -> bool:
        os.replace(swapped, model)
        return register(options)

    monkeypatch.setattr("onnxcompress.runtime.session.register", swap)
    np.testing.assert_array_equal(output(load(model, public_key=keys.public)), expected)
    assert not swapped.exists()


@pytest.mark.parametrize("name", ["weights", "model.onnx"])
@pytest.mark.parametrize("how", ["written", "replaced", "removed"])
def test_a_file_beside_others_swapped_after_the_check_is_noticed(
    large: Path, keys: Pair, monkeypatch: pytest.MonkeyPatch, how: str, name: str
) -> None:
    """Even where its time of modification is set back."""
    data = large.parent / name
    register, content = library.register, data.read_bytes()

    def swap(options: ort.SessionOptions) -> bool:
        status = data.stat()
        if how == "written":
            with open(data, "rb+") as stream:
                stream.write(content[:64])
            os.utime(data, ns=(status.st_atime_ns, status.st_mtime_ns))
        else:
            data.unlink()
        if how == "replaced":
            data.write_bytes(content)
            os.utime(data, ns=(status.st_atime_ns, status.st_mtime_ns))
        return register(options)

    monkeypatch.setattr("onnxcompress.runtime.session.register", swap)
    with pytest.raises((SignatureError, ModelError), match=r"was changed while|cannot open it"):
        load(large, public_key=keys.public)
    data.write_bytes(content)
    monkeypatch.setattr("onnxcompress.runtime.session.register", register)
    load(large, public_key=keys.public)


def test_options_can_be_used_again(model: Path, large: Path, keys: Pair, tmp_path: Path) -> None:
    """For models elsewhere, and without a key: they do not remember where a model's data was."""
    options = ort.SessionOptions()
    expected = output(load(model))
    (tmp_path / "again").mkdir()
    for name in ("model.onnx", "model.onnx.sig", "weights"):
        (tmp_path / "again" / name).write_bytes((large.parent / name).read_bytes())
    for path in (large, large, tmp_path / "again" / "model.onnx", model):
        np.testing.assert_array_equal(output(load(path, sess_options=options, public_key=keys.public)), expected)
    np.testing.assert_array_equal(output(load(large, sess_options=options)), expected)
    (large.parent / "weights").unlink()
    with pytest.raises(ModelError):
        load(large, sess_options=options)


def test_a_relative_path_will_do(large: Path, keys: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = output(load(large))
    monkeypatch.chdir(large.parent)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(output(load(large.name, public_key=keys.public)), expected)
