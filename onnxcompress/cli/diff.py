"""`onnxcompress diff`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from onnxcompress.cli.common import Output, data_options, model_argument, standard

if TYPE_CHECKING:
    from onnxcompress.data import ImageOptions


@click.command()
@model_argument("a")
@model_argument("b")
@data_options()
@standard
def command(a: str, b: str, data: tuple[str, ...], images: ImageOptions, out: Output) -> None:
    """Compare model B with model A: structure and weights; with --data, the error of every value both have."""
    from onnxcompress.data import open_data
    from onnxcompress.inspection import diff, text
    from onnxcompress.model_io import load_model

    feeds = open_data(list(data), load_model(a), images=images) if data else None
    with out.progress() as progress:
        difference = diff(a, b, data=feeds, progress=progress)
    out.document(difference.as_dict())
    out.say("\n".join(text.difference_text(difference, (a, b))))
