"""What a layer multiplies its weights with: rows of its input, or patches of it under a convolution's kernel."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcompress.errors import CalibrationError

Array = np.ndarray[Any, Any]

MOST_ROWS = 1024
"""Taken of one sample: neighbours in an image or a text tell little more, and time grows with their number."""


@dataclass(frozen=True)
class Rows:
    """A MatMul's or Gemm's input [..., K] as rows."""

    def sample(self, array: Array, rng: np.random.Generator, limit: int = MOST_ROWS) -> Array:
        """float32 [1, rows, K]: all of them, or `limit` drawn at random."""
        rows = array.reshape(-1, array.shape[-1])
        if len(rows) > limit:
            rows = rows[np.sort(rng.choice(len(rows), limit, replace=False))]
        return rows.astype(np.float32, copy=False)[None]


@dataclass(frozen=True)
class Patches:
    """A Conv's input [B, C, *spatial] as the patches that its kernel covers.

    Attributes:
        kernel, strides, dilations: of each spatial axis.
        pads: begin and end of each spatial axis, or the name of an `auto_pad` mode.
        groups: whose channels are apart.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...] | str
    groups: int = 1

    def sample(self, array: Array, rng: np.random.Generator, limit: int = MOST_ROWS) -> Array:
        """float32 [groups, rows, K], K over (*kernel, channel) with the channel innermost: all or `limit` drawn."""
        spans = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        padded = np.pad(array, [(0, 0), (0, 0), *self._pads(array.shape[2:], spans)])
        outputs = [
            (size - span) // stride + 1
            for size, span, stride in zip(padded.shape[2:], spans, self.strides, strict=True)
        ]
        if min(outputs, default=1) < 1:
            raise CalibrationError(f"an input of shape {array.shape} is smaller than the kernel")
        total = len(array) * math.prod(outputs)
        chosen = np.sort(rng.choice(total, limit, replace=False)) if total > limit else np.arange(total)
        batch, *corner = np.unravel_index(chosen, (len(array), *outputs))
        starts = [place * stride for place, stride in zip(corner, self.strides, strict=True)]
        channels_last = np.moveaxis(padded, 1, -1)
        parts = []
        for offset in itertools.product(*(range(k) for k in self.kernel)):
            places = [s + o * d for s, o, d in zip(starts, offset, self.dilations, strict=True)]
            parts.append(channels_last[(batch, *places)])
        # [rows, kernel, C] -> [groups, rows, kernel * C / groups]
        stacked = np.stack(parts, axis=1).astype(np.float32, copy=False)
        grouped = stacked.reshape(len(chosen), len(parts), self.groups, -1).transpose(2, 0, 1, 3)
        return np.ascontiguousarray(grouped).reshape(self.groups, len(chosen), -1)

    def _pads(self, sizes: Sequence[int], spans: Sequence[int]) -> Sequence[tuple[int, int]]:
        if not isinstance(self.pads, str):
            return self.pads
        missing = [
            max((-(-size // stride) - 1) * stride + span - size, 0)
            for size, stride, span in zip(sizes, self.strides, spans, strict=True)
        ]
        low = self.pads == "SAME_LOWER"
        return [(total - total // 2, total // 2) if low else (total // 2, total - total // 2) for total in missing]


def input_rows(node: ir.Node) -> Rows | Patches:
    """How the input of a layer's node is read."""
    if node.op_type != "Conv":
        return Rows()
    weight = node.inputs[1]
    assert weight is not None and weight.const_value is not None
    kernel = tuple(int(size) for size in weight.const_value.shape[2:])  # type: ignore[arg-type]
    ones = [1] * len(kernel)
    pads: tuple[tuple[int, int], ...] | str = node.attributes.get_string("auto_pad", "NOTSET")
    if pads == "VALID":
        pads = tuple((0, 0) for _ in kernel)
    elif pads == "NOTSET":
        given = list(node.attributes.get_ints("pads", [0] * 2 * len(kernel)))
        pads = tuple(zip(given[: len(kernel)], given[len(kernel) :], strict=True))
    return Patches(
        kernel,
        tuple(node.attributes.get_ints("strides", ones)),
        tuple(node.attributes.get_ints("dilations", ones)),
        pads,
        node.attributes.get_int("group", 1),
    )
