"""The lines under the table of `compress`: what became of the compute nodes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from onnxcompress.cli.common import Output
from onnxcompress.cli.table import show_result
from onnxcompress.report import Measured, NodeReport, Result

MEASURED = Measured("m.onnx", 100, 10, None, "ab", None, None)


def line(nodes: Sequence[NodeReport], capsys: pytest.CaptureFixture[str]) -> str:
    """The line about compute nodes; "" where there is none."""
    show_result(Result(MEASURED, MEASURED, None, True, 0.01, nodes, {}, {}), Output(False, 0, 0))
    return next((text for text in capsys.readouterr().out.splitlines() if "compute node" in text), "")


def node(decision: str, native: str = "", reason: str = "QConv") -> NodeReport:
    return NodeReport("n", "Conv", decision, reason, native=native)


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([node("int8")], "1 of 1 compute nodes run in int8"),
        ([node("int8", "a"), node("int8", "a")], "2 of 2 compute nodes run in int8, in 1 native operator"),
        ([node("int8", "a"), node("int8", "b")], "2 of 2 compute nodes run in int8, in 2 native operators"),
        (
            [node("int8", "a"), node("int8"), node("float", reason="slow"), node("float", reason="slow")],
            "2 of 4 compute nodes run in int8, 1 of them in 1 native operator; float: 2 (slow)",
        ),
        ([node("float", "a", "kept")], "0 of 1 compute nodes run in int8; float: 1 (kept)"),
        ([], ""),
    ],
)
def test_nodes(nodes: list[NodeReport], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert line(nodes, capsys) == expected
