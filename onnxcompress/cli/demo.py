"""`onnxcompress demo`."""

from __future__ import annotations

import click

from onnxcompress.cli.common import Output, standard


@click.command("demo")
@click.option(
    "-o", "--output", default="onnxcompress-demo", show_default=True, type=click.Path(file_okay=False),
    help="Folder for the models and report.json.",
)  # fmt: skip
@click.option("--threads", default=1, show_default=True, help="Threads that the result is timed with.")
@standard
def command(output: str, threads: int, out: Output) -> None:
    """Train a small CNN on digits, export it, compress it, and print what was measured: nothing to download."""
    from onnxcompress.cli.table import show_result
    from onnxcompress.demonstration import run_demo

    with out.progress() as progress:
        result = run_demo(output, seed=out.seed, threads=threads, progress=progress)
    show_result(result, out)
