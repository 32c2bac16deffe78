"""`onnxcompress extract`."""

from __future__ import annotations

import click

from onnxcompress.cli.common import Output, model_argument, output_option, shape_option, standard


@click.command()
@model_argument()
@output_option
@click.option(
    "--inputs",
    multiple=True,
    required=True,
    metavar="NAME[,NAME...]",
    help="Values to start from; repeatable.",
)
@click.option("--outputs", multiple=True, required=True, metavar="NAME[,NAME...]", help="Values to end at; repeatable.")
@shape_option
@standard
def command(
    model: str,
    output: str,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    shapes: tuple[tuple[str, tuple[int, ...]], ...],
    out: Output,
) -> None:
    """Cut the part of MODEL that computes the outputs from the inputs out as a model of its own."""
    from onnxcompress.extractor import extract, split_names
    from onnxcompress.model_io import check_output, load_model, save_model

    check_output(model, output)
    source = load_model(model)
    part = extract(
        source,
        inputs=split_names(source, inputs),
        outputs=split_names(source, outputs),
        shapes=dict(shapes),
    )
    save_model(part, output)
    nodes = sum(1 for _ in part.graph.all_nodes())
    out.document({"output": output, "nodes": nodes})
    out.say(f"{output}: {nodes:,} nodes")
