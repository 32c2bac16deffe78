"""Drawing text with Pillow's own font. Everything follows from a random generator."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Array = np.ndarray[Any, Any]
Box = tuple[int, int, int, int]
"""Left, top, right, bottom, in pixels; right and bottom excluded."""

WORDS = """
    account address amount balance batch before between bottle branch bridge building camera change
    channel city client cloud coffee column company control copper country current customer delivery
    detail device digital discount district energy engine evening export factor family figure forest
    garden general glass harbor history hotel house import index invoice island january journal kitchen
    language library license light machine market measure member message meter middle minute model
    monday morning mountain museum network north number office orange order output paper parking partner
    payment people picture planet platform policy position power price printer product program project
    quality quantity quarter question receipt record region report result return river sample schedule
    school science season section service signal silver south space square station storage street summer
    supply surface switch system table target ticket today total track traffic transfer travel update
    value version vessel village voltage volume water weather weekend weight window winter world yellow
    zone
""".split()  # noqa: SIM905 (ten lines, not 180)


@functools.cache
def font(size: int) -> Any:
    """Pillow's built-in outline font."""
    return ImageFont.load_default(size)


def phrase(rng: np.random.Generator, most: int = 4) -> str:
    """One to `most` words: lower case, capitalised, upper case, numbers, prices, codes."""
    return " ".join(_token(rng) for _ in range(rng.integers(1, most + 1)))


def _token(rng: np.random.Generator) -> str:
    kind = rng.random()
    word = str(rng.choice(WORDS))
    if kind < 0.45:
        return word
    if kind < 0.65:
        return word.capitalize()
    if kind < 0.75:
        return word.upper()
    if kind < 0.85:
        return str(rng.integers(10, 100000))
    if kind < 0.95:
        return f"{rng.integers(1, 1000)}.{rng.integers(0, 100):02d}"
    return f"{word[:2].upper()}-{rng.integers(10, 1000)}"


def colors(rng: np.random.Generator, least_contrast: int = 90) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A background and an ink that differ by `least_contrast` or more in mean brightness."""
    while True:
        ground, ink = rng.integers(0, 256, (2, 3))
        if abs(ground.mean() - ink.mean()) >= least_contrast:
            return tuple(map(int, ground)), tuple(map(int, ink))


def text_line(rng: np.random.Generator, text: str) -> Image.Image:
    """A tight picture of one line of text, with a margin of a few pixels."""
    ground, ink = colors(rng)
    face = font(int(rng.integers(18, 44)))
    left, top, right, bottom = (int(v) for v in face.getbbox(text))
    margin = rng.integers(2, 8, 4)
    size = (right - left + int(margin[0] + margin[2]), bottom - top + int(margin[1] + margin[3]))
    image = Image.new("RGB", size, ground)
    ImageDraw.Draw(image).text((int(margin[0]) - left, int(margin[1]) - top), text, ink, face)
    return with_noise(image, rng, float(rng.uniform(0, 12)))


def with_noise(image: Image.Image, rng: np.random.Generator, sigma: float) -> Image.Image:
    """The image with Gaussian noise of that standard deviation, in 8-bit levels."""
    pixels = np.asarray(image, np.float32)
    return Image.fromarray(np.clip(pixels + rng.normal(0, sigma, pixels.shape), 0, 255).astype(np.uint8))


def bgr(image: Image.Image) -> Array:
    """Pixels as fp32 0..255 `[3, height, width]`, in the channel order of OpenCV, which these models take."""
    return np.ascontiguousarray(np.asarray(image.convert("RGB"), np.float32)[:, :, ::-1].transpose(2, 0, 1))
