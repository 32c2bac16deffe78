"""`onnxcompress distill`."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

import click

from onnxcompress.cli.common import Duration, Output, data_options, replacing_output, standard

if TYPE_CHECKING:
    from onnxcompress.data import ImageOptions
    from onnxcompress.distiller import Summary


class Layers(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.5 on
    """Numbers of layers with commas between, from 0 on."""

    name = "N,N,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            layers = tuple(int(text) for text in value.split(","))
        except ValueError:
            layers = (-1,)
        if any(layer < 0 for layer in layers):
            self.fail(f"{value!r} is not numbers of layers with commas between, as 1,3,5", param, ctx)
        return tuple(sorted(set(layers)))


class Losses(click.ParamType):  # type: ignore[type-arg]
    """Kinds of loss, with weights if they are not 1: `kl,hidden=0.5`."""

    name = "LOSS[=WEIGHT],..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, float]:
        from onnxcompress.distillation.options import parse_losses

        try:
            return value if isinstance(value, dict) else parse_losses(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command("distill")
@click.argument("student", metavar="STUDENT")
@click.option("--teacher", required=True, type=click.Path(dir_okay=False), help="The model to learn from.")
@replacing_output("student")
@data_options(required=True)
@click.option(
    "--loss", "losses", type=Losses(), show_default="chosen from the graph",
    help="What is compared: kl, mse (outputs), cosine, similarity (embeddings), hidden (inner values).",
)  # fmt: skip
@click.option("--steps", type=click.IntRange(0), help="Steps of the optimizer.")
@click.option("--budget", type=Duration(), show_default="10m", help="Wall-clock time instead: 90s, 10m, 1.5h.")
@click.option(
    "--lr", "learning_rate", type=click.FloatRange(0, min_open=True), show_default="chosen from the graph",
    help="The highest learning rate.",
)  # fmt: skip
@click.option("--batch", default=32, show_default=True, type=click.IntRange(1), help="Rows of a step and process.")
@click.option(
    "--temperature", default=3.0, show_default=True, type=click.FloatRange(0, min_open=True), help="Softmax's, in kl."
)
@click.option("--eval", "evaluate", metavar="FILE.py:FN", help="FN(run) -> score, higher is better.")
@click.option(
    "--metric", type=click.Choice(["auto", "cosine", "top1", "snr"]), default="auto", show_default=True,
    help="Without --eval: how agreement with the teacher is measured.",
)  # fmt: skip
@click.option("--resume", type=click.Path(file_okay=False), help="A folder that keeps the state of the run.")
@click.option(
    "--reconstruct", default=0, type=click.IntRange(0), metavar="STEPS", show_default="no",
    help="Fit STUDENT part by part first, so many steps for each.",
)  # fmt: skip
@click.option("--learn-scales", is_flag=True, help="Train the scales of a quantized student too.")
@click.option(
    "--pattern", type=click.Choice(["block4x4", "block1x4", "block16x4", "2:4", "unstructured"]),
    help="Prune STUDENT while training, by masks that grow; needs --steps.",
)  # fmt: skip
@click.option(
    "--sparsity", type=click.FloatRange(0, 1, min_open=True, max_open=True), help="Of the pattern, at the end."
)
@click.option("--drop-layers", type=Layers(), default=(), help="Take these layers out of the student first.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@standard
def command(
    student: str, teacher: str, output: str, data: tuple[str, ...], images: ImageOptions, out: Output, **options: Any
) -> None:
    """Train STUDENT to do what its teacher does, and keep its best state.

    STUDENT is an ONNX model (pruned zeros stay zeros), or PKG.MODULE:FACTORY or FILE.py:FACTORY, where FACTORY()
    gives a torch.nn.Module. Under torchrun the processes train together.
    """
    if options["steps"] is not None and options["budget"] is not None:
        raise click.UsageError("--steps and --budget exclude each other")
    from onnxcompress.distiller import distill_file
    from onnxcompress.pruning.gradual import schedule_of

    try:
        schedule_of(options["pattern"], options["sparsity"], options["steps"])
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    # What the user's functions print must not mix with the result.
    with contextlib.redirect_stdout(sys.stderr), out.progress() as progress:
        found = distill_file(
            student, teacher, output, data=data, images=images, seed=out.seed, progress=progress, **options
        )  # fmt: skip
    if found is None:
        return
    out.document(found.as_dict())
    _show(found, out)


def _show(found: Summary, out: Output) -> None:
    out.say(f"{found.metric or 'score'}")
    for name, value in (("student", found.start), ("result", found.score), ("teacher", found.reference)):
        out.say(f"  {name:8}{'-' if value is None else f'{value:.4f}':>10}")
    out.say(f"{found.steps} steps in {found.seconds:.0f} s; the result is of step {found.best_step}")
    out.note("compared:", level=1)
    for line in found.terms:
        out.note(f"  {line}", level=1)
    for entry in found.history:
        score = "" if entry["score"] is None else f"  {found.metric} {entry['score']:.4f}"
        parts = "  ".join(f"{name} {value:.4g}" for name, value in entry["parts"].items())
        out.note(
            f"step {entry['step']:6}  {entry['seconds']:6.0f} s  loss {entry['loss']:.4g}  {parts}{score}", level=1
        )
    for note in found.notes:
        out.note(f"note: {note}")
