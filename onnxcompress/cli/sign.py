"""`onnxcompress sign`: a signature over a model and its external data."""

from __future__ import annotations

import os
import sys

import click

from onnxcompress.cli.common import Output, model_argument, standard

PASSWORD = "ONNXCOMPRESS_KEY_PASSWORD"


@click.command("sign")
@model_argument()
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Where to write it; MODEL.sig when left out.")
@click.option("--private-key", type=click.Path(dir_okay=False), help="Elliptic-curve key as PEM.")
@click.option("--certificate", type=click.Path(dir_okay=False), help="That of the key, as PEM.")
@click.option("--chain", multiple=True, type=click.Path(dir_okay=False), help="From it to the root; repeatable.")
@click.option("--sigstore", is_flag=True, help="Sign with an identity instead of a key: takes a network.")
@click.option("--staging", is_flag=True, help="Use Sigstore's instance for tests.")
@standard
def command(
    model: str,
    output: str | None,
    private_key: str | None,
    certificate: str | None,
    chain: tuple[str, ...],
    sigstore: bool,
    staging: bool,
    out: Output,
) -> None:
    """Sign MODEL and the external data files it names, in one file, for `verify --signature` and `load`.

    An encrypted key takes its password from ONNXCOMPRESS_KEY_PASSWORD, or asks. A key pair is made with
    `openssl ecparam -name prime256v1 -genkey -noout -out key.pem` and `openssl ec -in key.pem -pubout -out key.pub`.
    """
    from onnxcompress.signing import Signer, sign_model

    try:
        signer = Signer(private_key, key_password, certificate, chain, sigstore, staging)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    signed = sign_model(model, output, signer)
    out.document(signed.as_dict())
    out.say(f"signed into {signed.signature}:")
    for name, digest in signed.files.items():
        out.say(f"  {name}  sha256 {digest}")
    if signed.source is not None:
        recipe = ", with its recipe" if signed.has_recipe else ""
        out.say(f"compressed from a model of sha256 {signed.source}{recipe}")


def key_password() -> str:
    """The password of an encrypted key, from the environment or a terminal.

    Raises:
        SignatureError: neither has it.
    """
    from onnxcompress.errors import SignatureError

    if PASSWORD in os.environ:
        return os.environ[PASSWORD]
    if not sys.stdin.isatty():
        raise SignatureError(f"the key is encrypted: put its password into the environment as {PASSWORD}")
    return str(click.prompt("Password of the key", hide_input=True, err=True))
