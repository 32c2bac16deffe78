"""What the commands share: values of options."""

from __future__ import annotations

import click
import pytest

from onnxcompress.cli.common import Duration


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400), (" 2M ", 120), (12.5, 12.5)]
)
def test_durations(text: object, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "0", "-3m", "ten", "m", "inf", "nan", "10d", "1m30s"])
def test_what_is_no_duration_is_named(text: str) -> None:
    with pytest.raises(click.BadParameter, match="not a positive time"):
        Duration().convert(text, None, None)
