"""onnxcompress bench"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from onnxcompress.cli.common import Output, data_options, shape_option, standard

if TYPE_CHECKING:
    from onnxcompress.data import ImageOptions


@click.command("bench")
@click.argument("models", nargs=-1, type=click.Path(dir_okay=False), metavar="MODEL [OTHERS...]")
@data_options()
@shape_option
@click.option("--threads", default=1, show_default=True, type=click.IntRange(0), help="0: ONNX Runtime's choice.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help="Turns of each model.")
@click.option("--runs", default=None, type=click.IntRange(1), help="Runs of a turn; else as many as take 0.2 s.")
@click.option("--ops", is_flag=True, help="Time the native operators by shape and sparsity instead of models.")
@standard
def command(
    models: tuple[str, ...], data: tuple[str, ...], images: ImageOptions,
    shapes: tuple[tuple[str, tuple[int, ...]], ...], threads: int, rounds: int, runs: int | None, ops: bool,
    out: Output,
) -> None:  # fmt: skip
    """Time models in turn on this machine, each in a process of its own.

    Ratios are to the first MODEL. Without --data one feed of random numbers is run. With --ops no model is timed but
    the native operators: against float, against the standard int8 operators, and the processor's peak.
    """
    if ops and models:
        raise click.UsageError("--ops times operators, no MODEL: give one or the other")
    if not ops and not models:
        raise click.UsageError("Missing argument 'MODEL': give one at least, or --ops")
    if ops:
        _operators(threads, out)
        return
    from onnxcompress.runtime.benching import bench
    from onnxcompress.runtime.table import bench_table

    with out.progress() as progress:
        results = bench(
            models, data=list(data) or None, images=images, shapes=dict(shapes), threads=threads, rounds=rounds,
            runs=runs, seed=out.seed, progress=progress,
        )  # fmt: skip
    out.document({"schema": 1, "models": [result.as_dict() for result in results]})
    out.say(bench_table(results))


def _operators(threads: int, out: Output) -> None:
    from onnxcompress.runtime.operators import bench_operators
    from onnxcompress.runtime.table import operators_table

    with out.progress() as progress:
        results = bench_operators(max(1, threads), progress)
    out.document({"schema": 1, "operators": [result.as_dict() for result in results]})
    out.say(operators_table(results))
