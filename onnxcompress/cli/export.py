"""onnxcompress export"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from onnxcompress.cli.common import Output, output_option, standard

if TYPE_CHECKING:
    from onnxcompress.exporting.target import InputSpec


class Input(click.ParamType):  # type: ignore[type-arg]
    """An example input."""

    name = "NAME=TYPE[D,D,...]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from onnxcompress.exporting.target import parse_input

        try:
            return parse_input(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


class DynamicDimension(click.ParamType):  # type: ignore[type-arg]
    """A dimension whose size is left open."""

    name = "NAME:DIM=SYMBOL"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from onnxcompress.exporting.target import parse_dynamic

        try:
            return parse_dynamic(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command("export")
@click.argument("target", metavar="TARGET")
@output_option
@click.option(
    "--input",
    "inputs",
    multiple=True,
    required=True,
    type=Input(),
    help="An example input, as image=f32[1,3,224,224]; types f32 f16 f64 i64 i32 u8 bool; repeatable.",
)
@click.option(
    "--dynamic",
    "dynamic",
    multiple=True,
    type=DynamicDimension(),
    help="A dimension left open, as image:0=batch; repeatable.",
)
@click.option("--weights", type=click.Path(dir_okay=False), help="A state_dict: torch.save's, or .safetensors.")
@click.option("--opset", default=21, show_default=True, type=click.IntRange(18, 25), help="Operator set version.")
@click.option("--no-verify", is_flag=True, help="Save without comparing the model with the module.")
@standard
def command(
    target: str, output: str, inputs: tuple[InputSpec, ...], dynamic: tuple[tuple[str, int, str], ...],
    weights: str | None, opset: int, no_verify: bool, out: Output,
) -> None:  # fmt: skip
    """Export a PyTorch module to ONNX, and verify it against torch on fresh inputs before it is saved.

    TARGET is PKG.MODULE:FACTORY or FILE.py:FACTORY, where FACTORY() gives a torch.nn.Module.
    """
    from onnxcompress.exporter import export_checked
    from onnxcompress.exporting.report import describe, summary
    from onnxcompress.exporting.target import group_dynamic, make_args, make_module
    from onnxcompress.model_io import save_model

    module = make_module(target, weights, out.seed)
    args, names = make_args(module, inputs, out.seed)
    exported = export_checked(
        module, args, dynamic=group_dynamic(dynamic), input_names=names, opset=opset,
        verify=not no_verify, seed=out.seed,
    )  # fmt: skip
    save_model(exported.model, output)
    document = describe(exported, output)
    out.document(document)
    out.say(summary(document))
