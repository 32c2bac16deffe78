"""Cases of EmbedLayerNorm."""

from typing import Any

import numpy as np

from tests.ops.cases.case import Array, Case

_rng = np.random.default_rng(0)
_WORDS, _POSITIONS = 50, 40


def _case(
    name: str,
    batch: int,
    length: int,
    channels: int,
    types: bool = True,
    positions: str = "table",
    scale: str = "one",
    zero_point: int | None = 130,
    outputs: tuple[str, ...] = ("y", "q"),
    ids: Any = np.int64,
    table: Array | None = None,
    places: str = "float",
    **attributes: Any,
) -> Case:
    def floats(*shape: int) -> Array:
        return _rng.normal(0, 0.3, shape).astype(np.float32)

    given = {
        "": None,
        "table": None,
        "row": np.arange(length)[::-1].copy(),
        "each": _rng.integers(0, _POSITIONS, (batch, length)).astype(np.int32),
    }[positions]
    scales = {
        "": None,
        "one": np.array(0.03, np.float32),
        "channels": _rng.uniform(0.02, 0.06, channels).astype(np.float32),
    }[scale]
    inputs = [
        _rng.integers(0, _WORDS, (batch, length)).astype(ids),
        _rng.integers(-127, 128, (_WORDS, channels)).astype(np.int8) if table is None else table,
        _rng.uniform(0.001, 0.01, _WORDS).astype(np.float32),
        _rng.integers(0, 2, (batch, length)).astype(ids) if types else None,
        floats(2, channels) if types else None,
        floats(_POSITIONS, channels) if positions else None,
        given,
        (1 + floats(channels)).astype(np.float32),
        floats(channels),
        scales,
        None if zero_point is None else np.array(zero_point, np.uint8),
        None,
    ]
    if places == "int8":
        inputs[5] = _rng.integers(-127, 128, (_POSITIONS, channels)).astype(np.int8)
        inputs[11] = _rng.uniform(0.001, 0.01, _POSITIONS).astype(np.float32)
    while inputs[-1] is None:
        inputs.pop()
    return Case("EmbedLayerNorm", name, inputs, attributes, outputs=outputs)


_ROWS = ("y", "q", "row_scale", "row_zero_point")

CASES = [
    _case("sentences", 2, 33, 384),
    _case("y alone", 1, 5, 64, scale="", zero_point=None, outputs=("y",)),
    _case("q alone", 1, 5, 64, outputs=("q",)),
    _case("int32 ids", 2, 5, 64, ids=np.int32),
    _case("odd channels", 2, 5, 67),
    _case("few channels", 2, 5, 3),
    _case("a scale per channel", 2, 5, 70, scale="channels"),
    _case("a scale per channel and no zero point", 2, 5, 70, scale="channels", zero_point=None),
    _case("no zero point", 2, 5, 64, zero_point=None),
    _case("zero point 0", 2, 5, 64, zero_point=0),
    _case("zero point 255", 2, 5, 64, zero_point=255),
    _case("words alone", 2, 5, 64, types=False, positions=""),
    _case("no types", 2, 5, 64, types=False),
    _case("no positions", 2, 5, 64, positions=""),
    _case("positions of a row", 2, 5, 64, positions="row"),
    _case("positions of each", 2, 5, 64, positions="each"),
    _case("positions from 2 on", 2, 5, 64, position_offset=2),
    _case("int8 positions", 2, 5, 64, places="int8"),
    _case("int8 positions, odd channels", 2, 5, 67, places="int8"),
    _case("int8 positions of each", 2, 5, 67, places="int8", positions="each"),
    _case(
        "int8 positions from 2 on, no rounding",
        2,
        5,
        20,
        places="int8",
        position_offset=2,
        scale="",
        zero_point=None,
        outputs=("y",),
    ),
    _case("epsilon", 2, 5, 64, epsilon=0.5),
    _case("dynamic", 2, 33, 384, scale="", zero_point=None, outputs=_ROWS, dynamic=1),
    _case("dynamic and smoothed", 2, 5, 70, scale="channels", zero_point=None, outputs=_ROWS, dynamic=1),
    _case("dynamic, q alone", 2, 5, 70, scale="", zero_point=None, outputs=("q",), dynamic=1),
    _case("no batch", 0, 5, 64),
    _case("no tokens", 2, 0, 64),
    _case("a table of zeros", 2, 5, 64, types=False, positions="", table=np.zeros((_WORDS, 64), np.int8), epsilon=1e-5),
    _case(
        "extreme words",
        2,
        5,
        64,
        table=np.where(np.arange(64) % 2, 127, -127).astype(np.int8) * np.ones((_WORDS, 1), np.int8),
    ),
]
