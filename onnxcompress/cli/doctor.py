"""`onnxcompress doctor`."""

from __future__ import annotations

import sys

import click

from onnxcompress.cli.common import Output, standard


@click.command()
@standard
def command(out: Output) -> None:
    """Check this machine and this installation. Exits with 1 if something is broken."""
    from onnxcompress.environment import describe, environment

    found = environment()
    out.document(found.as_dict())
    out.say("\n".join(describe(found)))
    if found.errors:
        sys.exit(1)
