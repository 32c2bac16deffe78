"""Signature files: Sigstore bundles, as they say of themselves."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onnxcompress.errors import CompressError, SignatureError
from onnxcompress.files import read_text

BUNDLE_LIMIT = 1 << 24
"""Bytes of the largest signature that is read: one over a thousand external data files takes less than 1 MB."""


@dataclass(frozen=True)
class Bundle:
    """A signature file: what it claims, to be believed only once model-signing has verified it.

    Attributes:
        path: the file.
        text: its content, read once.
        kind: what signed: key | certificate | identity.
        digests: of the signed files, by name.
    """

    path: Path
    text: str
    kind: str
    digests: Mapping[str, str]

    @classmethod
    def read(cls, path: Path) -> Bundle:
        """Read a signature file.

        Raises:
            SignatureError: it is not there, or none.
        """
        if not path.exists():
            raise SignatureError(f"{path}: no such signature; make one with 'onnxcompress sign', or name where it is")
        try:
            text = read_text(path, most=BUNDLE_LIMIT)
        except CompressError as error:
            raise SignatureError(f"not a signature: {error}") from error
        try:
            document = json.loads(text)
            kind = _kind(document["verificationMaterial"])
            payload = json.loads(base64.b64decode(document["dsseEnvelope"]["payload"]))
            resources = payload["predicate"]["resources"]
            digests = {str(resource["name"]): str(resource["digest"]) for resource in resources}
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise SignatureError(f"{path}: not a signature by model-signing 1.0 or later") from error
        return cls(path, text, kind, digests)

    def check_kind(self, kind: str) -> None:
        """Raise SignatureError if something else signed."""
        if self.kind != kind:
            raise SignatureError(f"{self.path}: signed with {self.kind}, not with {kind}: say whom to trust by that")


def default_path(model: Path, signature: str | os.PathLike[str] | None) -> Path:
    """Where a model's signature is: as it is said, or `<model>.sig`."""
    return Path(f"{model}.sig" if signature is None else signature)


def _kind(material: Mapping[str, Mapping[str, object]]) -> str:
    if "publicKey" in material:
        # Without the hint it is older than model-signing 1.0, which would print a warning among our output.
        if not isinstance(material["publicKey"]["hint"], str):
            raise TypeError("no hint")
        return "key"
    return "certificate" if "x509CertificateChain" in material else "identity"
