"""Reading the archives that package indexes give: wheels, npm's tarballs, Debian's packages."""

from __future__ import annotations

import fnmatch
import io
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path


def unpack(archive: Path, patterns: Sequence[str], folder: Path) -> str | None:
    """Write the files that match into a folder, under their names in the archive.

    Args:
        archive: a `.whl`, a `.tgz`, or a `.deb` (its data archive is read).
        patterns: `*` crosses folders.
        folder: is there already.

    Returns:
        the first pattern that nothing matches, if there is one.
    """
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            found, missing = _match(wheel.namelist(), patterns)
            for name in found:
                wheel.extract(name, folder)
        return missing
    stream = io.BytesIO(_deb_data(archive.read_bytes()) if archive.suffix == ".deb" else archive.read_bytes())
    with tarfile.open(fileobj=stream) as tar:
        members = {member.name.removeprefix("./"): member for member in tar if member.isfile()}
        found, missing = _match(list(members), patterns)
        for name in found:
            tar.extract(members[name], folder, filter="data")
    return missing


def _match(names: Sequence[str], patterns: Sequence[str]) -> tuple[list[str], str | None]:
    matches = [fnmatch.filter(names, pattern) for pattern in patterns]
    missing = next((pattern for pattern, found in zip(patterns, matches, strict=True) if not found), None)
    return [name for found in matches for name in found], missing


def _deb_data(content: bytes) -> bytes:
    """The member `data.tar.*` of a `.deb`, which is an ar archive: 60-byte headers, even offsets (deb(5))."""
    offset = len(b"!<arch>\n")
    while offset < len(content):
        header = content[offset : offset + 60]
        size = int(header[48:58])
        start = offset + 60
        if header.startswith(b"data.tar"):
            return content[start : start + size]
        offset = start + size + size % 2
    raise ValueError("the .deb holds no data.tar")
