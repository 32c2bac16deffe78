"""Fitting a student to its teacher part by part, in graph order, each on the student's own inputs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir
import torch
from torch import Tensor, nn

from onnxcompress.data import Feed
from onnxcompress.distillation import losses
from onnxcompress.distillation.batches import Batches, Position
from onnxcompress.distillation.masks import set_masks, zero_masks
from onnxcompress.distillation.objective import padding_mask
from onnxcompress.distillation.rounding import Rounded, SoftRounding, find_rounded, with_float_weights
from onnxcompress.distillation.schedule import rate_at
from onnxcompress.distillation.units import Unit
from onnxcompress.distiller import Fitted
from onnxcompress.errors import CompressError
from onnxcompress.progress import Progress
from onnxcompress.torch import OnnxModule

HELD_BYTES = 256 << 20
"""Of inputs and targets that are held while a unit is fitted; only as many batches are used as fit."""

ROUNDING_RATE = 3e-2
"""Learning rate of the choices of rounding."""

ROUNDING_WEIGHT = 1.0
"""Of the regularizer that makes the choices, beside the error as a share of what it was at first."""

UNFORCED = 0.2
"""Share of the steps before it comes in."""


@dataclass(frozen=True)
class Sample:
    """What a unit read in one pass, and what it should give."""

    inputs: dict[str, Tensor]
    target: Tensor
    feed: Feed


@dataclass
class Reconstruction:
    """Fits the units of a student, one after another.

    Attributes:
        student, teacher: the models.
        module, runner: the same as modules; the student's takes the fitted weights over.
        batches: of feeds.
        steps: of Adam for each unit.
        rate: its learning rate.
        rounding: learn which way integer weights are rounded, instead of training them.
        is_stopped: asked at every step; true ends the work with what is fitted by then.
        notes: what the user should know.
    """

    student: ir.Model
    teacher: ir.Model
    module: OnnxModule
    runner: OnnxModule
    batches: Batches
    steps: int
    rate: float
    rounding: bool
    progress: Progress
    is_stopped: Callable[[], bool] = lambda: False
    notes: list[str] = field(default_factory=list)

    def fit(self, units: Sequence[Unit]) -> list[Fitted]:
        """Fit the units; gives what became of those that have weights."""
        done: set[str] = set()
        fitted: list[Fitted] = []
        for index, unit in enumerate(units):
            if self.is_stopped():
                self.notes.append(f"the reconstruction was interrupted at part {index + 1} of {len(units)}")
                break
            self.progress(f"reconstructing {unit.end}", index, len(units))
            try:
                cut = unit.cut(self.student)
            except CompressError as error:
                self.notes.append(f"{unit.end}: left as it is ({error})")
                continue
            part = _Part(self, unit, cut, done)
            done.update(part.names)
            if part.names:
                fitted.append(part.fit())
        return fitted

    def samples(self, unit: Unit) -> list[Sample]:
        """What the unit reads and should give, of as many batches as may be held, one epoch at most."""
        found: list[Sample] = []
        held = 0
        for position, batch in self.batches.stream(Position()):
            for feed in batch.parts if batch is not None and position.epoch == 0 else ():
                with torch.no_grad():
                    inputs = self.module.values(feed, unit.starts)
                    target = self.runner.values(feed, [unit.target])[unit.target]
                found.append(Sample(inputs, target, feed))
                held += sum(t.numel() * t.element_size() for t in (*inputs.values(), target))
            if position.epoch > 0 or held >= HELD_BYTES or len(found) >= self.steps:
                break
        return found


class _Part:
    """One unit while it is fitted."""

    def __init__(self, whole: Reconstruction, unit: Unit, cut: ir.Model, done: set[str]) -> None:
        self.whole, self.unit = whole, unit
        rounded = find_rounded(cut, whole.teacher) if whole.rounding else []
        self.rounded = [one for one in rounded if one.name not in done and one.name in whole.module.weight_names]
        model = with_float_weights(cut, self.rounded)
        others = [name for name in cut.graph.initializers if name in done or name not in whole.module.weight_names]
        self.module = OnnxModule(model, freeze=others)
        self.names = self.module.weight_names
        masks = {name: mask for name, mask in zero_masks(cut, whole.module).items() if name in self.names}
        set_masks(self.module, masks)
        self._choices = {one.name: self._soft(one, masks.get(one.name)) for one in self.rounded}

    def _soft(self, rounded: Rounded, mask: Tensor | None) -> SoftRounding:
        soft = SoftRounding(rounded)
        self.module.add_transform(rounded.name, soft)
        return soft

    def fit(self) -> Fitted:
        """Train, keep what is better than before, and hand it to the whole."""
        samples = self.whole.samples(self.unit)
        before = self._error(samples, self.whole.module)
        if before < losses.TINY:
            return Fitted(self.unit.end, self.unit.target, 0, before, before)
        self._train(samples, before)
        new = self._weights()
        old = {name: self.whole.module.parameter_of(name).detach().clone() for name in new}
        self._hand_over(new)
        after = self._error(samples, self.whole.module)
        kept = after < before
        if not kept:
            self._hand_over(old)
        return Fitted(self.unit.end, self.unit.target, len(new), before, after if kept else before)

    def _train(self, samples: Sequence[Sample], before: float) -> None:
        choices = [soft.choice for soft in self._choices.values()]
        raw = {id(self.module.parameter_of(name)) for name in self._choices}
        weights = [p for p in map(self.module.parameter_of, self.names) if id(p) not in raw and not choices]
        trained: list[nn.Parameter] = choices or weights
        optimizer = torch.optim.Adam(trained, lr=ROUNDING_RATE if choices else self.whole.rate)
        highest = float(optimizer.param_groups[0]["lr"])
        for step, sample in zip(range(self.whole.steps), itertools.cycle(samples), strict=False):
            if self.whole.is_stopped():
                break
            done = (step + 1) / self.whole.steps
            if not choices:
                optimizer.param_groups[0]["lr"] = highest * rate_at(done, 0.0)
            summed, power = self._squared(sample, self.module.values(sample.inputs, [self.unit.end]))
            loss = summed / power / before
            if choices and done > UNFORCED:
                forced = (done - UNFORCED) / (1 - UNFORCED)
                loss = loss + ROUNDING_WEIGHT * sum(soft.undecided(forced) for soft in self._choices.values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def _error(self, samples: Sequence[Sample], module: OnnxModule) -> float:
        """The error over the power of the teacher's values, as the whole student has them."""
        total, power = 0.0, 0.0
        with torch.no_grad():
            for sample in samples:
                found = self._squared(sample, module.values(sample.feed, [self.unit.end]))
                total, power = total + float(found[0]), power + float(found[1])
        return total / power if power else 0.0

    def _squared(self, sample: Sample, found: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        value = found[self.unit.end]
        return losses.squared_error(value, sample.target, padding_mask(sample.feed, value))

    def _weights(self) -> dict[str, Tensor]:
        with torch.no_grad():
            return {
                name: self._choices[name].decided() if name in self._choices
                else self.module.parameter_of(name).detach().clone()
                for name in self.names
            }  # fmt: skip

    def _hand_over(self, weights: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, weight in weights.items():
                self.whole.module.parameter_of(name).copy_(weight)
