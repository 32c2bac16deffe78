"""Keys and certificates for tests of signatures, made anew in every run."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

Private = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True)
class Pair:
    """The two files of a key, and the key."""

    private: Path
    public: Path
    key: Private


def pair(folder: Path, name: str, key: Private | None = None, password: str | None = None) -> Pair:
    """Write a key as PEM; one of P-256 when None."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        encryption = serialization.BestAvailableEncryption(password.encode())
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return Pair(private, public, key)


def certificate(folder: Path, name: str, subject: Pair, issuer: Pair, issuer_name: str, *, usage: str) -> Path:
    """Write a certificate as PEM; `usage` is ca, signing or none."""
    assert isinstance(issuer.key, ec.EllipticCurvePrivateKey)
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    is_ca = usage == "ca"
    allowed = x509.KeyUsage(
        digital_signature=usage == "signing", content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=usage == "none", key_cert_sign=is_ca, crl_sign=is_ca,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
    built = (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .issuer_name(_named(issuer_name))
        .public_key(subject.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(allowed, critical=True)
        .sign(issuer.key, hashes.SHA256())
    )
    path = folder / f"{name}.crt"
    path.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    return path


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
