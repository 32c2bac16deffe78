"""How `prune` prunes: its options, and which of them go together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from onnxcompress.passes.prune import GRIDS, checked_sparsity
from onnxcompress.passes.prune.allocation import MOST_REMOVED

Pattern = Literal["channels", "block4x4", "block1x4", "block16x4", "2:4", "unstructured"]
Saliency = Literal["magnitude", "wanda", "obs", "taylor", "fisher"]
Allocation = Literal["uniform", "global", "sensitivity"]
Solver = Literal["admm", "obs"]
PATTERNS, SALIENCIES = get_args(Pattern), get_args(Saliency)
ALLOCATIONS, SOLVERS = get_args(Allocation), get_args(Solver)

SAMPLES = 128


@dataclass(frozen=True)
class Options:
    """How to prune; `prune` says what each is.

    Raises:
        ValueError: values that do not exist or do not go together.
    """

    pattern: Pattern
    sparsity: float | None = None
    macs: float | None = None
    saliency: Saliency | None = None
    allocation: Allocation = "uniform"
    exclude: Sequence[str] = ()
    compensate: bool | None = None
    solver: Solver = "admm"
    samples: int = SAMPLES
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    threads: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        choices = {
            "pattern": PATTERNS, "saliency": (None, *SALIENCIES), "allocation": ALLOCATIONS, "solver": SOLVERS,
        }  # fmt: skip
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                listed = ", ".join(filter(None, allowed))
                raise ValueError(f"{name} must be one of {listed}, not {getattr(self, name)!r}")
        if isinstance(self.exclude, str):
            raise ValueError("exclude takes a list of names, not one string")
        if self.samples < 1:
            raise ValueError(f"samples must be at least 1, not {self.samples}")
        if self.pattern == "channels":
            self._check_channels()
        elif self.macs is not None:
            raise ValueError("macs is for the pattern channels; masks take sparsity, the share of weights removed")
        else:
            checked_sparsity(self.pattern, self.sparsity)
            if self.allocation != "uniform" and (self.sparsity or 0) > MOST_REMOVED:
                raise ValueError(f"with the allocation {self.allocation} at most {MOST_REMOVED} can be removed")
            if GRIDS[self.pattern].keep is not None and self.allocation != "uniform":
                raise ValueError(f"{self.pattern} removes the same share everywhere: it takes no allocation")
        if self.solver != "admm" and (self.compensate is False or self.saliency not in (None, "obs")):
            raise ValueError("solver is for compensation with the saliency obs")

    def check_data(self, given: bool) -> None:
        """Whether there is data where it is needed.

        Raises:
            ValueError: there is none.
        """
        if given:
            return
        if self.saliency not in (None, "magnitude"):
            raise ValueError(f"the saliency {self.saliency} needs data")
        if self.allocation == "sensitivity":
            raise ValueError("the allocation sensitivity needs data")
        if self.compensate or self.solver != "admm":
            raise ValueError("compensation needs data")

    def _check_channels(self) -> None:
        if self.sparsity is not None:
            raise ValueError("sparsity is for masks; channels take macs, the share of multiply-accumulates to keep")
        if self.macs is None:
            raise ValueError("the pattern channels needs macs: the share of multiply-accumulates to keep")
        if not 0 < self.macs < 1:
            raise ValueError(f"macs must lie between 0 and 1, not {self.macs}")
        if self.allocation != "uniform" or self.solver != "admm":
            raise ValueError("channels are chosen over the whole model: they take no allocation and no solver")
