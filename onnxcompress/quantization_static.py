"""Static quantization: ranges for a plan, and what stays float for want of one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from onnxcompress.calibration import Ranges, calibrate
from onnxcompress.calibration.taps import computed_values
from onnxcompress.data import DataSet
from onnxcompress.errors import CalibrationError
from onnxcompress.passes.quantize import Decision, Plan, roles
from onnxcompress.progress import Progress
from onnxcompress.recipe import Recipe, make_plan

LEVELS = {"u8": 256, "s8": 256, "u16": 65536}
SHOWN = 5


@dataclass
class RangeSource:
    """Gives the ranges of a model's tensors: from ranges taken before, or from data.

    Attributes:
        model: the float model that is quantized.
        recipe: says the activations' type.
        method: how data becomes ranges.
        intervals: those that were asked for and found.
        reasons: why the others have none.
    """

    model: ir.Model
    recipe: Recipe
    given: Ranges | None
    data: DataSet | None
    method: str
    threads: int
    progress: Progress
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def find(self, names: Iterable[str], wide: Set[str]) -> None:
        """Fill `intervals` and `reasons` for these tensors, of which `wide` take 16 bits.

        Raises:
            CalibrationError: as `calibrate`; or the ranges given lack tensors altogether.
        """
        known = computed_values(self.model.graph)
        asked = dict.fromkeys(n for n in names if n not in self.intervals and n not in self.reasons)
        constant = [name for name in asked if name not in known]
        self.reasons |= dict.fromkeys(constant, "it does not depend on the model's inputs")
        asked = dict.fromkeys(name for name in asked if name in known)
        if not asked:
            return
        ranges = self.given if self.given is not None else self._calibrated(list(asked))
        missing = [n for n in asked if n not in ranges.observers and n not in ranges.left_out]
        if missing:
            shown = ", ".join(missing[:SHOWN]) + (f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else "")
            raise CalibrationError(
                f"the ranges lack {len(missing)} tensors that are needed: {shown}; calibrate all tensors "
                "(`onnxcompress calibrate` without --tensor), after `onnxcompress optimize` where the model's "
                "opset is below 21, or give --data"
            )
        symmetric = self.recipe.activations == "s8"
        for name in asked:
            if name in ranges:
                levels = LEVELS["u16" if name in wide else self.recipe.activations]
                self.intervals[name] = ranges.interval(name, symmetric=symmetric, levels=levels)
            else:
                self.reasons[name] = ranges.left_out.get(name, "it was empty in every sample")

    def _calibrated(self, names: list[str]) -> Ranges:
        assert self.data is not None
        return calibrate(
            self.model, self.data, method=self.method, tensors=names, threads=self.threads, leave_out_masks=True,
            progress=self.progress,
        )  # fmt: skip


def with_ranges(recipe: Recipe, source: RangeSource) -> tuple[Recipe, dict[str, str]]:
    """The recipe with the ranges of its plan, and without the nodes whose tensors have none.

    Returns:
        the recipe, and why each node that it excludes for that stays float, by name.
    """
    lost: dict[str, str] = {}
    while True:
        plan = make_plan(source.model, recipe)
        source.find(plan.observed, wide_tensors(plan, recipe))
        new = dict(_rangeless(plan, source.reasons))
        if not new:
            ranges = {name: source.intervals[name] for name in plan.observed}
            return replace(recipe, ranges=ranges), lost
        lost |= new
        recipe = replace(recipe, exclude={**recipe.exclude, **dict.fromkeys(new, "range")})


def wide_tensors(plan: Plan, recipe: Recipe) -> set[str]:
    """The tensors that take 16 bits since a node that reads them is to."""
    nodes = [node for node in plan.compute if node.name in recipe.wide]
    return {value.name or "" for node in nodes for value in roles.activation_inputs(node)}


def explained(decisions: Iterable[Decision], reasons: Mapping[str, str]) -> list[Decision]:
    """Decisions with better reasons, by node name."""
    return [replace(d, reason=reasons.get(d.name, d.reason)) for d in decisions]


def _rangeless(plan: Plan, reasons: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Quantized nodes that touch a tensor without a range, and that tensor's reason."""
    for node in plan.quantized:
        values = [*node.inputs, *node.outputs, roles.fused_output(node)]
        for name in [value.name for value in values if value is not None]:
            if name not in plan.tensors:
                continue
            affine = plan.affines.get(name)
            for touched in (name, (affine.root.name or "") if affine is not None else name):
                if touched in reasons:
                    yield node.name or "", f"tensor {touched!r} has no range: {reasons[touched]}"
