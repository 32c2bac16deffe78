"""Whom to trust: a public key, the roots of certificates, or an identity of Sigstore."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxcompress.signing.framework import refusals
from onnxcompress.signing.signers import check_public_key

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Trust:
    """Whose signature counts.

    Attributes:
        public_key: the other half of the key that signed, as PEM.
        certificates: roots that are trusted, as PEM, where a certificate signed. It must have been valid, and meant for
            signing, when it was issued; whether it has expired since is not looked at.
        identity, issuer: who signed with Sigstore (as `someone@example.com`), and the URL of the OpenID Connect issuer
            that vouched for it; Sigstore's own keys are fetched, which takes a network.
        staging: Sigstore's instance for tests.

    Raises:
        ValueError: not one of the three, or parts of two.
    """

    public_key: PathLike | None = None
    certificates: Sequence[PathLike] = ()
    identity: str | None = None
    issuer: str | None = None
    staging: bool = False

    def __post_init__(self) -> None:
        if [self.public_key is not None, bool(self.certificates), self.identity is not None].count(True) != 1:
            raise ValueError("say whom to trust: a public key, certificates, or an identity of Sigstore")
        if (self.identity is None) != (self.issuer is None):
            raise ValueError("an identity of Sigstore takes its issuer, and the other way round")
        if self.staging and self.identity is None:
            raise ValueError("staging is an instance of Sigstore: give an identity too")

    @property
    def kind(self) -> str:
        """Key, certificate or identity: what must have signed."""
        if self.public_key is not None:
            return "key"
        return "certificate" if self.certificates else "identity"

    def configure(self, config: Any) -> None:
        """Set a `model_signing.verifying.Config` up.

        Raises:
            SignatureError: a key or certificate that does not fit; Sigstore is not reached.
        """
        if self.public_key is not None:
            check_public_key(Path(self.public_key))
            config.use_elliptic_key_verifier(public_key=self.public_key)
        elif self.certificates:
            with refusals("the certificates cannot be read as PEM"):
                config.use_certificate_verifier(certificate_chain=self.certificates)
        else:
            with refusals("Sigstore's keys cannot be had (it takes a network)"):
                config.use_sigstore_verifier(identity=self.identity, oidc_issuer=self.issuer, use_staging=self.staging)
