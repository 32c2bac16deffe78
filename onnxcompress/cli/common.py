"""What every subcommand shares: options, errors as one line, progress bars, output."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import click

from onnxcompress.cli.unexpected import unexpected
from onnxcompress.errors import CompressError, printable
from onnxcompress.functions import user_traceback

if TYPE_CHECKING:
    from onnxcompress.data import ImageOptions
    from onnxcompress.progress import Progress

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


@dataclass(frozen=True)
class Output:
    """Where a command's result goes: text for people, or one JSON document with `--json`."""

    as_json: bool
    verbosity: int
    seed: int

    def say(self, text: str) -> None:
        """A line of the result, for people."""
        if not self.as_json:
            click.echo(printable(text))

    def note(self, text: str, *, level: int = 0) -> None:
        """A remark on standard error; `level` 1 is shown with -v only, and -q hides all."""
        if self.verbosity >= level:
            click.echo(printable(text), err=True)

    def document(self, value: Mapping[str, Any]) -> None:
        """The result as JSON, when it was asked for."""
        if self.as_json:
            click.echo(json.dumps(value, indent=2, default=str))

    @contextlib.contextmanager
    def progress(self) -> Iterator[Progress]:
        """A bar on a terminal, once the work has taken a second; nothing elsewhere."""
        if self.verbosity < 0 or not sys.stderr.isatty():
            yield lambda stage, done, total: None
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            console=Console(stderr=True), transient=True,
        )  # fmt: skip
        task = bar.add_task("", total=None)
        started = time.monotonic()
        shown = False

        def report(stage: str, done: int, total: int | None) -> None:
            nonlocal shown
            if not shown and time.monotonic() - started > 1:
                bar.start()
                shown = True
            bar.update(task, description=stage, completed=done, total=total)

        try:
            yield report
        finally:
            bar.stop()


def standard(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --json, -q, -v and --seed, hand them on as `out`, and turn errors into one line and exit code 1."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
    @click.option("-q", "--quiet", is_flag=True, help="Print nothing but results and errors.")
    @click.option("-v", "--verbose", count=True, help="Say more; twice for a traceback on errors.")
    @click.option("--seed", default=0, show_default=True, help="Seed of everything random.")
    @functools.wraps(function)
    def wrapper(*args: Any, as_json: bool, quiet: bool, verbose: int, seed: int, **kwargs: Any) -> Any:
        out = Output(as_json, -1 if quiet else verbose, seed)
        try:
            return function(*args, out=out, **kwargs)
        except (CompressError, MemoryError, RecursionError) as error:
            if verbose > 1:
                raise
            _tell(error)
            sys.exit(1)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            sys.exit(130)
        except BrokenPipeError:
            sys.exit(0)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if verbose > 1:
                raise
            _tell(unexpected(error, kwargs))
            sys.exit(1)

    return wrapper


def _tell(error: BaseException) -> None:
    """An error as one line, below what Python says of the user's own code where that raised it."""
    theirs = user_traceback(error)
    if theirs:
        click.echo(f"raised in your code:\n{theirs.rstrip()}", err=True)
    text = str(error) or type(error).__name__
    if isinstance(error, MemoryError):
        text = "memory ran out: the model or the data is too large for this machine, or malformed"
    if isinstance(error, RecursionError):
        text = "the model is nested too deeply"
    click.echo(f"error: {printable(' '.join(text.split()))}", err=True)


def model_argument(name: str = "model") -> Decorator:
    """A positional MODEL: a path."""
    return click.argument(name, type=click.Path(dir_okay=False), metavar=name.upper())


output_option = click.option(
    "-o", "--output", required=True, type=click.Path(dir_okay=False), help="Where to write the model."
)


def replacing_output(source: str = "model") -> Decorator:
    """-o, or --in-place for the path of the argument `source`; handed on as `output` and `in_place`."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @click.option("-o", "--output", type=click.Path(dir_okay=False), help="Where to write the model.")
        @click.option(
            "--in-place", is_flag=True, help="Replace the model that is read, once the new one has been verified."
        )
        @functools.wraps(function)
        def wrapper(*args: Any, output: str | None, in_place: bool, **kwargs: Any) -> Any:
            if (output is None) != in_place:
                raise click.UsageError("give either -o PATH or --in-place")
            return function(*args, output=kwargs[source] if output is None else output, in_place=in_place, **kwargs)

        return wrapper

    return decorate


class Shape(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.5 on
    """`NAME=1,3,224,224`, as a pair of the name and a tuple of ints."""

    name = "NAME=D,D,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        name, separator, dims = value.rpartition("=")
        try:
            shape = tuple(int(d) for d in dims.replace("x", ",").split(",") if d)
        except ValueError:
            shape = (-1,)
        if not separator or any(d < 0 for d in shape):
            self.fail(f"{value!r} is not NAME=1,3,224,224", param, ctx)
        return name, shape


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.5 on
    """Seconds, as `90`, `90s`, `10m` or `1.5h`."""

    name = "DURATION"
    UNITS: ClassVar = {"s": 1, "m": 60, "h": 3600}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value).strip().lower()
        unit = self.UNITS.get(text[-1:])
        try:
            seconds = float(text if unit is None else text[:-1]) * (unit or 1)
        except ValueError:
            seconds = math.nan
        if not 0 < seconds < math.inf:
            self.fail(f"{value!r} is not a positive time as 90, 90s, 10m or 1.5h", param, ctx)
        return seconds


shape_option = click.option(
    "--shape",
    "shapes",
    multiple=True,
    type=Shape(),
    help="Shape of an input with dynamic dimensions; repeatable.",
)


def data_options(required: bool = False) -> Decorator:
    """--data and the options that say how a folder of images is read; handed on as `data` and `images`."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @click.option(
            "--data",
            "data",
            multiple=True,
            required=required,
            help="FILE.py:FUNCTION, a .npz, or a folder of .npz or images; repeatable.",
        )
        @click.option("--image-size", default=None, metavar="H,W", help="Size of images from a folder.")
        @click.option("--resize", type=click.Choice(["stretch", "crop", "pad"]), default="stretch", show_default=True)
        @click.option("--color", type=click.Choice(["rgb", "bgr"]), default="rgb", show_default=True)
        @click.option("--mean", default="0", show_default=True, help="Subtracted from 0..255 pixels, by channel.")
        @click.option("--std", default="255", show_default=True, help="Divides them then, by channel.")
        @click.option("--layout", type=click.Choice(["nchw", "nhwc"]), default="nchw", show_default=True)
        @functools.wraps(function)
        def wrapper(
            *args: Any,
            image_size: str | None,
            resize: str,
            color: str,
            mean: str,
            std: str,
            layout: str,
            **kwargs: Any,
        ) -> Any:
            images = _image_options(image_size, resize, color, mean, std, layout)
            return function(*args, images=images, **kwargs)

        return wrapper

    return decorate


def _image_options(size: str | None, resize: str, color: str, mean: str, std: str, layout: str) -> ImageOptions:
    from onnxcompress.data import ImageOptions

    try:
        pair = None if size is None else tuple(int(v) for v in size.replace("x", ",").split(","))
        means, stds = (tuple(float(v) for v in text.split(",")) for text in (mean, std))
    except ValueError as error:
        raise click.UsageError(f"--image-size, --mean and --std take numbers with commas between: {error}") from error
    if pair is not None and len(pair) != 2:
        raise click.UsageError("--image-size takes H,W")
    if any(v == 0 for v in stds):
        raise click.UsageError("--std must not be 0")
    return ImageOptions(pair, resize, color, means, stds, layout)
