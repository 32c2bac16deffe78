"""The training loop: steps, scores on the way, the best state kept, checkpoints, an end in time."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn

from onnxcompress.budget import SAFETY
from onnxcompress.distillation.batches import Batch, Batches
from onnxcompress.distillation.checkpoints import Checkpoints
from onnxcompress.distillation.guard import WORSE, Guard
from onnxcompress.distillation.masks import Gradual, set_masks
from onnxcompress.distillation.objective import Objective, Part
from onnxcompress.distillation.options import Options
from onnxcompress.distillation.processes import Processes
from onnxcompress.distillation.schedule import MovingAverage, rate_at
from onnxcompress.distillation.scoring import Scorer
from onnxcompress.distillation.state import Entry, Run, Swapped, load
from onnxcompress.evaluation import Score
from onnxcompress.progress import Progress, silent
from onnxcompress.torch import OnnxModule

SCALE_RATE = 5e-3
"""The highest learning rate of scales, which are kept as logarithms: this much of themselves a step."""

EVALUATION_SHARE = 0.2
"""Of the budget at most that goes into scores."""


@dataclass
class Trainer:
    """Trains a student.

    Attributes:
        student: the model as it came; its clone is what gets scored.
        module: the student to train.
        teacher: None: the task loss is all.
        is_stopped: asked before every step.
        gradual: pruning while training.
        notes: what the user should know, of the run.
        interrupted: somebody stopped it.
        before: seconds of the budget that were spent before the training.
    """

    student: ir.Model
    module: OnnxModule
    teacher: OnnxModule | None
    objective: Objective
    batches: Batches
    scorer: Scorer | None
    options: Options
    checkpoints: Checkpoints
    rate: float
    processes: Processes = field(default_factory=Processes)
    is_stopped: Callable[[], bool] = lambda: False
    gradual: Gradual | None = None
    progress: Progress = silent
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False
    before: float = 0.0

    def __post_init__(self) -> None:
        self.run = Run(guard=Guard.of(self.options.steps))
        names = (*self.module.weight_names, *self.module.scale_names)
        self.parameters: dict[str, nn.Parameter] = {name: self.module.parameter_of(name) for name in names}
        self.best: dict[str, Tensor] | None = None
        self._came = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        self._masks: dict[str, Tensor] = {}
        self.score_name = ""
        self._began = time.monotonic()
        self._saved = self._began
        self._recent: list[dict[str, float]] = []

    def train(self) -> None:
        """Train until the steps are done, time is up, or somebody stops it; `run`, `best` and `notes` tell the rest.

        Raises:
            CompressError: a model cannot be scored, a checkpoint cannot be used.
            KeyboardInterrupt: before the start was scored.
        """
        self._renew()
        self._start()
        try:
            for position, batch in self.batches.stream(self.run.position):
                done = self._done()
                if done is None:
                    break
                if not self._step(batch, done):
                    break
                self.run.position = position
                self._after_step()
        except KeyboardInterrupt:
            if self.is_stopped():  # somebody does not want to wait for the end
                raise
            # Raised by the progress callback, at places where the other processes wait to be told to go on.
            self.interrupted = True
            self.progress = silent
            self.processes.share(None)
        else:
            if self.interrupted:
                # Before the last score: a run that goes on from here shall end as if it had not been interrupted.
                self._save()
        if self.run.guard.times:
            self.notes.append(
                f"the loss rose to {WORSE:g} times what it was at the start: the learning rate was made smaller "
                f"{self.run.guard.times} times, to {self.rate * self.run.guard.factor:.2g}"
            )
        self._finish()

    # -- the course of a run ----------------------------------------------------------------------------------

    def _start(self) -> None:
        state = self.processes.share(self.checkpoints.load() if self.processes.is_first else None)
        if state is not None:
            self._restore(state)
        self.processes.equalize(list(self.parameters.values()))
        if state is None and self.processes.is_first and self.scorer is not None:
            self.progress("scoring the student as it came", 0, None)
            score = self.scorer(self.student)
            self.score_name = score.name
            self.run.start_score = score.value
            if self.gradual is None:
                self.run.best_score = score.value
        self._next_evaluation = self._evaluation_after(self.run.step, self.spent())

    def _done(self) -> float | None:
        """The share of the run that will be over after the next step; None: no next step. The first process decides."""
        done: float | None = None
        if self.processes.is_first:
            run, options = self.run, self.options
            self.interrupted |= self.is_stopped()
            if options.steps is not None:
                done = (run.step + 1) / options.steps if run.step < options.steps else None
            else:
                reserve = 2 * SAFETY * (0.0 if self.scorer is None else self.scorer.seconds)
                share = (self.spent() + self._pace()) / max(options.seconds - self.before - reserve, 1e-3)
                done = share if share < 1 else None
            if self.interrupted or run.is_over:
                done = None
        shared: float | None = self.processes.share(done)
        return shared

    def _step(self, batch: Batch | None, done: float) -> bool:
        """One step of the optimizer; False where the loss is no number any more."""
        self._prune()
        # Losses rise with every new mask: until the last one they say nothing of the learning rate.
        watched = self.gradual is None or self.run.step > self.gradual.until
        rate = rate_at(done, self.options.warmup) * (self.run.guard.share if watched else 1.0)
        for group in self._optimizer.param_groups:
            group["lr"] = group["highest"] * rate
        self._optimizer.zero_grad(set_to_none=True)
        loss, parts = (torch.zeros(()), {}) if batch is None else self._backward(batch)
        trained = list(self.parameters.values())
        value = self.processes.average_gradients(trained, 0 if batch is None else batch.rows, loss)
        norm = float(torch.nn.utils.clip_grad_norm_(trained, self.options.clip))
        if not (math.isfinite(value) and math.isfinite(norm)):
            return self._back_off()
        self._optimizer.step()
        self.run.step += 1
        self._average.update(self.parameters, self.run.step)
        self._recent.append({**parts, "loss": value})
        self._report(value)
        return not (watched and self.run.guard.is_blown_up(value)) or self._back_off()

    def _back_off(self) -> bool:
        """Go back to the best state with a smaller learning rate; False where none is left to try."""
        guard = self.run.guard
        if guard.gives_up:
            self.notes.append(
                f"the loss is not a number any more at step {self.run.step + 1}, with any learning rate down to "
                f"{self.rate * guard.factor:.2g}: stopped there, the best state before it is kept"
            )
            return False
        guard.back_off()
        load(self.parameters, self.best or self._came)
        self.processes.equalize(list(self.parameters.values()))
        self._renew()
        return True

    def _renew(self) -> None:
        """A new optimizer, and a new average of the weights as they are."""
        self._optimizer = torch.optim.AdamW(self._groups(), lr=self.rate, weight_decay=self.options.weight_decay)
        self._average = MovingAverage(self.parameters, self.options.ema)

    def _backward(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Add up the gradients of a batch; its loss, and what it is made of.

        Part by part where the loss allows it: what the gradients of one need is held no longer than that.
        """
        names = self.objective.teacher_values
        with torch.no_grad():
            taught = [{} if self.teacher is None else self.teacher.values(feed, names) for feed in batch.parts]
            whole = self.objective.whole(batch.parts, taught)
        pairs = list(zip(batch.parts, taught, strict=True))
        total: Tensor = torch.zeros(())
        told: Counter[str] = Counter()
        for group in [[pair] for pair in pairs] if self.objective.is_separable else [pairs]:
            student = self.objective.student_values
            parts = [Part(dict(feed), self.module.values(feed, student), teacher) for feed, teacher in group]
            loss, values = self.objective(parts, whole)
            if loss.requires_grad:
                loss.backward()
            total = total + loss.detach()
            told.update(values)
        return total, dict(told)

    def _prune(self) -> None:
        if self.gradual is None or self.run.step > self.gradual.until:
            return
        masks = self.gradual.masks_at(self.run.step, lambda name: self.module.weight(name).detach().cpu().numpy())
        if masks:
            self._masks |= set_masks(self.module, masks)

    def _after_step(self) -> None:
        """Score and save where it is time to; the first process alone."""
        if not self.processes.is_first:
            return
        spent = self.spent()
        due = self.run.step if self.options.steps is not None else spent
        if due >= self._next_evaluation:
            self._evaluate()
            self._next_evaluation = self._evaluation_after(self.run.step, self.spent())
            self._save()
        elif time.monotonic() - self._saved >= self.options.checkpoint_seconds:
            self._save()

    def _finish(self) -> None:
        """The last score, of a run that ended between two; a checkpoint of the end."""
        if not self.processes.is_first:
            return
        last = self.run.history[-1].step if self.run.history else 0
        if self.run.step > last:
            self._evaluate()
        if not self.interrupted:
            self.run.is_over = True
            self._save()

    # -- scores -----------------------------------------------------------------------------------------------

    def _evaluation_after(self, step: int, spent: float) -> float:
        """The step, or with a budget the second, of the next score."""
        options = self.options
        if options.steps is not None:
            interval = max(1, math.ceil(options.steps / options.evaluations))
            return (step // interval + 1) * interval
        cost = 0.0 if self.scorer is None else self.scorer.seconds
        return spent + max(options.seconds / options.evaluations, cost / EVALUATION_SHARE)

    def _evaluate(self) -> None:
        counts = self.gradual is None or self.run.step > self.gradual.until
        score: Score | None = None
        if counts and self.scorer is not None:
            self.progress("scoring", self.run.step, self.options.steps)
            with self._averaged():
                model = self.module.write_back(self.student.clone())
                score = self.scorer(model)
            self.score_name = score.name
        # Without a metric the last state is the result; among equals the later one has learnt more.
        better = counts and (score is None or self._is_better(score.value))
        if better:
            self.run.best_step = self.run.step
            self.run.best_score = -math.inf if score is None else score.value
            self.best = {name: tensor.clone() for name, tensor in self._kept().items()}
        means = {key: _mean([r[key] for r in self._recent if key in r]) for r in self._recent for key in r}
        self._recent = []
        loss = means.pop("loss", math.nan)
        rate = float(self._optimizer.param_groups[0]["lr"])
        value = None if score is None else score.value
        self.run.history.append(Entry(self.run.step, self.spent(), loss, means, rate, value))

    def _is_better(self, score: float) -> bool:
        run = self.run
        return score > run.best_score or (score == run.best_score and run.best_step > 0)

    def _kept(self) -> Mapping[str, Tensor]:
        """The tensors that are scored: the moving average where there is one."""
        if self.options.ema:
            return self._average.average
        return {name: parameter.detach() for name, parameter in self.parameters.items()}

    def _averaged(self) -> Swapped:
        return Swapped(self.parameters, self._kept())

    # -- checkpoints ------------------------------------------------------------------------------------------

    def _save(self) -> None:
        if self.checkpoints.file is None or not self.processes.is_first:
            return
        self.run.seconds = self.spent()
        self.checkpoints.save({
            "run": self.run.as_dict(),
            "score_name": self.score_name,
            "score_seconds": 0.0 if self.scorer is None else self.scorer.seconds,
            "parameters": {name: parameter.detach() for name, parameter in self.parameters.items()},
            "average": self._average.average,
            "optimizer": self._optimizer.state_dict(),
            "best": self.best,
            "masks": self._masks,
            "recent": self._recent,
        })  # fmt: skip
        self._saved = time.monotonic()

    def _restore(self, state: dict[str, Any]) -> None:
        self.run = Run.from_dict(state["run"])
        self._renew()
        self._began = time.monotonic() - self.run.seconds
        self.score_name = state["score_name"]
        if self.scorer is not None:
            self.scorer.seconds = state["score_seconds"]
        set_masks(self.module, state["masks"])
        self._masks = state["masks"]
        load(self.parameters, state["parameters"])
        for name, average in self._average.average.items():
            average.copy_(state["average"][name])
        self._optimizer.load_state_dict(state["optimizer"])
        self.best = state["best"]
        self._recent = state["recent"]

    # -- small things -----------------------------------------------------------------------------------------

    def _groups(self) -> list[dict[str, Any]]:
        weights, scales = (
            [self.parameters[name] for name in names] for names in (self.module.weight_names, self.module.scale_names)
        )
        factor = self.run.guard.factor
        groups = [(weights, self.rate * factor), (scales, max(self.rate, SCALE_RATE) * factor)]
        return [{"params": params, "lr": rate, "highest": rate} for params, rate in groups if params]

    def spent(self) -> float:
        """Seconds of wall-clock time, of all runs together."""
        return time.monotonic() - self._began

    def _pace(self) -> float:
        """Seconds a step, so far."""
        return self.spent() / self.run.step if self.run.step else 0.0

    def _report(self, loss: float) -> None:
        run, options = self.run, self.options
        left = self._pace() * (options.steps - run.step) if options.steps else options.seconds - self.spent()
        score = "" if run.best_score == -math.inf else f", best {self.score_name} {run.best_score:.4f}"
        minutes, seconds = divmod(max(int(left), 0), 60)
        text = f"distilling: loss {loss:.4g}{score}, {minutes}:{seconds:02d} left"
        done, total = (run.step, options.steps) if options.steps else (int(self.spent()), int(options.seconds))
        self.progress(text, done, total)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan
