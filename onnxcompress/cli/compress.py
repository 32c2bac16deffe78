"""`onnxcompress compress`."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

import click

from onnxcompress.cli.common import Duration, Output, data_options, model_argument, replacing_output, standard
from onnxcompress.cli.table import show_result

if TYPE_CHECKING:
    from onnxcompress.data import ImageOptions


@click.command("compress")
@model_argument()
@replacing_output()
@data_options(required=True)
@click.option("--eval", "evaluate", metavar="FILE.py:FN", help="FN(run) -> score, higher is better.")
@click.option("--max-drop", default=0.01, show_default=True, help="Share of the original's score that may be lost.")
@click.option(
    "--metric", type=click.Choice(["auto", "cosine", "top1", "snr"]), default="auto", show_default=True,
    help="Without --eval: how agreement with the original is measured.",
)  # fmt: skip
@click.option(
    "--target", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True,
    help="cuda: measured on the GPU, or chosen without measuring where there is none.",
)  # fmt: skip
@click.option("--threads", default=1, show_default=True, help="Threads that the result is timed with.")
@click.option("--budget", type=Duration(), help="Wall-clock time for the whole command: 90s, 10m, 1.5h.")
@click.option("--portable", is_flag=True, help="Standard operators only.")
@click.option(
    "--pattern", type=click.Choice(["channels", "block4x4", "block1x4", "block16x4", "2:4", "unstructured"]),
    help="Prune too, and distil the result from MODEL (needs torch).",
)  # fmt: skip
@click.option(
    "--sparsity", type=click.FloatRange(0, 1, min_open=True, max_open=True), show_default="several are tried",
    help="Share of the weights to remove, with all patterns but channels.",
)  # fmt: skip
@click.option(
    "--macs", type=click.FloatRange(0, 1, min_open=True, max_open=True), show_default="several are tried",
    help="Share of the multiply-accumulates to keep, with channels.",
)  # fmt: skip
@click.option("--exclude", multiple=True, metavar="NODE", help="Keep a node float; repeatable.")
@click.option("--recipe", type=click.Path(exists=True, dir_okay=False), help="Replay a recipe instead of searching.")
@click.option("--report", type=click.Path(dir_okay=False), help="Where to write report.json.")
@click.option("--resume", type=click.Path(file_okay=False), help="A folder that keeps scores of an interrupted run.")
@standard
def command(model: str, output: str, data: tuple[str, ...], images: ImageOptions, out: Output, **options: Any) -> None:
    """Make MODEL smaller and faster within an accuracy bound, and prove it with numbers measured here."""
    if not 0 <= options["max_drop"] <= 1:
        raise click.UsageError("--max-drop is a share between 0 and 1 (0.01 is 1 %)")
    if options["threads"] < 1:
        raise click.UsageError("--threads must be at least 1")
    if options["target"] == "cuda" and options["portable"]:
        raise click.UsageError("--target cuda means operators of our own, which --portable leaves out")
    if options["recipe"] and (options["portable"] or options["exclude"]):
        raise click.UsageError("--recipe holds its own exclusions, and whether it is portable")
    if options["recipe"] and any(options[name] is not None for name in ("pattern", "sparsity", "macs")):
        raise click.UsageError("--recipe says what is pruned: leave --pattern, --sparsity and --macs away")
    from onnxcompress.pipeline import compress
    from onnxcompress.slimming import levels

    try:
        levels(options["pattern"], options["sparsity"], options["macs"], out.seed)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    # What the user's functions print must not mix with the result.
    with contextlib.redirect_stdout(sys.stderr), out.progress() as progress:
        result = compress(
            model, output, data=list(data), images=images, seed=out.seed, progress=progress, **options
        )  # fmt: skip
    show_result(result, out)
