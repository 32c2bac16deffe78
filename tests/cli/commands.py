"""What tests of several commands share."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from onnxcompress.cli import main
from onnxcompress.model_io import save_model
from tests.passes.quantize.models import build, normal

TWO_LAYERS = """agraph (float[n,32] x) => (float[n,32] y) {
    [first] a = MatMul (x, w1)
    [act] b = Relu (a)
    [second] y = MatMul (b, w2)
}"""


def run(command: str, *arguments: object) -> Result:
    """A command, as from the command line."""
    return CliRunner().invoke(main, [command, *map(str, arguments)])


def assert_fails(result: Result, message: str, code: int = 1) -> None:
    """The command ended with this code and message; a failure (1) is told in one line."""
    assert result.exit_code == code, result.output
    assert message in result.stderr
    if code == 1:
        assert len(result.stderr.strip().splitlines()) == 1


def save_two_layers(path: Path) -> Path:
    """`first` and `second`, MatMuls of 32 to 64 to 32 with a Relu between."""
    weights = {"w1": normal(32, 64, scale=0.2), "w2": normal(64, 32, seed=1, scale=0.2)}
    save_model(build(TWO_LAYERS, weights), path)
    return path
