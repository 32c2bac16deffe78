"""Signing a model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from onnxcompress.errors import ModelError, SignatureError
from onnxcompress.files import check_folder, publish, same_file, staging
from onnxcompress.signing.bundle import default_path
from onnxcompress.signing.framework import ROOT, Hashing, configurations, manifest_of, refusals
from onnxcompress.signing.measured import ALONE, Measured, Signed
from onnxcompress.signing.signers import Password, Signer

PathLike = str | os.PathLike[str]


def sign(
    model_path: PathLike,
    signature: PathLike | None = None,
    *,
    private_key: PathLike | None = None,
    password: Password | None = None,
    certificate: PathLike | None = None,
    chain: Sequence[PathLike] = (),
    sigstore: bool = False,
) -> Path:
    """Sign a model file and its external data files, in one signature file.

    Args:
        model_path: the model file.
        signature: where to write the signature; `<model>.sig` when None.
        private_key, password, certificate, chain, sigstore: who signs, as in `Signer`.

    Returns:
        The signature's path.

    Raises:
        SignatureError: a key, certificate or password that does not fit; Sigstore is not reached; model-signing is
            not installed.
        ModelError: the model cannot be read, external data is missing or not beside it, or nothing can be written.
        ValueError: not one way to sign, or parts of two.
    """
    signer = Signer(private_key, password, certificate, chain, sigstore)
    return sign_model(model_path, signature, signer).signature


def sign_model(model_path: PathLike, signature: PathLike | None, signer: Signer) -> Signed:
    """`sign`, which tells what was signed."""
    config, _ = configurations()
    path = Path(model_path)
    target = default_path(path, signature)
    check_folder(target)
    measured = Measured.read(path)
    proto = measured.parsed()
    data = measured.external_names(proto)
    measured.add([path.name, *sorted(data)] if data else [ALONE])
    for file in measured.stamps:
        if same_file(file, target):
            raise SignatureError(f"{target}: is part of the model; write its signature to another file")
    config.set_hashing_config(Hashing(lambda _: manifest_of(path.name, measured.digests)))
    try:
        with signer.configured(config), staging(target) as folder:
            with refusals(f"{path}: not signed"):
                config.sign(ROOT, folder / "signature")
            publish(folder / "signature", target)
    except OSError as error:
        raise ModelError(f"{target}: cannot be written ({error.strerror or error})") from error
    return measured.signed(target, proto)
