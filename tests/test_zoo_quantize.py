"""`quantize` on real models: what it writes loads in stock ONNX Runtime and agrees with the original."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxcompress.evaluation import agreement
from onnxcompress.model_io import file_bytes, load_model, save_model
from onnxcompress.quantizer import Quantized, quantize
from onnxcompress.runtime import load
from onnxcompress.runtime.session import run
from tests.zoo import ZOO, ZooModel

CALIBRATION, HELD_OUT = 16, 8

MODES: dict[str, dict[str, Any]] = {
    "static": {},
    "static-portable": {"portable": True},
    "static-s8": {"activations": "s8"},
    "static-u16": {"activations": "u16"},
    "static-repaired": {"smooth": 0.5, "equalize": True, "bias_correction": True, "method": "minmax"},
    "static-4": {"weights": "int4", "smooth": 0.5},
    "dynamic": {"mode": "dynamic"},
    "weight-only-8": {"mode": "weight-only"},
    "weight-only-4": {"mode": "weight-only", "weights": "int4"},
    "weight-only-4-portable": {"mode": "weight-only", "weights": "int4", "portable": True},
}

FLOORS = {
    "static": 0.95, "static-portable": 0.95, "static-s8": 0.93, "static-u16": 0.95, "static-repaired": 0.93,
    "static-4": 0.93, "dynamic": 0.99, "weight-only-8": 0.98, "weight-only-4": 0.95, "weight-only-4-portable": 0.95,
}  # fmt: skip
"""The least mean cosine to the original over held-out feeds, of the worst output. PP-OCRv4's recogniser, whose
softmax is over 6,625 characters, sets that of static (0.96 to 0.98 by the calibration feeds); all others reach 0.99."""

FAST = [
    ("ppocr-cls", "static"), ("ppocr-cls", "static-repaired"), ("magika", "static-s8"), ("magika", "weight-only-4"),
    ("silero-16k", "static"), ("silero", "weight-only-8"), ("minilm", "static-portable"), ("minilm", "dynamic"),
    ("minilm", "static-4"), ("ddddocr-old", "static"),
]  # fmt: skip
SLOW = [pair for pair in itertools.product(ZOO, MODES) if pair not in FAST]

QUANTIZED = {
    "static": {"minilm", "ppocr-rec", "ppocr-det", "ppocr-cls", "ddddocr-det", "magika", "silero-16k"},
    "dynamic": {"minilm", "ppocr-rec", "ppocr-cls", "magika"},
    "weight-only": set(ZOO) - {"ddddocr-old"},
}
"""Models in which each mode finds something: silero's layers lie in subgraphs, which only weight-only enters."""


@pytest.mark.parametrize(
    ("name", "mode"),
    [*FAST, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in SLOW)],
    ids=lambda part: str(part),
)
def test_zoo(name: str, mode: str, zoo: Callable[[str], ZooModel], tmp_path: Path) -> None:
    model = zoo(name)
    feeds = model.feeds(CALIBRATION + HELD_OUT)
    held_out = feeds[CALIBRATION:] or feeds
    options = MODES[mode]
    static = options.get("mode", "static") == "static"
    result = quantize(model.path(), data=feeds[:CALIBRATION] if static else None, threads=1, **options)
    save_model(result.model, tmp_path / "q.onnx")
    _check_decisions(model, options.get("mode", "static"), result)
    original, quantized = load(model.path()), load(tmp_path / "q.onnx")
    assert [(v.name, v.type) for v in quantized.get_inputs()] == [(v.name, v.type) for v in original.get_inputs()]
    assert [(v.name, v.type) for v in quantized.get_outputs()] == [(v.name, v.type) for v in original.get_outputs()]
    scores = []
    for feed in held_out:
        wanted, got = run(original, feed), run(quantized, feed)
        scores.append([agreement(a, b, "cosine") for a, b in zip(wanted, got, strict=True) if a.dtype.kind == "f"])
    worst = float(np.mean(scores, axis=0).min())
    assert worst >= FLOORS[mode], f"cosine {worst:.4f}"
    assert file_bytes(tmp_path / "q.onnx") < 1.03 * file_bytes(model.path())


def _check_decisions(model: ZooModel, mode: str, result: Quantized) -> None:
    if model.is_quantized:
        assert result.notes[0].startswith("the model is quantized already")
        assert [n.op_type for n in result.model.graph] == [n.op_type for n in load_model(model.path()).graph]
        return
    assert any(decision.quantized for decision in result.decisions) == (model.name in QUANTIZED[mode])
    assert all(decision.reason for decision in result.decisions)
    assert any(note.startswith("nothing was quantized") for note in result.notes) == (model.name not in QUANTIZED[mode])
