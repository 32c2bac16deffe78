"""`onnxcompress quantize`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from onnxcompress.cli.common import Output, data_options, model_argument, replacing_output, standard

if TYPE_CHECKING:
    from onnxcompress.data import ImageOptions
    from onnxcompress.quantizer import Summary


@click.command("quantize")
@model_argument()
@replacing_output()
@click.option(
    "--mode", type=click.Choice(["static", "dynamic", "weight-only"]), default="static", show_default=True,
    help="Static: int8 with ranges known beforehand; dynamic: with ranges taken on every run; weight-only.",
)  # fmt: skip
@data_options()
@click.option("--ranges", type=click.Path(dir_okay=False), help="Static: ranges that `calibrate` took of MODEL.")
@click.option(
    "--method", type=click.Choice(["minmax", "percentile", "entropy", "mse", "moving-average"]),
    show_default="mse, or that of --ranges", help="Static: how a range is chosen from the values seen.",
)  # fmt: skip
@click.option(
    "--weights", type=click.Choice(["int8", "int4"]), default="int8", show_default=True,
    help="int4: weight-only, or static, for linear layers in operators of our own.",
)  # fmt: skip
@click.option("--block-size", type=int, help="int4 and weight-only: inputs that share a scale (32 for int4).")
@click.option(
    "--activations", type=click.Choice(["u8", "s8", "u16"]), default="u8", show_default=True,
    help="Static: u8 for CPUs and --target cuda, s8 (symmetric) for TensorRT, u16.",
)  # fmt: skip
@click.option("--exclude", metavar="NAME", multiple=True, help="A node that stays float; * and ? match; repeatable.")
@click.option("--wide", metavar="NAME", multiple=True, help="Static: a node with 16-bit input activations; repeatable.")
@click.option("--smooth", type=float, metavar="ALPHA", help="SmoothQuant: outliers of activations into the weights.")
@click.option("--equalize", is_flag=True, help="Equalize the weights of convolutions across layers first.")
@click.option("--bias-correction", is_flag=True, help="Static: take each layer's mean error out of its bias.")
@click.option("--gptq", is_flag=True, help="Weight-only in blocks, with --data: rounding that makes up for itself.")
@click.option("--portable", is_flag=True, help="Write standard ops only, none of ONNX Runtime's own.")
@click.option(
    "--target", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True,
    help="cuda: operators of our own, which run on both; static or weight-only.",
)  # fmt: skip
@click.option("--threads", default=0, show_default="ONNX Runtime's choice", help="Threads to run the model with.")
@click.option("--explain", is_flag=True, help="Show what became of each node, and why.")
@standard
def command(
    model: str,
    output: str,
    in_place: bool,
    data: tuple[str, ...],
    images: ImageOptions,
    ranges: str | None,
    explain: bool,
    out: Output,
    **given: Any,
) -> None:
    """Quantize MODEL as told. `compress` finds out by itself what pays, and measures it."""
    from onnxcompress.quantization_options import Options
    from onnxcompress.quantizer import quantize_file

    try:
        options = Options(**given)
        options.check_sources(data=bool(data), ranges=ranges is not None)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    with out.progress() as progress:
        summary = quantize_file(
            model, output, options, in_place=in_place, data=data, images=images, ranges=ranges, progress=progress
        )
    out.document(summary.as_dict())
    out.say(f"{'bytes before':16}{summary.bytes_before:>16,}")
    out.say(f"{'bytes after':16}{summary.bytes_after:>16,}")
    out.say(f"{'quantized nodes':16}{summary.quantized:>16,}")
    out.say(f"{'float nodes':16}{summary.float:>16,}")
    for line in _explanation(summary) if explain else []:
        out.say(line)
    for note in summary.notes:
        out.note(f"note: {note}")


def _explanation(summary: Summary) -> list[str]:
    rows = [(node.name, node.op, "int8" if node.quantized else "float", node.reason) for node in summary.nodes]
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(3)]
    return ["", *("  ".join([*(f"{row[i]:<{widths[i]}}" for i in range(3)), row[3]]) for row in rows)]
