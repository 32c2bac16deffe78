"""`onnxcompress inspect`."""

from __future__ import annotations

from dataclasses import asdict

import click

from onnxcompress.cli.common import Output, model_argument, shape_option, standard


@click.command()
@model_argument()
@click.option("--nodes", "all_nodes", is_flag=True, help="List every node.")
@click.option("--node", "name", help="Show one node in full: its name, or that of a value it computes.")
@shape_option
@standard
def command(
    model: str,
    all_nodes: bool,
    name: str | None,
    shapes: tuple[tuple[str, tuple[int, ...]], ...],
    out: Output,
) -> None:
    """Show what is in MODEL and what it costs: weights, operations, sparsity, what runs quantized and why not."""
    from onnxcompress.inspection import inspect, text
    from onnxcompress.inspection.weights import weight_statistics
    from onnxcompress.model_io import load_model

    source = load_model(model)
    with out.progress() as progress:
        found = inspect(source, shapes=dict(shapes), progress=progress)
    if name is not None:
        nodes = [(node, weight_statistics(source, node.weights)) for node in text.find_nodes(found, name)]
        out.document({"nodes": [{**node.as_dict(), "statistics": list(map(asdict, s))} for node, s in nodes]})
        lines = [line for node, statistics in nodes for line in [*text.node_detail(found, node, statistics), ""]]
    else:
        out.document(found.as_dict())
        lines = text.node_table(found) if all_nodes else text.summary(found)
    out.say("\n".join(lines).rstrip())
