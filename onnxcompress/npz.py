"""`.npz` files from strangers: only what is asked for is read, nothing is unpickled, and bombs are not unpacked."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Set
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from onnxcompress.errors import DataError, first_line

Array = np.ndarray[Any, Any]

BOMB_BYTES = 1 << 28
BOMB_RATIO = 200
"""An array of more than BOMB_BYTES that is BOMB_RATIO times as large as the file stores it is not data but a bomb."""


def read_npz(path: Path, wanted: Set[str]) -> dict[str, Array]:
    """The arrays of a `.npz` whose names are wanted.

    Raises:
        DataError: no such file, not a zip of arrays, one that is wanted is not in it, pickled, cut off, or unpacks
            beyond measure.
    """
    if not os.path.isfile(path):
        raise DataError(f"{path}: no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            missing = sorted(wanted - members.keys())
            if missing:
                raise DataError(f"{path}: has no array {missing[0]!r} (it has {', '.join(members) or 'nothing'})")
            return {name: _read(archive, members[name]) for name in members if name in wanted}
    except DataError:
        raise
    except Exception as error:  # zip files and headers of any content: many kinds
        raise DataError(f"{path}: not a readable .npz ({first_line(error)})") from error


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    with archive.open(member) as stream:
        shape, dtype = _header(stream)
        size = math.prod(shape) * dtype.itemsize
        if dtype.hasobject:
            raise ValueError(f"{member.filename} is pickled; save plain arrays")
        if any(dim < 0 for dim in shape) or size > member.file_size:
            raise ValueError(f"{member.filename} is {shape} of {dtype}, and ends after {member.file_size} bytes")
        if size > BOMB_BYTES and size > BOMB_RATIO * member.compress_size:
            packed = member.compress_size
            raise ValueError(f"{member.filename} unpacks from {packed} bytes to {size}: save it uncompressed")
    with archive.open(member) as stream:
        array: Array = npy.read_array(stream, allow_pickle=False)
        return array


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(stream)
    return shape, dtype
