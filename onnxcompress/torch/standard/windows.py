"""Where the windows of convolutions and pools lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from onnxcompress.torch.standard.operator import Call

Ints = Sequence[int]


@dataclass(frozen=True)
class Windows:
    """The attributes that convolutions and pools share.

    Attributes:
        kernel: None where it is that of the weight.
        pads: begins, then ends; None where `auto_pad` says how many.
        ceiling: windows may reach over the end.
    """

    kernel: Ints | None
    strides: Ints
    dilations: Ints
    pads: Ints | None
    auto_pad: str
    ceiling: bool

    @classmethod
    def of(cls, call: Call, dimensions: int) -> Windows:
        """Of a node over this many spatial axes."""
        auto_pad = call.get("auto_pad") or "NOTSET"
        ones = [1] * dimensions
        return cls(
            kernel=call.get("kernel_shape"),
            strides=call.get("strides") or ones,
            dilations=call.get("dilations") or ones,
            pads=list(call.get("pads") or [0] * 2 * dimensions) if auto_pad == "NOTSET" else None,
            auto_pad=auto_pad,
            ceiling=bool(call.get("ceil_mode", 0)),
        )

    def padding(self, size: Ints, kernel: Ints) -> tuple[list[int], list[int]]:
        """Begins and ends for an input of this spatial size."""
        n = len(size)
        if self.pads is not None:
            return list(self.pads[:n]), list(self.pads[n:])
        if self.auto_pad == "VALID":
            return [0] * n, [0] * n
        begins, ends = [], []
        for length, k, stride, dilation in zip(size, kernel, self.strides, self.dilations, strict=True):
            reach = (-(-length // stride) - 1) * stride + dilation * (k - 1) + 1
            total = max(reach - length, 0)
            smaller = total // 2
            begins.append(smaller if self.auto_pad == "SAME_UPPER" else total - smaller)
            ends.append(total - begins[-1])
        return begins, ends

    def overhang(self, size: Ints, kernel: Ints, begins: Ints, ends: Ints) -> list[int]:
        """How far the last windows reach over the padded end, where they may.

        A window that would start beyond the input and the padding before it is left out.
        """
        if not self.ceiling:
            return [0] * len(size)
        result = []
        for i, length in enumerate(size):
            reach = self.dilations[i] * (kernel[i] - 1) + 1
            room = length + begins[i] + ends[i]
            steps = -(-(room - reach) // self.strides[i])
            if steps * self.strides[i] >= length + begins[i]:
                steps -= 1
            result.append(max(steps * self.strides[i] + reach - room, 0))
        return result


def pad_spatial(x: torch.Tensor, begins: Ints, ends: Ints, value: float = 0.0) -> torch.Tensor:
    """Pad the trailing axes; F.pad counts them from the last."""
    if not any(begins) and not any(ends):
        return x
    pairs = [side for begin, end in zip(reversed(begins), reversed(ends), strict=True) for side in (begin, end)]
    return F.pad(x, pairs, value=value)
