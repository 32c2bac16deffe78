"""Low rank: one linear layer becomes two thin ones."""

from onnxcompress.passes.lowrank.decomposition import Factors, Spectrum, decompose
from onnxcompress.passes.lowrank.factorize import FactorizeLinear
from onnxcompress.passes.lowrank.ranks import Option, break_even, choose_ranks, evenly_spaced, rounded_up

__all__ = [
    "FactorizeLinear",
    "Factors",
    "Option",
    "Spectrum",
    "break_even",
    "choose_ranks",
    "decompose",
    "evenly_spaced",
    "rounded_up",
]
