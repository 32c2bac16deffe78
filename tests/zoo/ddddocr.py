"""ddddocr: `common_det`, a YOLOX-type detector of captcha characters, and `common_old`, a captcha reader.

`common_old` is already quantized (ConvInteger, MatMulInteger, DynamicQuantizeLSTM). Captchas are drawn here.
"""

from __future__ import annotations

import ast
import functools
import string
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from .boxes import f1_score, suppressed
from .drawing import Array, Box, bgr, colors, font, with_noise
from .packages import DDDDOCR, unpacked

Feed = dict[str, np.ndarray[Any, Any]]
Run = Callable[[Feed], list[np.ndarray[Any, Any]]]

SIDE = 416
STRIDES = (8, 16, 32)
LEAST_SCORE, MOST_OVERLAP = 0.1, 0.45
"""Thresholds of a box's score and of non-maximum suppression, as ddddocr has them."""
SYMBOLS = sorted(set(string.ascii_lowercase + string.digits) - set("0o1li9gq"))
"""What a reader can tell apart."""


def detector() -> Path:
    """`images` fp32 BGR 0..255 `[1, 3, 416, 416]` to `[1, 3549, 6]`: center, size, objectness, class."""
    return unpacked(DDDDOCR) / "ddddocr/common_det.onnx"


def old_reader() -> Path:
    """`input1` fp32 grey 0..1 `[1, 1, 64, width]` to scores `[width / 8, 1, 8210]`."""
    return unpacked(DDDDOCR) / "ddddocr/common_old.onnx"


def picture_feeds() -> Iterator[Feed]:
    """100 pictures with characters strewn over them, for the detector."""
    for feed, _ in _pictures(seed=1, count=100):
        yield feed


def picture_f1(run: Run) -> float:
    """F1, in percent, of the characters found in 100 pictures (overlap 0.5)."""
    pictures = list(_pictures(seed=2, count=100))
    found = [_found_characters(run(feed)[0][0]) for feed, _ in pictures]
    return f1_score(found, [boxes for _, boxes in pictures])


def captcha_feeds() -> Iterator[Feed]:
    """100 captchas of 4 to 6 letters and digits, for the reader."""
    for feed, _ in _captchas(seed=3, count=100):
        yield feed


def captcha_accuracy(run: Run) -> float:
    """Percent of 200 captchas read without an error, by greedy CTC."""
    right = 0
    for feed, text in _captchas(seed=4, count=200):
        best = run(feed)[0][:, 0].argmax(-1)
        changed = np.concatenate(([True], best[1:] != best[:-1]))
        right += "".join(_characters()[i] for i in best[changed & (best != 0)]).lower() == text
    return right / 2


def _pictures(seed: int, count: int) -> Iterator[tuple[Feed, Array]]:
    rng = np.random.default_rng(seed)
    for _ in range(count):
        width, height = int(rng.integers(240, 420)), int(rng.integers(150, 300))
        image, boxes = _strewn(rng, width, height)
        ratio = min(SIDE / width, SIDE / height)
        image = image.resize((int(width * ratio), int(height * ratio)), Image.Resampling.BILINEAR)
        pixels = np.full((1, 3, SIDE, SIDE), 114, np.float32)
        pixels[0, :, : image.height, : image.width] = bgr(image)
        yield {"images": pixels}, np.array(boxes, np.float64) * ratio


def _strewn(rng: np.random.Generator, width: int, height: int) -> tuple[Image.Image, list[Box]]:
    """Turned characters that do not overlap, over a blurry coloured background."""
    coarse = Image.fromarray(rng.integers(60, 200, (4, 6, 3), dtype=np.uint8))
    image = with_noise(coarse.resize((width, height), Image.Resampling.BICUBIC), rng, 6)
    taken = np.zeros((height, width), bool)
    boxes: list[Box] = []
    for _ in range(int(rng.integers(3, 7))):
        ink = tuple(int(v) for v in rng.integers(0, 80, 3) + 175 * rng.integers(0, 2))
        glyph = _glyph(rng, str(rng.choice(SYMBOLS)).upper())
        x, y = int(rng.integers(0, width - glyph.width)), int(rng.integers(0, height - glyph.height))
        box = (x, y, x + glyph.width, y + glyph.height)
        if not taken[y : box[3], x : box[2]].any():
            taken[y : box[3], x : box[2]] = True
            image.paste(Image.new("RGB", glyph.size, ink), box[:2], glyph)
            boxes.append(box)
    return image, boxes


def _glyph(rng: np.random.Generator, symbol: str) -> Image.Image:
    """A turned character as a mask, cut to its ink."""
    size = int(rng.integers(36, 64))
    mask = Image.new("L", (2 * size, 2 * size))
    ImageDraw.Draw(mask).text((size // 2, size // 3), symbol, 255, font(size), stroke_width=1)
    mask = mask.rotate(float(rng.uniform(-35, 35)), Image.Resampling.BILINEAR)
    return mask.crop(mask.getbbox())


def _found_characters(output: Array) -> Array:
    """Boxes `[n, 4]`, in pixels of the 416x416 input, of one picture's output `[3549, 6]`."""
    cells, strides = _cells()
    centers = (output[:, :2] + cells) * strides
    sizes = np.exp(output[:, 2:4]) * strides
    scores = output[:, 4] * output[:, 5]
    sure = scores > LEAST_SCORE
    boxes = np.concatenate((centers - sizes / 2, centers + sizes / 2), 1)[sure]
    return boxes[suppressed(boxes, scores[sure], MOST_OVERLAP)]


@functools.cache
def _cells() -> tuple[Array, Array]:
    """Of every prediction: its cell's column and row, and the cell's side in pixels."""
    cells, strides = [], []
    for stride in STRIDES:
        rows, columns = np.mgrid[: SIDE // stride, : SIDE // stride]
        cells.append(np.stack((columns.ravel(), rows.ravel()), 1))
        strides.append(np.full((rows.size, 1), stride))
    return np.concatenate(cells), np.concatenate(strides)


def _captchas(seed: int, count: int) -> Iterator[tuple[Feed, str]]:
    rng = np.random.default_rng(seed)
    for _ in range(count):
        text = "".join(rng.choice(SYMBOLS, rng.integers(4, 7)))
        ground, ink = colors(rng)
        image = Image.new("RGB", (300, 64), ground)
        draw = ImageDraw.Draw(image)
        x = 8
        for symbol in text:
            face = font(int(rng.integers(34, 44)))
            draw.text((x, int(rng.integers(4, 14))), symbol, ink, face)
            x += int(face.getlength(symbol)) + 2
        draw.line((0, *rng.integers(0, 64, 1).tolist(), x, *rng.integers(0, 64, 1).tolist()), ink, 1)
        grey = with_noise(image.crop((0, 0, x + 8, 64)), rng, 8).convert("L")
        yield {"input1": (np.asarray(grey, np.float32) / 255)[None, None]}, text


@functools.cache
def _characters() -> list[str]:
    """The character of every class of the reader; its module of constants is read, not run."""
    tree = ast.parse((unpacked(DDDDOCR) / "ddddocr/charsets.py").read_text("utf-8"))
    lists = {ast.unparse(node.targets[0]): node.value for node in tree.body if isinstance(node, ast.Assign)}
    characters: list[str] = ast.literal_eval(lists["CHARSET_OLD"])
    return characters
