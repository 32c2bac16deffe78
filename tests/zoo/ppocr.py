"""PP-OCRv4: a text-line recogniser, a text detector, and a classifier of upright and turned lines.

All pictures are drawn here, so what is in them is known; calibration and evaluation draw from other seeds.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from PIL import Image, ImageDraw

from .boxes import f1_score, regions
from .drawing import Array, Box, bgr, colors, font, phrase, text_line, with_noise
from .packages import RAPIDOCR, unpacked

Feed = dict[str, np.ndarray[Any, Any]]
Run = Callable[[Feed], list[np.ndarray[Any, Any]]]

PAGE = 640
DETECTOR_MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(3, 1, 1)
DETECTOR_STD = np.array([0.229, 0.224, 0.225], np.float32).reshape(3, 1, 1)
PROBABILITY, BOX_SCORE, UNCLIP = 0.3, 0.5, 1.6
"""Thresholds of the probability map and of a box's mean, and the growth of a box, as PP-OCR ships them."""


def recognizer() -> Path:
    """`x` fp32 `[batch, 3, 48, width]` to probabilities `[batch, width / 8, 6625]`."""
    return _models() / "ch_PP-OCRv4_rec_infer.onnx"


def detector() -> Path:
    """`x` fp32 `[batch, 3, height, width]`, multiples of 32, to a probability map `[batch, 1, ...]`."""
    return _models() / "ch_PP-OCRv4_det_infer.onnx"


def classifier() -> Path:
    """`x` fp32 `[batch, 3, 48, 192]` to the probabilities of upright and turned `[batch, 2]`."""
    return _models() / "ch_ppocr_mobile_v2.0_cls_infer.onnx"


def line_feeds() -> Iterator[Feed]:
    """150 text lines for the recogniser."""
    for feed, _ in _lines(seed=1, count=150):
        yield feed


def line_accuracy(run: Run) -> float:
    """Percent of 200 drawn lines that are read without an error (spaces apart), by greedy CTC."""
    right = 0
    for feed, text in _lines(seed=2, count=200):
        right += _decoded(run(feed)[0][0]).replace(" ", "") == text.replace(" ", "")
    return right / 2


def page_feeds() -> Iterator[Feed]:
    """40 pages of text lines, 640x640, for the detector."""
    for feed, _ in _pages(seed=3, count=40):
        yield feed


def page_f1(run: Run) -> float:
    """F1, in percent, of the lines found on 16 drawn pages (overlap 0.5)."""
    pages = list(_pages(seed=4, count=16))
    found = [_found_lines(run(feed)[0][0, 0]) for feed, _ in pages]
    return f1_score(found, [boxes for _, boxes in pages])


def turn_feeds() -> Iterator[Feed]:
    """150 lines, half of them upside down, for the classifier."""
    for feed, _ in _turned(seed=5, count=150):
        yield feed


def turn_accuracy(run: Run) -> float:
    """Percent of 400 lines that are told right as upright or turned."""
    return sum(int(run(feed)[0][0].argmax()) == turned for feed, turned in _turned(seed=6, count=400)) / 4


def _models() -> Path:
    return unpacked(RAPIDOCR) / "rapidocr_onnxruntime/models"


def _lines(seed: int, count: int) -> Iterator[tuple[Feed, str]]:
    rng = np.random.default_rng(seed)
    for _ in range(count):
        text = phrase(rng)
        yield {"x": _fitted(text_line(rng, text), least_width=320)}, text


def _turned(seed: int, count: int) -> Iterator[tuple[Feed, int]]:
    rng = np.random.default_rng(seed)
    for index in range(count):
        image = text_line(rng, phrase(rng, most=2))
        turned = index % 2
        yield {"x": _fitted(image.rotate(180) if turned else image, least_width=192, most_width=192)}, turned


def _fitted(image: Image.Image, least_width: int, most_width: int | None = None) -> Array:
    """Height 48 with the ratio kept, -1..1, zeros on the right up to the least width: `[1, 3, 48, width]`."""
    width = min(math.ceil(48 * image.width / image.height), most_width or 1 << 20)
    pixels = bgr(image.resize((width, 48), Image.Resampling.BILINEAR)) / 127.5 - 1
    return np.pad(pixels, ((0, 0), (0, 0), (0, max(0, least_width - width))))[None].astype(np.float32)


@functools.cache
def _characters() -> list[str]:
    properties = {p.key: p.value for p in onnx.load(recognizer()).metadata_props}
    return ["", *properties["character"].splitlines(), " "]


def _decoded(probabilities: Array) -> str:
    best = probabilities.argmax(-1)
    changed = np.concatenate(([True], best[1:] != best[:-1]))
    return "".join(_characters()[i] for i in best[changed & (best != 0)])


def _pages(seed: int, count: int) -> Iterator[tuple[Feed, Array]]:
    rng = np.random.default_rng(seed)
    for _ in range(count):
        image, boxes = _page(rng)
        pixels = (bgr(image) / 255 - DETECTOR_MEAN) / DETECTOR_STD
        yield {"x": pixels[None].astype(np.float32)}, np.array(boxes, np.float64)


def _page(rng: np.random.Generator) -> tuple[Image.Image, list[Box]]:
    """Lines of text over shapes and noise, some faint; boxes have a margin of 2 pixels, as by hand."""
    ground, ink = colors(rng, least_contrast=45)
    image = Image.new("RGB", (PAGE, PAGE), ground)
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, width, height = (int(v) for v in rng.integers(0, PAGE, 4))
        shade = tuple(int(v) for v in np.array(ground) + rng.integers(-25, 26, 3))
        draw.rectangle((x, y, x + width // 3, y + height // 4), outline=shade, width=int(rng.integers(1, 5)))
        draw.line((width, height, x, y), shade, 2)
    boxes: list[Box] = []
    y = int(rng.integers(8, 40))
    while True:
        face = font(int(rng.integers(9, 36)))
        x, text = int(rng.integers(8, 240)), phrase(rng)
        left, top, right, bottom = (int(v) for v in draw.textbbox((x, y), text, face))
        if bottom > PAGE - 8:
            return with_noise(image, rng, float(rng.uniform(0, 24))), boxes
        if right < PAGE - 8:
            draw.text((x, y), text, ink, face)
            boxes.append((left - 2, top - 2, right + 2, bottom + 2))
            y = bottom + int(rng.integers(6, 24))


def _found_lines(probability: Array) -> Array:
    """Boxes of the map's regions; each is grown, since the network draws text shrunk (as DB does)."""
    kept = []
    for left, top, right, bottom in regions(probability > PROBABILITY).astype(int):
        width, height = right - left, bottom - top
        if min(width, height) >= 3 and probability[top:bottom, left:right].mean() >= BOX_SCORE:
            by = UNCLIP * width * height / (2 * (width + height))
            kept.append((left - by, top - by, right + by, bottom + by))
    return np.array(kept, np.float64).reshape(-1, 4)
