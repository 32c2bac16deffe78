"""Reading and writing models: protobuf is met only here.

Large models stay mapped on disk: tensors are read one at a time and let go of, so memory does not grow
with the file. Nothing is half-written: a file appears whole under its name, or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import onnx
import onnx_ir as ir

from onnxcompress.errors import ModelError, first_line
from onnxcompress.files import check_folder, publish, same_file, staging
from onnxcompress.soundness import check_proto
from onnxcompress.soundness.nodes import all_graphs

EXTERNAL_DATA_THRESHOLD = 1 << 30
"""Models whose tensors hold more bytes than this are written with external data (protobuf ends at 2 GB)."""

DIGEST_DIGITS = 8
"""Of the SHA-256 of external data, in its name."""

STREAMED_THRESHOLD = 1 << 28
"""The same for models with tensors outside memory: one file would need them in memory twice, as protobuf and
as bytes."""

Source = str | os.PathLike[str] | ir.Model


def load_model(source: Source) -> ir.Model:
    """Read a model and check that it is sound. External data stays on disk until a tensor is looked at.

    Args:
        source: a path, or a model, which is given back as it is.

    Raises:
        ModelError: no such file, not an ONNX model, or not a sound one (see `onnxcompress.soundness`).
    """
    if isinstance(source, ir.Model):
        return source
    path = check_file(source)
    try:
        proto = onnx.load(path, load_external_data=False)
    except Exception as error:  # the protobuf and text layers raise many kinds
        raise ModelError(f"{path}: not a readable ONNX model ({first_line(error)})") from error
    try:
        ordered = check_proto(proto, path.parent)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not a sound ONNX model: {first_line(error)}") from error
    try:
        model = ir.from_proto(proto)
        ir.external_data.set_base_dir(model.graph, path.parent)
        if not ordered:
            for graph in model.graphs():
                graph.sort()
    except Exception as error:
        raise ModelError(f"{path}: not a readable ONNX model ({first_line(error)})") from error
    return model


def check_file(path: str | os.PathLike[str]) -> Path:
    """The path of a model, if there is a plain file.

    Raises:
        ModelError: there is none.
    """
    try:
        found = Path(path)
        if found.is_file():
            return found
        raise ModelError(f"{path}: {'not a plain file' if found.exists() else 'no such file'}")
    except (OSError, ValueError) as error:  # too long a name, or a NUL in it
        raise ModelError(f"{os.fspath(path)!r:.200}: not the name of a file") from error


def clone_model(source: Source) -> ir.Model:
    """A model that may be changed: read from the path, or a copy of the model given (tensors are shared)."""
    return source.clone() if isinstance(source, ir.Model) else load_model(source)


def check_output(
    source: Source,
    output: str | os.PathLike[str],
    *,
    in_place: bool = False,
    others: Iterable[str | os.PathLike[str]] = (),
) -> None:
    """Refuse a place to write to before any work is done for it.

    Args:
        source: the model that is read; its file, never its external data, is written over where `in_place` says so.
        others: what else is read: data, ranges, a recipe.

    Raises:
        ModelError: the folder is missing or closed, or the output is a folder, or what is read.
    """
    check_folder(output)
    if not os.path.exists(output):
        return
    for file in others:
        if same_file(file, output):
            raise ModelError(f"{output}: is read as well; give another path")
    if isinstance(source, ir.Model):
        return
    if same_file(source, output) and not in_place:
        raise ModelError(f"{output}: is the original model; give another path, or --in-place to replace it")
    for file in external_files(source):
        if same_file(file, output):
            raise ModelError(f"{output}: holds the original model's data; give another path")


def save_model(
    model: ir.Model,
    path: str | os.PathLike[str],
    *,
    external_data: bool | None = None,
    verify: Callable[[Path], None] | None = None,
) -> None:
    """Write a model whole: into a temporary folder beside `path`, then renamed.

    External data goes to `<name>.<digest>.data` beside the model, a name of its own for each content: whatever
    happens, the model under `path` is the old one with its data or the new one with its data.

    Args:
        model: unchanged by the call.
        path: where to write; missing folders are an error.
        external_data: tensors outside the model's file; None: when they exceed 1 GB, or 256 MB where some are not in
            memory (external, or made when they are looked at).
        verify: called with the written file before it gets its name; where it raises, nothing is left.

    Raises:
        ModelError: the folder is missing or cannot be written.
    """
    path = Path(path)
    check_folder(path)
    if external_data is None:
        limit = STREAMED_THRESHOLD if _is_streamed(model) else EXTERNAL_DATA_THRESHOLD
        external_data = initializer_bytes(model) > limit
    try:
        with staging(path) as folder:
            written = folder / path.name
            if external_data:
                _write_external(model, written)
            else:
                onnx.save(_to_proto(_with_internal_data(model)), written, format="protobuf")
            if verify is not None:
                verify(written)
            publish_model(written, path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be written ({error.strerror or error})") from error


def publish_model(written: Path, target: Path) -> None:
    """Move a finished model to its name: its external data first, so that the model's own rename is what counts.

    Data that only an earlier model of that name used, and that `save_model` wrote, goes at the end.

    Raises:
        OSError: it cannot be moved.
    """
    kept = set()
    for data in external_files(written):
        publish(data, target.parent / data.name)
        kept.add(data.name)
    publish(written, target)
    for data in _data_files(target):
        if data.name not in kept:
            data.unlink(missing_ok=True)


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


def external_files(path: str | os.PathLike[str]) -> list[Path]:
    """The files of external data that a model names, in order of their names.

    Raises:
        ModelError: as `load_model`.
    """
    return sorted({Path(tensor.path) for tensor in external_tensors(load_model(path))})


def file_bytes(path: str | os.PathLike[str]) -> int:
    """Bytes on disk of a model file and of the external data files it names."""
    return Path(path).stat().st_size + sum(file.stat().st_size for file in external_files(path))


def digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a model file and, in name order, of its external data."""
    total = hashlib.sha256()
    for file in [Path(path), *external_files(path)]:
        with open(file, "rb") as stream:
            while chunk := stream.read(1 << 20):
                total.update(chunk)
    return total.hexdigest()


def _write_external(model: ir.Model, path: Path) -> None:
    """Write a model with its tensors in `<name>.<digest>.data`: as another name first, which is not known before."""
    unnamed = path.with_name(f"{path.name}.data")
    ir.save(model, path, external_data=unnamed.name, callback=_Release())
    if not unnamed.exists():
        return
    with open(unnamed, "rb") as stream:
        named = path.with_name(f"{path.name}.{hashlib.file_digest(stream, 'sha256').hexdigest()[:DIGEST_DIGITS]}.data")
    proto = onnx.load(path, load_external_data=False)
    for graph in all_graphs(proto):
        for tensor in graph.initializer if isinstance(graph, onnx.GraphProto) else ():
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = named.name
    os.replace(unnamed, named)
    onnx.save(_told_once(proto), path, format="protobuf")


def _data_files(path: Path) -> list[Path]:
    """Files of external data that `save_model` wrote for a model of that name."""
    pattern = re.compile(re.escape(path.name) + rf"\.[0-9a-f]{{{DIGEST_DIGITS}}}\.data")
    return [file for file in path.parent.iterdir() if pattern.fullmatch(file.name)]


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
    return _told_once(ir.to_proto(model))


def _told_once(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model without what it would say twice: an initializer tells its own type and shape."""
    told = {tensor.name for tensor in proto.graph.initializer}
    kept = [info for info in proto.graph.value_info if info.name not in told]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(kept)
    return proto
