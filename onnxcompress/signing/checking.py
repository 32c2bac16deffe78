"""Checking a model against its signature."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from onnxcompress.errors import CompressError, SignatureError, first_line
from onnxcompress.signing.bundle import Bundle, default_path
from onnxcompress.signing.framework import ROOT, Hashing, configurations, manifest_of
from onnxcompress.signing.measured import ALONE, Measured, Signed
from onnxcompress.signing.trust import Trust

if TYPE_CHECKING:
    from model_signing.manifest import Manifest

PathLike = str | os.PathLike[str]


def check_signature(
    model_path: PathLike,
    signature: PathLike | None = None,
    *,
    public_key: PathLike | None = None,
    certificates: Sequence[PathLike] = (),
    identity: str | None = None,
    issuer: str | None = None,
) -> Signed:
    """Check that a model file and its external data are what was signed, and by whom.

    Args:
        model_path: the model file.
        signature: its signature; `<model>.sig` when None.
        public_key, certificates, identity, issuer: whom to trust, as in `Trust`.

    Returns:
        What the signature vouches for.

    Raises:
        SignatureError: no signature, not one of this model, by another key, or model or data were changed.
        ModelError: the model cannot be read, or its external data is missing or not beside it.
        ValueError: it was not said whom to trust, or in more than one way.
    """
    trust = Trust(public_key, certificates, identity, issuer)
    measured = verified(model_path, signature, trust)
    return measured.signed(default_path(Path(model_path), signature), measured.parsed())


def verified(model_path: PathLike, signature: PathLike | None, trust: Trust) -> Measured:
    """`check_signature`, which gives the model as it was read and found good.

    Nothing of the model is parsed, and no file is opened that the signature names, before the signature is found
    valid and, for parsing, the digests equal.
    """
    _, config = configurations()
    path = Path(model_path)
    bundle = Bundle.read(default_path(path, signature))
    bundle.check_kind(trust.kind)
    trust.configure(config)
    measured = _compared(config, bundle, path)
    data = measured.external_names(measured.parsed())
    names = set(measured.digests) - {ALONE, path.name}
    if unsigned := sorted(data - names):
        raise SignatureError(f"{path}: its external data {unsigned[0]} is not covered by {bundle.path}")
    if other := sorted(names - data):
        raise SignatureError(f"{bundle.path}: covers {other[0]}, which is no part of {path}: sign the model alone")
    return measured


def _compared(config: Any, bundle: Bundle, path: Path) -> Measured:
    """The model as it is on disk, found equal to what a valid signature says."""
    found: list[Measured] = []

    def measure(names: Sequence[str]) -> Manifest:
        _check_names(names, path, bundle.path)
        found.append(Measured.read(path))
        found[-1].add(names)
        return manifest_of(path.name, found[-1].digests)

    config.set_ignore_unsigned_files(True).set_hashing_config(Hashing(measure))
    # A private copy: what was looked at is what is verified.
    with tempfile.TemporaryDirectory(prefix="onnxcompress-") as folder:
        copy = Path(folder) / "signature"
        copy.write_text(bundle.text, "utf-8")
        try:
            config.verify(ROOT, copy)
        except CompressError:
            raise
        except Exception as error:  # model-signing and what it is built on raise many kinds
            if not found:
                raise SignatureError(
                    f"{bundle.path}: not a valid signature of this signer: {first_line(error)}"
                ) from error
            changed = [name for name, digest in found[-1].digests.items() if bundle.digests.get(name) != digest]
            shown = ", ".join(path.name if name == ALONE else name for name in changed[:4])
            raise SignatureError(f"{path}: not what was signed: {shown or 'its digest'} differs") from error
    if not found:
        raise SignatureError(f"{bundle.path}: was not compared: this version of model-signing is not supported")
    return found[-1]


def _check_names(names: Sequence[str], path: Path, signature: Path) -> None:
    """Refuse names that are not of files in the model's folder or below, or that leave the model out."""
    for name in names:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise SignatureError(f"{signature}: names {name}, outside the model's folder; refused")
    if list(names) != [ALONE] and path.name not in names:
        shown = ", ".join(sorted(names)[:4]) or "nothing"
        raise SignatureError(
            f"{signature}: signs {shown}, not {path.name}: give the model that name again, or sign it anew"
        )
