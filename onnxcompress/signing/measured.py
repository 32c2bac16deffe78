"""A model as it is on disk: read once, hashed, and asked for the files it needs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx

from onnxcompress.errors import ModelError, SignatureError, first_line
from onnxcompress.lineage import RECIPE, SOURCE
from onnxcompress.soundness.nodes import all_graphs, attribute_tensors
from onnxcompress.soundness.tensors import external_path

ALONE = "."
"""Name of a model without external data in a manifest."""

Stamp = tuple[int, int, int, int, int]


@dataclass(frozen=True)
class Signed:
    """What a signature vouches for.

    Attributes:
        model, signature: the two files.
        files: SHA-256 of the model file and its external data files, by path relative to the model's folder.
        source: SHA-256 of the model that this one was compressed from, as its metadata says; None: it says nothing.
        has_recipe: does it carry the recipe that made it?
    """

    model: Path
    signature: Path
    files: Mapping[str, str]
    source: str | None
    has_recipe: bool

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "schema": 1, "model": str(self.model), "signature": str(self.signature), "files": dict(self.files),
            "source": self.source, "has_recipe": self.has_recipe,
        }  # fmt: skip


@dataclass
class Measured:
    """A model file as it was read, and its external data files as they were when they were hashed.

    Attributes:
        path: the model file.
        content: its bytes, read once: what is checked is what is handed on.
        digests: SHA-256 of what was hashed, by name in the manifest.
        stamps: device, inode, size and times of each file, taken before it was read.
    """

    path: Path
    content: bytes
    digests: dict[str, str] = field(default_factory=dict)
    stamps: dict[Path, Stamp] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Measured:
        """Read the model file.

        Raises:
            ModelError: it cannot be read.
        """
        if not path.is_file():
            raise ModelError(f"{path}: no such file")
        try:
            with open(path, "rb") as stream:
                stamp = _stamp(os.fstat(stream.fileno()))
                return cls(path, stream.read(), stamps={path: stamp})
        except OSError as error:
            raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error

    def add(self, names: Iterable[str]) -> None:
        """Hash the model (by its name, or ".") and external data files.

        Raises:
            ModelError: a file is missing, not in the model's folder or below, behind a symbolic link, or closed.
        """
        for name in names:
            if name in (ALONE, self.path.name):
                self.digests[name] = hashlib.sha256(self.content).hexdigest()
                continue
            try:
                file = external_path(self.path.parent, name, str(self.path))
                with open(file, "rb") as stream:
                    self.stamps[file] = _stamp(os.fstat(stream.fileno()))
                    self.digests[name] = hashlib.file_digest(stream, "sha256").hexdigest()
            except ValueError as error:
                raise ModelError(f"{self.path}: {str(error).removeprefix(f'{self.path}: ')}") from error
            except OSError as error:
                raise ModelError(f"{self.path.parent / name}: cannot be read ({error.strerror or error})") from error

    def parsed(self) -> onnx.ModelProto:
        """The model.

        Raises:
            ModelError: it is none.
        """
        try:
            proto: onnx.ModelProto = onnx.ModelProto.FromString(self.content)
        except Exception as error:  # protobuf's own classes
            raise ModelError(f"{self.path}: not a readable ONNX model ({first_line(error)})") from error
        if not proto.graph.output:
            raise ModelError(f"{self.path}: not an ONNX model (its graph has no outputs)")
        return proto

    def external_names(self, proto: onnx.ModelProto) -> set[str]:
        """Every file that a tensor anywhere in the model names, relative to its folder.

        Raises:
            ModelError: one is not in that folder or below, or is the model file itself.
        """
        names = set()
        for tensor in _tensors(proto):
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
                try:
                    file = external_path(self.path.parent, location, f"tensor {tensor.name!r}")
                except ValueError as error:
                    raise ModelError(f"{self.path}: {error}") from error
                if file == self.path:
                    raise ModelError(f"{self.path}: tensor {tensor.name!r} has its data in the model file itself")
                names.add(file.relative_to(self.path.parent).as_posix())
        return names

    def signed(self, signature: Path, proto: onnx.ModelProto) -> Signed:
        """What a signature of this vouches for."""
        facts = {entry.key: entry.value for entry in proto.metadata_props}
        files = {self.path.name if name == ALONE else name: digest for name, digest in self.digests.items()}
        return Signed(self.path, signature, files, facts.get(SOURCE), RECIPE in facts)

    @property
    def is_alone(self) -> bool:
        """Is `content` all there is, without external data?"""
        return len(self.stamps) == 1

    def check_unchanged(self) -> None:
        """Have the files stayed what was read?

        Raises:
            SignatureError: one was replaced or written to since.
        """
        for path, stamp in self.stamps.items():
            if not path.is_file() or _stamp(path.stat()) != stamp:
                raise SignatureError(f"{path}: was changed while the model was opened; refused")


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    for graph in all_graphs(proto):
        if isinstance(graph, onnx.GraphProto):
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
        for node in graph.node:
            yield from attribute_tensors(node)
