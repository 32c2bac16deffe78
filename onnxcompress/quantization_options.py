"""How `quantize` quantizes: its options, and which of them go together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from onnxcompress.calibration import METHODS
from onnxcompress.passes.lower.four_bits import LEAST_BLOCK
from onnxcompress.passes.quantize import QuantizeWeights
from onnxcompress.passes.quantize.storage import Blocks

Mode = Literal["static", "dynamic", "weight-only"]
MODES = ("static", "dynamic", "weight-only")


@dataclass(frozen=True)
class Options:
    """How to quantize; `quantize` says what each is.

    Raises:
        ValueError: values that do not exist or do not go together.
    """

    mode: Mode = "static"
    method: str | None = None
    weights: Literal["int8", "int4"] = "int8"
    block_size: int | None = None
    activations: Literal["u8", "s8", "u16"] = "u8"
    exclude: Sequence[str] = ()
    wide: Sequence[str] = ()
    smooth: float | None = None
    equalize: bool = False
    bias_correction: bool = False
    portable: bool = False
    threads: int = 0
    gptq: bool = False
    target: Literal["cpu", "cuda"] = "cpu"

    def __post_init__(self) -> None:
        choices = {
            "mode": MODES, "method": (None, *METHODS), "weights": ("int8", "int4"),
            "activations": ("u8", "s8", "u16"), "target": ("cpu", "cuda"),
        }  # fmt: skip
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} must be one of {', '.join(filter(None, allowed))}, not {getattr(self, name)!r}"
                )
        if isinstance(self.exclude, str) or isinstance(self.wide, str):
            raise ValueError("exclude and wide take a list of names, not one string")
        if self.smooth is not None and not 0 <= self.smooth <= 1:
            raise ValueError(f"smooth must lie between 0 and 1, not {self.smooth}")
        for mode, names in _ONLY_FOR.items():
            for name in names:
                given, default = getattr(self, name) or None, getattr(Options, name) or None
                if self.mode not in mode and given != default:
                    raise ValueError(
                        f"{name.replace('_', ' ')} is for {' and '.join(mode)} quantization, not {self.mode}"
                    )
        if self.gptq and self.weights == "int8" and self.block_size is None:
            raise ValueError("gptq is for weights in blocks: int4, or int8 with a block size")
        if self.wide and self.activations == "s8":
            raise ValueError("wide goes with u8 activations, not with s8")
        if self.target == "cuda":
            self._check_cuda()
        if self.mode == "static":
            self._check_static_weights()
        self.weight_pass()

    @property
    def four_bits(self) -> int:
        """Inputs that share a scale in the 4-bit weights of static quantization; 0: weights take 8 bits."""
        return (self.block_size or LEAST_BLOCK) if self.mode == "static" and self.weights == "int4" else 0

    def _check_static_weights(self) -> None:
        if self.weights == "int8":
            if self.block_size is not None:
                raise ValueError("a block size is for weight-only quantization, and for 4-bit weights")
            return
        if self.portable:
            raise ValueError("4-bit weights for u8 activations are for an operator of ours, which portable leaves out")
        if self.activations != "u8" or self.wide:
            raise ValueError("4-bit weights go with u8 activations")
        if self.four_bits < LEAST_BLOCK:
            raise ValueError(f"4-bit weights for u8 activations come in blocks of at least {LEAST_BLOCK} inputs")

    def _check_cuda(self) -> None:
        if self.portable:
            raise ValueError("target cuda means operators of our own, which portable leaves out")
        if self.mode == "dynamic":
            raise ValueError("for cuda there is static and weight-only quantization, no dynamic one")
        if self.activations != "u8" or self.wide:
            raise ValueError("the operators for cuda take u8 activations")

    def weight_pass(self, exclude: Sequence[str] = (), solved: Mapping[str, Blocks] | None = None) -> QuantizeWeights:
        """The pass of the weight-only mode.

        Four bits become MatMulNBits unless portable or for CUDA, where an operator of ours takes what DequantizeLinear
        gives; eight stay behind DequantizeLinear, per channel, which ONNX Runtime 1.31 runs as fast or faster before a
        MatMul.
        """
        four, own = self.weights == "int4", self.target == "cuda"
        return QuantizeWeights(
            4 if four else 8, block_size=self.block_size,
            form="nbits" if four and not (self.portable or own) else "dequantize",
            accuracy_level=4, exclude=frozenset(exclude), solved=solved,
        )  # fmt: skip

    def check_sources(self, *, data: bool, ranges: bool) -> None:
        """Whether the data and ranges that are there are those that are needed.

        Raises:
            ValueError: they are not.
        """
        changed = self.smooth is not None or self.equalize
        if ranges and self.mode != "static":
            raise ValueError(f"{self.mode} quantization takes no ranges")
        if self.mode == "static" and not (data or ranges):
            raise ValueError("static quantization needs data to calibrate on, or ranges")
        if ranges and changed:
            raise ValueError("smooth and equalize change the tensors that ranges were taken of: give data instead")
        if self.mode == "dynamic" and data != (self.smooth is not None):
            reason = "with smooth needs data" if self.smooth is not None else "takes no data (but with smooth)"
            raise ValueError(f"dynamic quantization {reason}")
        if self.mode == "weight-only" and data != self.gptq:
            reason = "with gptq needs data" if self.gptq else "takes no data (but with gptq)"
            raise ValueError(f"weight-only quantization {reason}")
        if self.bias_correction and not data:
            raise ValueError("bias correction needs data")
        if data and ranges and not self.bias_correction:
            raise ValueError("give data or ranges, not both (data beside ranges is for bias correction)")


_ONLY_FOR: dict[tuple[str, ...], tuple[str, ...]] = {
    ("static",): ("method", "activations", "wide", "bias_correction"),
    ("static", "dynamic"): ("smooth", "equalize"),
    ("static", "weight-only"): ("weights", "block_size"),
    ("weight-only",): ("gptq",),
}
