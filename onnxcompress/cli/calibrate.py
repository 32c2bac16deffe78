"""`onnxcompress calibrate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from onnxcompress.cli.common import Output, data_options, model_argument, standard

if TYPE_CHECKING:
    from onnxcompress.calibration import Ranges
    from onnxcompress.data import ImageOptions

SHOWN = 8


@click.command("calibrate")
@model_argument()
@click.option(
    "-o", "--output", required=True, type=click.Path(dir_okay=False), help="Where to write the ranges (JSON)."
)
@data_options()
@click.option(
    "--method", type=click.Choice(["minmax", "percentile", "entropy", "mse", "moving-average"]),
    default="minmax", show_default=True, help="How a range is chosen from the values seen.",
)  # fmt: skip
@click.option(
    "--percentile",
    default=99.99,
    show_default=True,
    help="With --method percentile: values inside, in per cent.",
)
@click.option("--tensor", "tensors", multiple=True, help="Observe only this tensor; repeatable.")
@click.option(
    "--merge", multiple=True, type=click.Path(dir_okay=False),
    help="Ranges of other parts of the data, merged in; repeatable. Without --data, only merges.",
)  # fmt: skip
@click.option("--threads", default=0, show_default="ONNX Runtime's choice", help="Threads to run the model with.")
@click.option("--resume", type=click.Path(file_okay=False), help="A folder that keeps the state of the run.")
@standard
def command(
    model: str,
    output: str,
    data: tuple[str, ...],
    images: ImageOptions,
    method: str,
    percentile: float,
    tensors: tuple[str, ...],
    merge: tuple[str, ...],
    threads: int,
    resume: str | None,
    out: Output,
) -> None:
    """Take the ranges of MODEL's activations over data, for `quantize --ranges`."""
    if not data and not merge:
        raise click.UsageError("give --data, or --merge, or both")
    if resume is not None and not data:
        raise click.UsageError("--resume keeps the state of a run over --data: give that too")
    from onnxcompress.calibration.parts import calibrate_parts

    with out.progress() as progress:
        ranges = calibrate_parts(
            model, output, data=data, images=images, method=method, tensors=tensors or None,
            percentile=percentile, merge=merge, threads=threads, resume=resume, progress=progress,
        )  # fmt: skip
    for line in _table(ranges, output):
        out.say(line)
    for name, reason in ranges.left_out.items():
        out.note(f"left out: {name}: {reason}", level=1)
    out.document(
        {
            "output": output,
            "method": ranges.method,
            "percentile": ranges.percentile,
            "samples": ranges.samples,
            "model": ranges.digest,
            "tensors": {name: list(ranges.interval(name)) for name in ranges.names},
            "left_out": dict(ranges.left_out),
        }
    )


def _table(ranges: Ranges, output: str) -> list[str]:
    widest = sorted(ranges.names, key=lambda name: -abs(ranges.interval(name)[1] - ranges.interval(name)[0]))[:SHOWN]
    width = max((len(name) for name in widest), default=0)
    lines = [f"{len(ranges.names)} tensors over {ranges.samples} samples ({ranges.method}) -> {output}"]
    if widest:
        lines.append(f"{'widest ranges':<{width}}  {'low':>12} {'high':>12}")
    for name in widest:
        low, high = ranges.interval(name)
        lines.append(f"{name:<{width}}  {low:>12.5g} {high:>12.5g}")
    return lines
