"""Files that appear whole or not at all, and what a killed process leaves behind."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir
import pytest

from onnxcompress.errors import CompressError, ModelError
from onnxcompress.files import check_folder, read_text, staging, write_text
from onnxcompress.model_io import external_files, load_model, save_model
from tests.models import small_cnn, wide_cnn


@contextlib.contextmanager
def no_space() -> Iterator[None]:
    """Files of this process end at 20,000 bytes, as on a full disk: those that pytest writes to as well."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_staging_folder_goes_at_the_end(tmp_path: Path) -> None:
    def fail() -> None:
        with staging(tmp_path / "target") as folder:
            (tmp_path / folder.name / "half").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not list(tmp_path.iterdir())


HOLDER = """
import sys, time
from onnxcompress.files import staging
with staging(sys.argv[1]) as folder:
    (folder / "half").write_text("half")
    print("held", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_process_left_is_swept_and_a_living_ones_stays(tmp_path: Path) -> None:
    target = tmp_path / "target"
    holders = [
        subprocess.Popen([sys.executable, "-c", HOLDER, str(target)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for holder in holders:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    assert len(list(tmp_path.iterdir())) == 2
    holders[0].kill()
    holders[0].wait()
    write_text(target, "new")
    assert len(list(tmp_path.glob(".onnxcompress-*"))) == 1
    holders[1].kill()
    holders[1].wait()
    write_text(target, "newer")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_a_folder_that_was_never_locked_is_swept_after_a_while(tmp_path: Path) -> None:
    young, old, other = (tmp_path / name for name in (".onnxcompress-young", ".onnxcompress-old", ".other"))
    for folder in (young, old, other):
        folder.mkdir()
    os.utime(old, (time.time() - 7200,) * 2)
    write_text(tmp_path / "t", "text")
    assert young.exists() and other.exists() and not old.exists()


def test_links_are_not_swept(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / ".onnxcompress-link").symlink_to(outside)
    (outside / "lock").touch()
    write_text(inside / "t", "text")
    assert (outside / "lock").exists()


def test_text_is_read_whole_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "t"
    write_text(path, "nëw")
    assert read_text(path) == "nëw"
    assert oct(path.stat().st_mode & 0o777) == oct(0o666 & ~_umask())
    with pytest.raises(CompressError, match="larger than 0 MiB"):
        read_text(path, most=3)
    for place, error in (
        (tmp_path, "not a plain file"),
        (tmp_path / "none", "no such file"),
        (Path("/dev/zero"), "plain"),
    ):
        with pytest.raises(CompressError, match=error):
            read_text(place)
    with pytest.raises(CompressError, match=r"not the name of a file|no such file"):
        read_text("a\0b")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("external", [False, True])
def test_a_full_disk_leaves_the_old_file(external: bool, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"old")
    with pytest.raises(ModelError, match=r"m\.onnx: cannot be written"), no_space():
        save_model(wide_cnn(), tmp_path / "m.onnx", external_data=external)
    with pytest.raises(ModelError, match="cannot be written"), no_space():
        write_text(tmp_path / "m.onnx", "long" * 9000)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("m.onnx", b"old")]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_closed_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ModelError, match="cannot be written to"):
        check_folder(tmp_path / "m.onnx")
    tmp_path.chmod(0o700)


def test_external_data_has_a_name_of_its_own_for_each_content(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    save_model(wide_cnn(), path, external_data=True)
    (first,) = external_files(path)
    before = path.read_bytes(), first.read_bytes()
    save_model(wide_cnn(), path, external_data=True)
    assert (path.read_bytes(), first.read_bytes()) == before
    save_model(small_cnn(), path, external_data=True)
    (second,) = external_files(path)
    assert first != second and not first.exists()
    save_model(small_cnn(), path)
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]


def test_data_of_others_stays(tmp_path: Path) -> None:
    for name in ("m.onnx.data", "m.onnx.0123456.data", "m.onnx.01234567.bin", "n.onnx.01234567.data"):
        (tmp_path / name).touch()
    save_model(small_cnn(), tmp_path / "m.onnx")
    assert len(list(tmp_path.iterdir())) == 5


KILLED = """
import os, signal, sys
from onnxcompress import files, model_io
from tests.models import small_cnn
count = 0
def deadly(*arguments, original=os.replace):
    global count
    count += 1
    if count == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments)
os.replace = deadly
model_io.save_model(small_cnn(), sys.argv[1], external_data=True)
"""


def test_killed_between_any_two_renames_the_old_model_or_the_new_is_there(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    save_model(wide_cnn(), path, external_data=True)
    old = weights(path)
    save_model(small_cnn(), tmp_path / "new.onnx")
    new, seen = weights(tmp_path / "new.onnx"), []
    for rename in range(2, 9):  # the first gives the lock its name
        done = subprocess.run([sys.executable, "-c", KILLED, str(path), str(rename)], check=False)
        seen.append(weights(path) == new)
        assert seen[-1] or weights(path) == old
        if done.returncode == 0:
            break
    assert done.returncode == 0 and seen[0] is False and seen[-1] is True
    assert {file.name for file in tmp_path.iterdir()} == {"m.onnx", external_files(path)[0].name, "new.onnx"}


def weights(path: Path) -> dict[str, bytes]:
    model: ir.Model = load_model(path)
    values = model.graph.initializers.values()
    return {str(value.name): value.const_value.tobytes() for value in values if value.const_value is not None}
