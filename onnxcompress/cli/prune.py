"""`onnxcompress prune`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from onnxcompress.cli.common import Output, data_options, model_argument, replacing_output, shape_option, standard

if TYPE_CHECKING:
    from onnxcompress.data import ImageOptions


@click.command("prune")
@model_argument()
@replacing_output()
@click.option(
    "--pattern", required=True,
    type=click.Choice(["channels", "block4x4", "block1x4", "block16x4", "2:4", "unstructured"]),
    help="What is removed: whole channels, neurons and heads; blocks of outputs x inputs; two of four; weights.",
)  # fmt: skip
@click.option("--macs", type=float, help="Channels: share of the multiply-accumulates to keep.")
@click.option("--sparsity", type=float, help="The others: share of the weights to remove.")
@click.option(
    "--saliency", type=click.Choice(["magnitude", "wanda", "obs", "taylor", "fisher"]),
    show_default="magnitude; with --data obs, for channels fisher and wanda together", help="What is removed first.",
)  # fmt: skip
@data_options()
@click.option(
    "--allocation", type=click.Choice(["uniform", "global", "sensitivity"]), default="uniform", show_default=True,
    help="How zeros are spread over the layers.",
)  # fmt: skip
@click.option("--exclude", metavar="NAME", multiple=True, help="A node that stays; * and ? match; repeatable.")
@click.option(
    "--compensate/--no-compensate", default=None, show_default="with --data",
    help="Refit the weights that stay to what each layer gave before.",
)  # fmt: skip
@click.option(
    "--solver", type=click.Choice(["admm", "obs"]), default="admm", show_default=True,
    help="What finds masks and weights together; obs is quicker, with more error.",
)  # fmt: skip
@click.option("--samples", type=int, default=128, show_default=True, help="Feeds to use.")
@shape_option
@click.option("--threads", default=0, show_default="ONNX Runtime's choice", help="Threads to run the model with.")
@click.option("--explain", is_flag=True, help="Show what became of each layer or group, and why.")
@standard
def command(
    model: str,
    output: str,
    in_place: bool,
    data: tuple[str, ...],
    images: ImageOptions,
    shapes: tuple[tuple[str, tuple[int, ...]], ...],
    explain: bool,
    out: Output,
    **given: Any,
) -> None:
    """Prune MODEL as told. `distill` recovers the accuracy that it costs; `compress` skips the zeros."""
    from onnxcompress.pruning.options import Options
    from onnxcompress.pruning.pruner import prune_file

    try:
        options = Options(shapes=dict(shapes), seed=out.seed, **given)
        options.check_data(bool(data))
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    with out.progress() as progress:
        summary = prune_file(model, output, options, in_place=in_place, data=data, images=images, progress=progress)
    out.document(summary.as_dict())
    before, after = summary.before, summary.after
    out.say(f"{'':12}{'before':>16}{'after':>16}")
    out.say(f"{'bytes':12}{before.bytes:>16,}{after.bytes:>16,}")
    out.say(f"{'parameters':12}{before.parameters:>16,}{after.parameters:>16,}")
    out.say(f"{'non-zero':12}{1 - before.sparsity:>16.1%}{1 - after.sparsity:>16.1%}")
    macs = ["unknown" if size.macs is None else f"{size.macs:,}" for size in (before, after)]
    out.say(f"{'MACs':12}{macs[0]:>16}{macs[1]:>16}")
    for line in ["", *summary.explanation] if explain else []:
        out.say(line)
    for note in summary.notes:
        out.note(f"note: {note}")
