"""Reading and writing models: protobuf is met only here.

Large models stay mapped on disk: tensors are read one at a time and let go of, so memory does not grow
with the file. Nothing is half-written: a file appears whole under its name, or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import onnx_ir as ir

from onnxcompress.errors import ModelError, first_line

EXTERNAL_DATA_THRESHOLD = 1 << 30
"""Models whose tensors hold more bytes than this are written with external data (protobuf ends at 2 GB)."""

STREAMED_THRESHOLD = 1 << 28
"""The same for models with tensors outside memory: one file would need them in memory twice, as protobuf and
as bytes."""

Source = str | os.PathLike[str] | ir.Model


def load_model(source: Source) -> ir.Model:
    """Read a model. External data stays on disk until a tensor is looked at.

    Args:
        source: a path, or a model, which is given back as it is.

    Raises:
        ModelError: no such file, not an ONNX model, or its external data is missing.
    """
    if isinstance(source, ir.Model):
        return source
    path = Path(source)
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    try:
        model = ir.load(path)
    except Exception as error:  # the protobuf and serde layers raise many kinds
        raise ModelError(f"{path}: not a readable ONNX model ({first_line(error)})") from error
    if not model.graph.outputs:
        raise ModelError(f"{path}: not an ONNX model (its graph has no outputs)")
    for tensor in external_tensors(model):
        if not Path(tensor.path).is_file():
            raise ModelError(f"{path}: its external data {tensor.location} is missing from {path.parent}")
    return model


def clone_model(source: Source) -> ir.Model:
    """A model that may be changed: read from the path, or a copy of the model given (tensors are shared)."""
    return source.clone() if isinstance(source, ir.Model) else load_model(source)


def check_folder(path: str | os.PathLike[str]) -> None:
    """Refuse a path to write to whose folder is not there: before any work is done for it.

    Raises:
        ModelError: no such folder.
    """
    folder = Path(path).parent
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such folder; make it first")


def save_model(
    model: ir.Model,
    path: str | os.PathLike[str],
    *,
    external_data: bool | None = None,
    verify: Callable[[Path], None] | None = None,
) -> None:
    """Write a model whole: into a temporary file beside `path`, then renamed.

    Args:
        model: unchanged by the call.
        path: where to write; missing folders are an error.
        external_data: tensors into `<name>.data` beside the model; None: when they exceed 1 GB, or 256 MB where
            some are not in memory (external, or made when they are looked at).
        verify: called with the written file before it gets its name; where it raises, nothing is left.

    Raises:
        ModelError: the folder is missing or cannot be written.
    """
    path = Path(path)
    check_folder(path)
    if external_data is None:
        limit = STREAMED_THRESHOLD if _is_streamed(model) else EXTERNAL_DATA_THRESHOLD
        external_data = initializer_bytes(model) > limit
    # The temporary folder lies beside the target, so that the renames stay within one file system.
    try:
        with tempfile.TemporaryDirectory(prefix=".onnxcompress-", dir=path.parent) as folder:
            written = Path(folder) / path.name
            if external_data:
                ir.save(model, written, external_data=f"{path.name}.data", callback=_Release())
            else:
                onnx.save(_to_proto(_with_internal_data(model)), written, format="protobuf")
            if verify is not None:
                verify(written)
            if external_data:
                os.replace(f"{written}.data", f"{path}.data")
            os.replace(written, path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be written ({error.strerror or error})") from error


@contextlib.contextmanager
def saved_model(source: Source) -> Iterator[Path]:
    """The path of a model: its own, or that of a temporary copy that lives as long as the context."""
    if not isinstance(source, ir.Model):
        yield Path(source)
        return
    with tempfile.TemporaryDirectory(prefix="onnxcompress-") as folder:
        path = Path(folder) / "model.onnx"
        save_model(source, path)
        yield path


def external_tensors(model: ir.Model) -> Iterator[ir.ExternalTensor]:
    """Every initializer of the model (subgraphs included) that is stored outside its file."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                yield value.const_value


def initializer_bytes(model: ir.Model) -> int:
    """Bytes of all initializers, subgraphs included."""
    return sum(
        value.const_value.nbytes
        for graph in model.graphs()
        for value in graph.initializers.values()
        if value.const_value is not None
    )


def file_bytes(path: str | os.PathLike[str]) -> int:
    """Bytes on disk of a model file and of the external data files it names."""
    path = Path(path)
    others = {Path(tensor.path).resolve() for tensor in external_tensors(ir.load(path))}
    return path.stat().st_size + sum(other.stat().st_size for other in others)


def digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a model file and, in name order, of its external data."""
    path = Path(path)
    total = hashlib.sha256()
    others = sorted({Path(tensor.path).resolve() for tensor in external_tensors(ir.load(path))})
    for file in [path, *others]:
        with open(file, "rb") as stream:
            while chunk := stream.read(1 << 20):
                total.update(chunk)
    return total.hexdigest()


class _Release:
    """Callback of `ir.save`: unmaps each external tensor once the next one is written."""

    def __init__(self) -> None:
        self.last: ir.TensorProtocol | None = None

    def __call__(self, tensor: ir.TensorProtocol, info: object) -> None:
        if isinstance(self.last, ir.ExternalTensor):
            self.last.release()
        self.last = tensor


def _is_streamed(model: ir.Model) -> bool:
    return any(
        isinstance(value.const_value, (ir.ExternalTensor, ir.LazyTensor))
        for graph in model.graphs()
        for value in graph.initializers.values()
    )


def _with_internal_data(model: ir.Model) -> ir.Model:
    if not any(True for _ in external_tensors(model)):
        return model
    return ir.external_data.load_to_model(model.clone())


def _to_proto(model: ir.Model) -> onnx.ModelProto:
    """The model as protobuf, without what it would say twice: an initializer tells its own type and shape."""
    proto = ir.to_proto(model)
    told = {tensor.name for tensor in proto.graph.initializer}
    kept = [info for info in proto.graph.value_info if info.name not in told]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(kept)
    return proto
