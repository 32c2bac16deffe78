"""Who signs: a private key, one with a certificate, or an identity of Sigstore."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxcompress.errors import CompressError, SignatureError
from onnxcompress.files import read_text
from onnxcompress.signing.framework import refusals

PathLike = str | os.PathLike[str]
Password = str | Callable[[], str]

KEY_LIMIT = 1 << 20
"""Bytes of the largest key file that is read."""

CURVES = "secp256r1", "secp384r1", "secp521r1"
"""Those of model-signing: P-256, P-384 and P-521."""


@dataclass(frozen=True)
class Signer:
    """How to sign.

    Attributes:
        private_key: elliptic-curve key (P-256, P-384 or P-521) as PEM. Nothing leaves this machine.
        password: of an encrypted key; a function is called only where the key is encrypted.
        certificate: of the key, as PEM: the signature carries it, and who trusts its root can verify.
        chain: certificates between it and the root, as PEM.
        sigstore: sign with an identity (of a browser login, or of a CI job) instead of a key; takes a network.
        staging: Sigstore's instance for tests.

    Raises:
        ValueError: not one way to sign, or parts of two.
    """

    private_key: PathLike | None = None
    password: Password | None = None
    certificate: PathLike | None = None
    chain: Sequence[PathLike] = ()
    sigstore: bool = False
    staging: bool = False

    def __post_init__(self) -> None:
        if (self.private_key is not None) == self.sigstore:
            raise ValueError("sign with a private key or with Sigstore: give one of the two")
        if self.certificate is not None and self.private_key is None:
            raise ValueError("a certificate signs with its private key: give it too")
        if self.chain and self.certificate is None:
            raise ValueError("a chain leads to a certificate: give it too")
        if self.staging and not self.sigstore:
            raise ValueError("staging is an instance of Sigstore: ask for Sigstore too")

    @contextlib.contextmanager
    def configured(self, config: Any) -> Iterator[Any]:
        """Set a `model_signing.signing.Config` up; what it was given of a key holds within the context.

        Raises:
            SignatureError: a key, certificate or password that does not fit; Sigstore is not reached.
        """
        if self.private_key is None:
            with refusals("Sigstore cannot be used (without a network, sign with a key)"):
                config.use_sigstore_signer(use_ambient_credentials=True, use_staging=self.staging)
            yield config
            return
        with _plain_key(Path(self.private_key), self.password) as key:
            if self.certificate is None:
                config.use_elliptic_key_signer(private_key=key)
            else:
                # model-signing reads no empty chain; the certificate itself adds nothing to one.
                chain = [*self.chain] or [self.certificate]
                with refusals(f"{self.certificate}: cannot sign with {self.private_key}"):
                    config.use_certificate_signer(
                        private_key=key, signing_certificate=self.certificate, certificate_chain=chain
                    )
            yield config


@contextlib.contextmanager
def _plain_key(path: Path, password: Password | None) -> Iterator[Path]:
    """The path of a key without a password: its own, or that of a pipe with the decrypted key in it.

    model-signing takes no password with a certificate. A pipe of the kernel keeps the key off the disk.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    text = _key_text(path)
    try:
        key, encrypted = serialization.load_pem_private_key(text, None), False
    except TypeError:
        key, encrypted = _decrypted(path, text, password), True
    except Exception as error:
        raise SignatureError(f"{path}: not a private key in PEM") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in CURVES:
        raise SignatureError(
            f"{path}: not an elliptic-curve key of P-256, P-384 or P-521; models are signed with those"
        )
    if not encrypted:
        yield path
        return
    plain = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    if not Path("/dev/fd").is_dir():
        raise SignatureError(f"{path}: an encrypted key cannot be used on this platform; decrypt it first")
    reader, writer = os.pipe()
    try:
        with os.fdopen(writer, "wb") as stream:  # far less than a pipe holds
            stream.write(plain)
        yield Path(f"/dev/fd/{reader}")
    finally:
        os.close(reader)


def _decrypted(path: Path, text: bytes, password: Password | None) -> Any:
    from cryptography.hazmat.primitives import serialization

    if password is None:
        raise SignatureError(f"{path}: the key is encrypted; give its password")
    word = password if isinstance(password, str) else password()
    try:
        return serialization.load_pem_private_key(text, word.encode())
    except Exception as error:
        raise SignatureError(f"{path}: the password does not open the key") from error


def check_public_key(path: Path) -> None:
    """Refuse what model-signing would trip over.

    Raises:
        SignatureError: not a public key of an elliptic curve that models are signed with.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        key = serialization.load_pem_public_key(_key_text(path))
    except SignatureError:
        raise
    except Exception as error:
        raise SignatureError(f"{path}: not a public key in PEM") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in CURVES:
        raise SignatureError(
            f"{path}: not an elliptic-curve key of P-256, P-384 or P-521; models are signed with those"
        )


def _key_text(path: Path) -> bytes:
    try:
        return read_text(path, most=KEY_LIMIT).encode()
    except CompressError as error:
        raise SignatureError(str(error)) from error
