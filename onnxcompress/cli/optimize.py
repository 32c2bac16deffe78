"""`onnxcompress optimize`: lossless passes."""

from __future__ import annotations

import click

from onnxcompress.cli.common import Output, Shape, model_argument, replacing_output, standard


@click.command("optimize")
@model_argument()
@replacing_output()
@click.option("--portable", is_flag=True, help="Write standard ops only, none of ONNX Runtime's own.")
@click.option("--opset", type=click.IntRange(7, 25), help="The opset to reach (21, or the model's own if later).")
@click.option(
    "--fix-shape", "shapes", multiple=True, type=Shape(), help="Fix the shape of a dynamic input; repeatable."
)
@standard
def command(
    model: str,
    output: str,
    in_place: bool,
    portable: bool,
    opset: int | None,
    shapes: tuple[tuple[str, tuple[int, ...]], ...],
    out: Output,
) -> None:
    """Simplify and fuse MODEL without changing what it computes."""
    from onnxcompress.optimizer import optimize_file

    with out.progress() as progress:
        result = optimize_file(
            model, output, in_place=in_place, portable=portable, opset=opset, fixed_shapes=dict(shapes),
            progress=progress,
        )  # fmt: skip
    out.document(result.as_dict())
    out.say(f"{'':8} {'before':>14} {'after':>14}")
    out.say(f"{'nodes':8} {result.nodes_before:14,} {result.nodes_after:14,}")
    out.say(f"{'bytes':8} {result.bytes_before:14,} {result.bytes_after:14,}")
    for name, count in sorted(result.applied.items(), key=lambda item: (-item[1], item[0])):
        out.note(f"{count:6} x {name}", level=1)
    for note in result.notes:
        out.note(f"note: {note}")
