"""Files that appear whole under their names or not at all, and text that is read only where it is of a sane size."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from onnxcompress.errors import CompressError, ModelError

if sys.platform != "win32":
    import fcntl

PREFIX = ".onnxcompress-"
LOCK = "lock"

ABANDONED_SECONDS = 3600
"""A staging folder without a lock is swept after this time: its process was killed before it could lock it."""

MOST_TEXT = 1 << 28
"""Bytes of the largest text that is read (recipes, ranges, scores)."""


@contextlib.contextmanager
def staging(target: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary folder beside `target`, on the same file system, so that a rename from it is atomic.

    It goes at the end. One whose process was killed stays, and is swept by the next staging beside it: a folder is
    locked as long as its process lives.

    Raises:
        OSError: the folder of `target` cannot be written.
    """
    parent = Path(target).parent
    _sweep(parent)
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=parent, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with _locked(folder):
            yield folder


def publish(written: Path, target: Path) -> None:
    """Give a finished file its name, durably: its bytes reach the disk before its name does.

    Raises:
        OSError: it cannot be moved.
    """
    with open(written, "rb+") as stream:
        os.fsync(stream.fileno())
    os.replace(written, target)
    if sys.platform != "win32":
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file whole, or not at all.

    Raises:
        ModelError: it cannot be written.
    """
    path = Path(path)
    try:
        with staging(path) as folder:
            written = folder / "text"
            written.write_text(text, "utf-8")
            publish(written, path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be written ({error.strerror or error})") from error


def read_text(path: str | os.PathLike[str], *, kind: str = "a text file", most: int = MOST_TEXT) -> str:
    """Read a text file of at most `most` bytes; `kind` is what it should be, for messages.

    Raises:
        CompressError: no such file, not a plain file, too large, or not UTF-8.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise CompressError(f"{path}: {'not a plain file' if path.exists() else 'no such file'}")
        with open(path, "rb") as stream:
            data = stream.read(most + 1)
        if len(data) > most:
            raise CompressError(f"{path}: not {kind} (larger than {most >> 20} MiB)")
        return data.decode("utf-8")
    except OSError as error:
        raise CompressError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise CompressError(f"{path}: not {kind} (not a text in UTF-8)") from error
    except ValueError as error:  # a NUL in the name
        raise CompressError(f"{os.fspath(path)!r}: not the name of a file") from error


def check_folder(path: str | os.PathLike[str]) -> None:
    """Refuse a path to write to whose folder is not there, or is closed: before any work is done for it.

    Raises:
        ModelError: no such folder, or it cannot be written to; or the path is a folder itself.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise ModelError(f"{path.parent}: no such folder; make it first")
    if not os.access(path.parent, os.W_OK):
        raise ModelError(f"{path.parent}: cannot be written to")
    if path.is_dir():
        raise ModelError(f"{path}: is a folder; give the path of a file")


def same_file(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Do two paths lead to one file that exists?"""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which appears locked: it is locked under another name first."""
    if sys.platform == "win32":
        yield
        return
    unnamed = folder / f"{LOCK}.new"
    with open(unnamed, "wb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        os.replace(unnamed, folder / LOCK)
        yield


def _sweep(parent: Path) -> None:
    """Remove the staging folders of processes that are no more."""
    if sys.platform == "win32":
        return
    for folder in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if not folder.is_dir() or folder.is_symlink():
                continue
            lock = folder / LOCK
            if not lock.is_file():
                if time.time() - folder.stat().st_mtime > ABANDONED_SECONDS:
                    shutil.rmtree(folder)
                continue
            with open(lock, "rb") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
