"""`onnxcompress verify`."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

import click

from onnxcompress.cli.common import Output, data_options, standard

if TYPE_CHECKING:
    from onnxcompress.data import ImageOptions
    from onnxcompress.evaluation import Metric

SHARE = click.FloatRange(0, 1)


@click.command("verify")
@click.argument("models", nargs=-1, metavar="[ORIGINAL] RESULT", type=click.Path(dir_okay=False))
@data_options()
@click.option("--eval", "evaluate", metavar="FILE.py:FN", help="FN(run) -> score, higher is better.")
@click.option(
    "--max-drop", type=SHARE, default=0.01, show_default=True, help="With --eval: share of the score that may be lost."
)
@click.option(
    "--tolerance", type=SHARE, show_default="0.02; with --eval none",
    help="What agreement on clean data may lack of 1, mean over feeds. Relative error: at most 1.5 sqrt(2 tolerance).",
)  # fmt: skip
@click.option(
    "--metric", type=click.Choice(["auto", "cosine", "top1", "snr"]), default="auto", show_default=True,
    help="How agreement is measured; auto: as in compress.",
)  # fmt: skip
@click.option("--signature", type=click.Path(dir_okay=False), show_default="RESULT.sig", help="What `sign` wrote.")
@click.option("--public-key", type=click.Path(dir_okay=False), help="PEM: RESULT must be signed with its other half.")
@click.option(
    "--certificate", multiple=True, type=click.Path(dir_okay=False),
    help="PEM of a root: RESULT must be signed with a certificate that it vouches for; repeatable.",
)  # fmt: skip
@click.option("--identity", help="RESULT must be signed with Sigstore by this identity (takes a network).")
@click.option("--issuer", help="URL of what vouched for the identity.")
@standard
def command(
    models: tuple[str, ...],
    data: tuple[str, ...],
    images: ImageOptions,
    evaluate: str | None,
    max_drop: float,
    tolerance: float | None,
    metric: Metric,
    signature: str | None,
    public_key: str | None,
    certificate: tuple[str, ...],
    identity: str | None,
    issuer: str | None,
    out: Output,
) -> None:
    """Check that RESULT does what ORIGINAL does: a table of checks, and exit status 1 when one fails.

    \b
    verify ORIGINAL RESULT --data DATA          structure, loading, agreement, robustness, batches, threads
    verify RESULT --public-key KEY              signature, structure and loading of one model

    Robustness: both models get the same perturbed feeds. Noise of 0.05 to 0.5 standard deviations, blur of images, 5
    to 50 % of ids replaced, 1.5 times the contrast: fails where the error (root mean square of the difference, over
    that of the original's output) is over 0.3 and over three times that on clean data. Extreme values, constant
    inputs, empty and odd sizes: fails where RESULT does not run, or is not finite, and ORIGINAL does and is.
    """
    trusts = bool(public_key or certificate or identity or issuer)
    if not models:
        raise click.UsageError(
            "Missing argument 'RESULT': give ORIGINAL RESULT --data DATA, or RESULT --public-key KEY"
        )
    if len(models) > 2:
        raise click.UsageError("more than two models: give ORIGINAL RESULT --data DATA, or RESULT --public-key KEY")
    if len(models) == 2 and not data:
        raise click.UsageError("ORIGINAL and RESULT are compared on data: give --data")
    if len(models) == 1 and (data or evaluate):
        raise click.UsageError("--data and --eval compare two models: give ORIGINAL RESULT")
    if not trusts and (len(models) == 1 or signature):
        raise click.UsageError("a signature is checked with --public-key, --certificate or --identity: give one")
    from onnxcompress.signing import Trust
    from onnxcompress.verification import verify
    from onnxcompress.verification.text import verification_table

    try:
        trust = Trust(public_key, certificate, identity, issuer) if trusts else None
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    # What the user's functions print must not mix with the result.
    with contextlib.redirect_stdout(sys.stderr), out.progress() as progress:
        found = verify(
            models[0] if len(models) == 2 else None, models[-1], data=list(data) or None, evaluate=evaluate,
            max_drop=max_drop, tolerance=tolerance, metric=metric, signature=signature, trust=trust, images=images,
            seed=out.seed, progress=progress,
        )  # fmt: skip
    out.document(found.as_dict())
    out.say(verification_table(found, verbose=out.verbosity > 0))
    if not found.passed:
        sys.exit(1)
