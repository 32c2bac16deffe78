"""Tensors as stored: the bytes that are there against the shape that is claimed, and where external ones lie."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
import onnx_ir as ir

_FIELDS = {
    ir.DataType.STRING: "string_data",
    ir.DataType.FLOAT: "float_data",
    ir.DataType.COMPLEX64: "float_data",
    ir.DataType.DOUBLE: "double_data",
    ir.DataType.COMPLEX128: "double_data",
    ir.DataType.INT64: "int64_data",
    ir.DataType.UINT32: "uint64_data",
    ir.DataType.UINT64: "uint64_data",
}
"""Where a tensor without raw bytes keeps its elements; all other types are in int32_data."""

MOST_RANK = 64


def check_tensor(tensor: onnx.TensorProto, folder: Path) -> None:
    """Does a tensor hold exactly the elements that its shape claims?

    Raises:
        ValueError: it does not, its type is none, or its external data is not a file beside the model that holds it.
    """
    name = f"tensor {tensor.name!r}"
    try:
        dtype = ir.DataType(tensor.data_type)
    except ValueError:
        raise ValueError(f"{name} has the type {tensor.data_type}, which is none") from None
    if len(tensor.dims) > MOST_RANK or any(dim < 0 for dim in tensor.dims):
        raise ValueError(f"{name} has the shape {list(tensor.dims)[:8]}, which is none")
    count = math.prod(tensor.dims)
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        _check_external(tensor, _bytes(count, dtype), folder, name)
        return
    if dtype is ir.DataType.UNDEFINED and count and tensor.dims:
        raise ValueError(f"{name} has no type")
    if tensor.HasField("raw_data"):
        wanted, found, unit = _bytes(count, dtype), len(tensor.raw_data), "bytes"
    else:
        wanted, found, unit = _elements(count, dtype, tensor), len(_field(tensor, dtype)), "elements"
    if wanted != found:
        raise ValueError(f"{name} is {list(tensor.dims)} of {dtype.name}, {wanted} {unit}, and holds {found}")


def check_sparse(sparse: onnx.SparseTensorProto, folder: Path) -> None:
    """`check_tensor` for the two parts of a sparse tensor, whose shape must be one.

    Raises:
        ValueError: it is not sound.
    """
    if any(dim < 0 for dim in sparse.dims):
        raise ValueError(f"sparse tensor {sparse.values.name!r} has the shape {list(sparse.dims)[:8]}, which is none")
    check_tensor(sparse.values, folder)
    check_tensor(sparse.indices, folder)


def _bytes(count: int, dtype: ir.DataType) -> int:
    if dtype in (ir.DataType.STRING, ir.DataType.UNDEFINED):
        return 0
    return -(-count * dtype.bitwidth // 8)


def _elements(count: int, dtype: ir.DataType, tensor: onnx.TensorProto) -> int:
    """Entries of the typed field: complex numbers take two, and types below a byte share one."""
    if dtype is ir.DataType.UNDEFINED:
        return 0
    if dtype in (ir.DataType.COMPLEX64, ir.DataType.COMPLEX128):
        return 2 * count
    if dtype is not ir.DataType.STRING and dtype.bitwidth < 8:
        return -(-count * dtype.bitwidth // 8)
    return count


def _field(tensor: onnx.TensorProto, dtype: ir.DataType) -> Sequence[object]:
    field: Sequence[object] = getattr(tensor, _FIELDS.get(dtype, "int32_data"))
    return field


def _check_external(tensor: onnx.TensorProto, wanted: int, folder: Path, name: str) -> None:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    path = external_path(folder, entries.get("location", ""), name)
    try:
        offset = int(entries.get("offset", "0"))
        length = int(entries.get("length", str(wanted)))
    except ValueError:
        raise ValueError(f"{name}: the offset or length of its external data is no number") from None
    if offset < 0 or length != wanted:
        raise ValueError(f"{name}: {length} bytes of external data at {offset}, where its shape takes {wanted}")
    size = path.stat().st_size
    if offset + length > size:
        raise ValueError(f"{name}: its external data ends at {offset + length}, {path.name} at {size}")


def external_path(folder: Path, location: str, name: str) -> Path:
    """The file of external data, which must be a plain file in the model's folder or below it.

    Raises:
        ValueError: the location is absolute, climbs out of the folder, goes through a symbolic link, or is no file.
    """
    posix, windows = PurePosixPath(location), PureWindowsPath(location)
    if not location or "\0" in location:
        raise ValueError(f"{name}: its external data has no location")
    if posix.is_absolute() or windows.drive or windows.root:
        raise ValueError(f"{name}: its external data is at the absolute path {location}, not beside the model")
    if ".." in posix.parts or ".." in windows.parts:
        raise ValueError(f"{name}: its external data is at {location}, which climbs out of the model's folder")
    path = folder
    try:
        for part in posix.parts:
            path = path / part
            if path.is_symlink():
                raise ValueError(f"{name}: its external data {location} goes through a symbolic link; copy the file")
        plain = path.is_file()
    except OSError:  # a name that is too long
        plain = False
    if not plain:
        raise ValueError(f"its external data {location} is missing from {os.fspath(folder)}")
    return path
