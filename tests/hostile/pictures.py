"""Image files: cut off, of other kinds under an image's name, and pixels without measure."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.hostile import Bad

UNREADABLE = "not a readable image"


def pictures() -> Iterator[Bad]:
    def alone(name: str, file: str, data: bytes, error: str = UNREADABLE) -> Bad:
        def write(folder: Path) -> Path:
            (folder / "pictures").mkdir()
            (folder / "pictures" / file).write_bytes(data)
            return folder / "pictures"

        return Bad(f"picture: {name}", write, error)

    for kind in ("png", "jpeg", "bmp", "gif", "tiff", "webp"):
        data = encoded(kind)
        for share in (0, 1, 3):
            yield alone(f"{kind} cut to {share}/8", f"p.{kind}", data[: len(data) * share // 8])
    for name, data in {
        "text": b"hello",
        "zeros": bytes(1000),
        "html": b"<svg></svg>",
        "an archive": b"PK\x03\x04" * 20,
    }.items():
        yield alone(name, "p.png", data)
    yield alone("10^10 pixels", "p.png", png(100_000, 100_000, b""))
    yield alone("2^31 pixels wide", "p.png", png(2**31 - 1, 1, b""))
    yield alone("no pixels", "p.png", png(0, 0, b""))
    yield alone("pixels that never come", "p.png", png(3000, 3000, b""))
    yield alone("damaged pixels", "p.png", png(64, 64, b"\xff" * 90))
    yield alone("other files only", "p.txt", b"hello", r"neither \.npz files nor images")
    yield Bad("picture: a folder under an image's name", _folder, UNREADABLE)
    yield Bad("picture: a link to nothing", _link, UNREADABLE)


def encoded(kind: str) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def png(width: int, height: int, pixels: bytes) -> bytes:
    """A PNG of grey pixels with one's own sizes; `pixels` as they are stored."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _folder(folder: Path) -> Path:
    (folder / "pictures" / "p.png").mkdir(parents=True)
    return folder / "pictures"


def _link(folder: Path) -> Path:
    (folder / "pictures").mkdir()
    (folder / "pictures" / "p.png").symlink_to("absent")
    return folder / "pictures"


BAD_PICTURES = list(pictures())
