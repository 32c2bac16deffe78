"""The command line: one file a subcommand, no logic in it. Subcommands are imported when they are used."""

from __future__ import annotations

import importlib

import click

from onnxcompress import __version__
from onnxcompress.cli.supervision import supervised

COMMANDS = {
    "compress": "Make a model smaller and faster within an accuracy bound, and prove it.",
    "optimize": "Simplify and fuse a graph without changing what it computes.",
    "quantize": "Quantize a model: static, dynamic or weight-only.",
    "distill": "Train a student to do what its teacher does, from data without labels.",
    "prune": "Remove channels, blocks or weights, and refit the others on data.",
    "calibrate": "Take the ranges of a model's activations.",
    "export": "Export a PyTorch module to ONNX.",
    "inspect": "Show what is in a model, and what it costs.",
    "diff": "Compare two models: structure, and error layer by layer.",
    "extract": "Cut a subgraph out as a model.",
    "bench": "Time models in turn on this machine.",
    "verify": "Check that a result does what its original does, and who signed it.",
    "sign": "Sign a model and its external data, with a key, a certificate or Sigstore.",
    "demo": "Train, export and compress a small CNN: nothing to download.",
    "doctor": "Check this machine and this installation.",
}


class LazyGroup(click.Group):
    """Lists commands from the table above, so that `--help` imports none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"onnxcompress.cli.{name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name in COMMANDS or name.startswith("-") or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        # Click, where it suggests names, looks among commands that are loaded: none here.
        from difflib import get_close_matches

        close = get_close_matches(name, COMMANDS, n=2)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        ctx.fail(f"No such command {name!r}.{hint}")

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="onnxcompress")
def main() -> None:
    """Make ONNX models smaller and faster within an accuracy bound, proved by numbers from this machine."""


def run() -> None:
    """The program `onnxcompress`: `main` in a process of its own, so that crashes of native code are told."""
    supervised(lambda: main(prog_name="onnxcompress"))
