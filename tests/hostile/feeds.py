"""Data files: archives that are none, arrays that are pickled, cut off, of another kind, or unpack without end."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.hostile import Bad, content

UNREADABLE = r"not a readable \.npz"
SHAPE = (1, 3, 16, 16)


def npy(array: np.ndarray[Any, Any]) -> bytes:
    """An array as the bytes of a .npy file."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def header(text: str, data: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    """A .npy file with a header of one's own."""
    length = len(text).to_bytes(2 if version == (1, 0) else 4, "little")
    return b"\x93NUMPY" + bytes(version) + length + text.encode() + data


def archive(name: str, members: Mapping[str, bytes], error: str, compression: int = zipfile.ZIP_DEFLATED) -> Bad:
    def write(folder: Path) -> Path:
        with zipfile.ZipFile(folder / "d.npz", "w", compression) as stream:
            for member, data in members.items():
                stream.writestr(member, data)
        return folder / "d.npz"

    return Bad(f"npz: {name}", write, error)


class Exploit:
    """Makes a file where it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return open, (self.path, "w")


def broken_archives() -> Iterator[Bad]:
    whole = io.BytesIO()
    np.savez_compressed(whole, x=np.random.default_rng(0).normal(size=SHAPE).astype(np.float32))
    data = whole.getvalue()
    for share in range(20):
        yield content(f"npz cut to {share}/20", "d.npz", data[: len(data) * share // 20], UNREADABLE)
    for name, text in {
        "text": b"x = 1",
        "npy": npy(np.zeros(SHAPE, np.float32)),
        "pickle": pickle.dumps({"x": 1}),
    }.items():
        yield content(f"npz: {name}", "d.npz", text, UNREADABLE)
    for place in range(0, 40, 4):
        yield content(f"npz with byte {place} of its data turned", "d.npz", turned(data, 100 + place), UNREADABLE)
    encrypted = bytearray(data)
    encrypted[6] |= 1
    encrypted[data.rindex(b"PK\x01\x02") + 8] |= 1
    yield content("npz: encrypted", "d.npz", bytes(encrypted), UNREADABLE)
    yield Bad("npz: a folder", lambda folder: _folder(folder / "d.npz"), "neither .npz files nor images")
    yield Bad("npz: absent", lambda folder: folder / "d.npz", "no such file")
    yield Bad("npz: a device", lambda folder: Path("/dev/zero"), "not data|no such file")


def turned(data: bytes, place: int) -> bytes:
    changed = bytearray(data)
    changed[place] ^= 0xFF
    return bytes(changed)


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def arrays() -> Iterator[Bad]:
    right = npy(np.zeros(SHAPE, np.float32))
    yield archive("no arrays", {}, "has no array 'x' .it has nothing")
    yield archive("other arrays", {"a.npy": right, "b.npy": right}, "has no array 'x' .it has a, b")
    yield archive("an empty member", {"x.npy": b""}, UNREADABLE)
    yield archive("a wrong magic", {"x.npy": b"\x93NUMPX" + right[6:]}, UNREADABLE)
    for version in ((0, 0), (9, 9), (255, 255)):
        yield archive(f"version {version}", {"x.npy": right[:6] + bytes(version) + right[8:]}, UNREADABLE)
    for cut in (1, 5, 7, 9, 30, 100, 128, 129, 1000, len(right) - 1):
        yield archive(f"cut after {cut} bytes", {"x.npy": right[:cut]}, UNREADABLE)
    for name, dims in {
        "2^62 elements": (2**62,),
        "2^40 elements": (2**40,),
        "overflow": (2**32, 2**32),
        "negative": (-1, 3, 16, 16),
        "more than there is": (1, 3, 16, 17),
        "2^63": (2**63,),
        "text for a shape": "abc",
        "a float": (1.5,),
    }.items():
        yield archive(
            f"shape {name}", {"x.npy": header(str({"descr": "<f4", "fortran_order": False, "shape": dims}))}, UNREADABLE
        )
    for name, text in {
        "no header": "",
        "code": "__import__('os').system('true')",
        "a list": "[]",
        "no shape": "{'descr': '<f4'}",
        "deep": "(" * 5000,
        "long": "{'descr': '<f4', " + " " * 60000 + "}",
        "NUL": "\0" * 60,
        "huge type": "{'descr': '<f999', 'fortran_order': False, 'shape': ()}",
        "no type": "{'descr': None, 'fortran_order': 2, 'shape': ()}",
    }.items():
        yield archive(f"header: {name}", {"x.npy": header(text)}, UNREADABLE)
    fields = np.zeros(3, [("a", "<f4"), ("b", "<i8")])
    for name, array, error in (
        ("float64", np.zeros(SHAPE), "is float64, the model takes float32"),
        ("int32", np.zeros(SHAPE, np.int32), "is int32, the model takes"),
        ("bool", np.zeros(SHAPE, bool), "is bool"),
        ("complex", np.zeros(SHAPE, np.complex64), "is complex64"),
        ("text", np.array(["a"]), "is <U1"),
        ("bytes", np.array([b"a"]), "is .S1"),
        ("times", np.zeros(SHAPE, "M8[s]"), "is datetime64"),
        ("fields", fields, r"is \[\('a'"),
        ("big-endian", np.zeros(SHAPE, ">f4"), "is >f4"),
        ("void", np.zeros(3, "V8"), r"is \|V8"),
        ("rank 3", np.zeros(SHAPE[1:], np.float32), "has shape"),
        ("rank 0", np.zeros((), np.float32), "has shape"),
        ("rank 9", np.zeros((1,) * 9, np.float32), "has shape"),
        ("another size", np.zeros((1, 3, 16, 15), np.float32), "has shape"),
        ("another channel", np.zeros((1, 4, 16, 16), np.float32), "has shape"),
    ):
        yield archive(f"an array of {name}", {"x.npy": npy(array)}, error)


def pickles() -> Iterator[Bad]:
    def exploit(folder: Path) -> Path:
        array = np.array([Exploit(str(folder / "owned"))], object)
        with zipfile.ZipFile(folder / "d.npz", "w") as stream:
            stream.writestr("x.npy", npy(array))
        return folder / "d.npz"

    yield Bad("npz: an exploit", exploit, "is pickled; save plain arrays")
    yield archive("objects", {"x.npy": npy(np.array([{}, []], object))}, "is pickled")
    yield archive("objects in fields", {"x.npy": npy(np.zeros(2, [("a", object)]))}, "is pickled|not a readable")


def bombs() -> Iterator[Bad]:
    def bomb(gigabytes: int) -> Callable[[Path], Path]:
        def write(folder: Path) -> Path:
            shape = (gigabytes << 18, 1, 32, 32)
            path = folder / "d.npz"
            with (
                zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
                archive.open("x.npy", "w", force_zip64=True) as stream,
            ):
                stream.write(header(str({"descr": "<f4", "fortran_order": False, "shape": shape})))
                for _ in range(gigabytes << 4):
                    stream.write(bytes(1 << 26))
            return path

        return write

    yield Bad("npz: a bomb of 1 GB", bomb(1), "unpacks from .* save it uncompressed")


BAD_FEEDS = [*broken_archives(), *arrays(), *pickles(), *bombs()]
