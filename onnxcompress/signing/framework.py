"""model-signing, imported where it is used: it comes with an extra."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from onnxcompress.errors import CompressError, SignatureError, first_line

if TYPE_CHECKING:
    from model_signing.manifest import Manifest

ROOT = PurePosixPath("model")
"""Stands for the model's folder while manifests are made and compared: model-signing never opens a file itself."""


def configurations() -> tuple[Any, Any]:
    """A new configuration of model-signing to sign with, and one to verify with.

    Raises:
        SignatureError: model-signing, or something it needs, is not installed.
    """
    try:
        from model_signing import signing, verifying

        return signing.Config(), verifying.Config()  # type: ignore[no-untyped-call]
    except ImportError as error:
        raise SignatureError(f"signatures need model-signing ({error}): pip install 'onnxcompress[sign]'") from error


def manifest_of(model_name: str, digests: Mapping[str, str]) -> Manifest:
    """The manifest of files whose SHA-256 is known, by path relative to the model's folder."""
    from model_signing import manifest
    from model_signing._hashing.hashing import Digest

    items = [
        manifest.FileManifestItem(path=PurePosixPath(name), digest=Digest("sha256", bytes.fromhex(digest)))
        for name, digest in digests.items()
    ]
    kind = {"method": "files", "hash_type": "sha256", "allow_symlinks": False}
    return manifest.Manifest(model_name, items, manifest.SerializationType.from_args(kind))


class Hashing:
    """Takes the place of a `model_signing.hashing.Config`, which would open and hash files by the names in a signature.

    Args:
        measure: given the names in a signature, relative to the model's folder (none while signing), gives the
            manifest of what is there.
    """

    def __init__(self, measure: Callable[[Sequence[str]], Manifest]) -> None:
        self.measure = measure

    def add_ignored_paths(self, *, model_path: object, paths: Iterable[object]) -> None:
        """Nothing is ignored: only what is named is looked at."""

    def hash(self, model_path: PurePosixPath, *, files_to_hash: Iterable[PurePosixPath] | None = None) -> Manifest:
        """What model-signing calls: while verifying, after it found the signature valid."""
        files = files_to_hash or ()
        return self.measure(
            [str(file.relative_to(model_path) if file.is_relative_to(model_path) else file) for file in files]
        )


@contextlib.contextmanager
def refusals(what: str) -> Iterator[None]:
    """Errors of model-signing, and of what it is built on, as one line that begins with `what`."""
    try:
        yield
    except CompressError:
        raise
    except Exception as error:  # they are of many kinds
        raise SignatureError(f"{what}: {first_line(error)}") from error
