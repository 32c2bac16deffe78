"""Real transformers: MiniLM, and the encoder blocks inside PP-OCR's recogniser."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

import numpy as np

from onnxcompress.model_io import load_model
from tests.passes.lower_transformer.encoders import lowered, outputs, similarity
from tests.zoo import ZooModel, minilm, ppocr

Zoo = Callable[[str], ZooModel]
LAYERS = 6


def test_minilm_is_five_operators_a_layer_and_two(zoo: Zoo) -> None:
    path = zoo("minilm").path()
    feeds = list(islice(minilm.calibration(), 12))
    made = lowered(load_model(path), feeds, smooth=0.6)
    assert made.census == {
        "EmbedLayerNorm": 1, "QLinear": 2 * LAYERS, "QAttention": LAYERS, "QLinearLayerNorm": 2 * LAYERS, "MeanPool": 1,
    }  # fmt: skip
    held_out = list(islice(minilm.sentences500(), 12))
    assert similarity(outputs(made.native, held_out), outputs(made.prepared, held_out)) > 0.998


def test_the_blocks_of_the_recogniser(zoo: Zoo) -> None:
    path = zoo("ppocr-rec").path()
    feeds = list(islice(ppocr.line_feeds(), 6))
    made = lowered(load_model(path), feeds, smooth=None)
    assert {name: made.census[name] for name in ("QLayerNorm", "QAttention", "QLinearLayerNorm", "QLinear")} == {
        "QLayerNorm": 1, "QAttention": 2, "QLinearLayerNorm": 4, "QLinear": 5,
    }  # fmt: skip
    assert not {"Softmax", "LayerNormalization", "MatMul"} & set(made.census) - {"Softmax"}
    assert made.census["Softmax"] == 1  # of the characters
    native, quantized, real = (outputs(m, feeds) for m in (made.native, made.quantized, made.prepared))
    agree = [float(np.mean(a.argmax(-1) == b.argmax(-1))) for a, b in zip(native, real, strict=True)]
    before = [float(np.mean(a.argmax(-1) == b.argmax(-1))) for a, b in zip(quantized, real, strict=True)]
    assert np.mean(agree) > 0.97 and np.mean(agree) > np.mean(before) - 0.02
