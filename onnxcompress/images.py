"""Images as feeds, for a model with one image input."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcompress.errors import DataError, first_line

if TYPE_CHECKING:
    from PIL import Image

    from onnxcompress.data import Feed, ImageOptions

Array = np.ndarray[Any, Any]
RESIZES = ("stretch", "crop", "pad")
COLORS = ("rgb", "bgr")
LAYOUTS = ("nchw", "nhwc")


class ImageReader:
    """Reads image files as feeds of one input.

    The input is `[1, C, H, W]` or `[C, H, W]` (layout `nchw`), `[1, H, W, C]` or `[H, W, C]` (`nhwc`), with
    3 channels, or 1, which gets grey. Float inputs get `(pixel - mean) / std` of 0..255 pixels, `mean` and
    `std` by channel in the order the model gets them; uint8 inputs get the pixels.

    Args:
        input_types: dtype and dimensions (None: dynamic; empty: unknown) of every input of the model.
        options: how images are made to fit. `stretch` changes the ratio; `crop` cuts the longer side evenly;
            `pad` adds a border of the mean's color, evenly. The interpolation is bilinear, antialiased.

    Raises:
        DataError: the model has not exactly one input, the input is no image, its size is not known, or the
            options do not fit it.
    """

    def __init__(
        self, input_types: Mapping[str, tuple[np.dtype[Any], tuple[int | None, ...]]], options: ImageOptions
    ) -> None:
        if len(input_types) != 1:
            names = ", ".join(input_types) or "none"
            raise DataError(f"a folder of images feeds a model with one input; this one's are: {names}")
        for value, allowed, option in (
            (options.resize, RESIZES, "--resize"),
            (options.color, COLORS, "--color"),
            (options.layout, LAYOUTS, "--layout"),
        ):
            if value not in allowed:
                raise DataError(f"{option} {value}: give one of {', '.join(allowed)}")
        ((self.name, (self.dtype, dims)),) = input_types.items()
        self.options = options
        if self.dtype != np.uint8 and self.dtype.kind != "f":
            raise DataError(f"input {self.name!r} is {self.dtype}: images feed float or uint8 inputs")
        self.has_batch, self.channels, self.height, self.width = _geometry(self.name, dims, options)
        self.mean = _by_channel(options.mean, self.channels, "--mean")
        self.std = _by_channel(options.std, self.channels, "--std")

    def read(self, path: Path) -> Feed:
        """The feed of one image file.

        Raises:
            DataError: Pillow is missing, or the file is no image that it can read.
        """
        pixels: Array = np.asarray(self._fitted(_open(path, self.channels)), np.float32)
        pixels = pixels.reshape(self.height, self.width, self.channels)
        if self.options.color == "bgr":
            pixels = pixels[:, :, ::-1]
        if self.dtype != np.uint8:
            pixels = (pixels - self.mean) / self.std
        if self.options.layout == "nchw":
            pixels = pixels.transpose(2, 0, 1)
        array = np.ascontiguousarray(pixels, self.dtype)
        return {self.name: array[None] if self.has_batch else array}

    def _fitted(self, image: Image.Image) -> Image.Image:
        from PIL import Image, ImageOps

        size = (self.width, self.height)
        if image.size == size:
            return image
        bilinear = Image.Resampling.BILINEAR
        if self.options.resize == "crop":
            return ImageOps.fit(image, size, bilinear)
        if self.options.resize == "pad":
            border = tuple(int(v) for v in np.clip(np.rint(self.mean), 0, 255))
            if self.options.color == "bgr":
                border = border[::-1]
            return ImageOps.pad(image, size, bilinear, color=border if self.channels == 3 else border[0])
        return image.resize(size, bilinear)


def _geometry(name: str, dims: tuple[int | None, ...], options: ImageOptions) -> tuple[bool, int, int, int]:
    """Whether there is a batch axis, and the channels, height and width, from the input's dimensions."""
    shape = dims or (None, None, None, None)
    if len(shape) not in (3, 4):
        raise DataError(f"input {name!r} has {len(shape)} axes: an image has 4 (or 3, without batch)")
    if len(shape) == 4 and shape[0] not in (None, 1):
        raise DataError(f"input {name!r} takes batches of {shape[0]}: images are fed one at a time")
    axes = shape[-3:]
    channels, *own = axes if options.layout == "nchw" else (axes[2], axes[0], axes[1])
    if channels not in (None, 1, 3):
        other = axes[2] if options.layout == "nchw" else axes[0]
        hint = f"; try --layout {'nhwc' if options.layout == 'nchw' else 'nchw'}" if other in (1, 3) else ""
        raise DataError(f"input {name!r} has {channels} channels as {options.layout}, an image has 3 or 1{hint}")
    if options.size is None and None in own:
        raise DataError(f"input {name!r} has no fixed height and width: give --image-size H,W")
    height, width = options.size or (int(own[0] or 0), int(own[1] or 0))
    if height < 1 or width < 1:
        raise DataError(f"--image-size {height},{width}: give positive numbers")
    if any(mine not in (None, given) for mine, given in zip(own, (height, width), strict=True)):
        wanted = ",".join("?" if v is None else str(v) for v in own)
        raise DataError(f"--image-size {height},{width}: input {name!r} takes {wanted}")
    return len(shape) == 4, 3 if channels is None else channels, height, width


def _by_channel(values: tuple[float, ...], channels: int, option: str) -> Array:
    if len(values) not in (1, channels):
        raise DataError(f"{option} has {len(values)} numbers: give 1 or {channels}, one for each channel")
    return np.broadcast_to(np.array(values, np.float32), (channels,))


def _open(path: Path, channels: int) -> Image.Image:
    """The image with 8 bits in each of its 3 channels or its grey one."""
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError("images need Pillow: pip install onnxcompress[images]") from error
    try:
        with Image.open(path) as image:
            # 16-bit grey would be clipped to white by convert(), not scaled.
            if image.mode.startswith("I;16"):
                return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert(
                    "L" if channels == 1 else "RGB"
                )
            return image.convert("L" if channels == 1 else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: not a readable image ({first_line(error)})") from error
