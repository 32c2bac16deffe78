"""Unpacking what npm and Debian give, from archives made by hand; wheels are in test_zoo.py."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.zoo.archives import unpack
from tests.zoo.packages import Package, ZooError, unpacked


def tarball(names: dict[str, bytes], mode: Any = "w:gz") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as tar:
        for name, content in names.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def deb(data: bytes, name: str = "data.tar.xz") -> bytes:
    """An ar archive as deb(5) says; the member before has an odd size, so that padding counts."""
    parts = [("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), (name, data)]
    content = b"!<arch>\n"
    for title, body in parts:
        content += (
            f"{title:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(body):<10}`\n".encode() + body + b"\n" * (len(body) % 2)
        )
    return content


def test_npm_tarball(tmp_path: Path) -> None:
    archive = tmp_path / "made-up-1.0.tgz"
    archive.write_bytes(tarball({"package/a.json": b"1", "package/b/c.json": b"2", "package/d.js": b"3"}))
    assert unpack(archive, ["package/*.json"], tmp_path / "out") is None
    assert {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()} == {"a.json", "c.json"}
    assert unpack(archive, ["package/a.json", "*.onnx"], tmp_path / "other") == "*.onnx"


def test_debian_package(tmp_path: Path) -> None:
    archive = tmp_path / "made-up_1.0_all.deb"
    archive.write_bytes(deb(tarball({"./usr/share/a.gz": b"abc", "./usr/share/doc/b": b""}, "w:xz")))
    assert unpack(archive, ["usr/share/*.gz"], tmp_path / "out") is None
    assert (tmp_path / "out/usr/share/a.gz").read_bytes() == b"abc"
    archive.write_bytes(deb(b"", "nothing"))
    with pytest.raises(ValueError, match=r"no data\.tar"):
        unpack(archive, ["*"], tmp_path / "out")


def test_names_that_leave_the_folder_are_refused(tmp_path: Path) -> None:
    archive = tmp_path / "made-up-1.0.tgz"
    archive.write_bytes(tarball({"../escaped": b"1"}))
    with pytest.raises(tarfile.TarError):
        unpack(archive, ["*"], tmp_path / "out")
    assert not (tmp_path / "escaped").exists()


@pytest.mark.parametrize(
    ("kind", "suffix", "words"),
    [
        ("npm", "tgz", ["npm", "pack", "--silent", "made-up@1.0"]),
        ("deb", "deb", ["apt-get", "download", "--quiet", "made-up=1.0"]),
    ],
)
def test_fetched_by_the_tool_of_its_kind(
    kind: Any, suffix: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = tarball({"package/a": b"1"}) if kind == "npm" else deb(tarball({"./package/a": b"1"}, "w:xz"))

    def fetch(command: list[str], *, cwd: Path, **options: Any) -> Any:
        assert command == words
        (cwd / f"made-up.{suffix}").write_bytes(content)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setenv("ONNXCOMPRESS_ZOO", str(tmp_path))
    monkeypatch.setattr(subprocess, "run", fetch)
    folder = unpacked(Package("made-up", "1.0", hashlib.sha256(content).hexdigest(), ("package/*",), kind))
    assert (folder / "package/a").read_bytes() == b"1"


def test_tool_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNXCOMPRESS_ZOO", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ZooError, match=r"npm, which fetches made-up==1\.0, cannot be run"):
        unpacked(Package("made-up", "1.0", "0" * 64, ("*",), "npm"))
