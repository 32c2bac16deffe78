"""One distillation from end to end: models read and brought together, the loss planned, the student trained."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

import numpy as np
import onnx_ir as ir
import torch

from onnxcompress.calibration.collect import Sources
from onnxcompress.calibration.fingerprint import fingerprint
from onnxcompress.data import DataSet, ImageOptions, open_data, split
from onnxcompress.distillation.alignment import aligned, wider_inputs
from onnxcompress.distillation.batches import Batches, can_join, join
from onnxcompress.distillation.checkpoints import Checkpoints
from onnxcompress.distillation.masks import Gradual, set_masks, zero_masks
from onnxcompress.distillation.matching import NORMALIZATIONS
from onnxcompress.distillation.objective import Objective, TaskLoss
from onnxcompress.distillation.options import Options
from onnxcompress.distillation.plan import Plan, make_plan, wanted_values
from onnxcompress.distillation.preparation import first_feed, frozen, prepared, relative, shared_tables
from onnxcompress.distillation.processes import Processes, joined_processes
from onnxcompress.distillation.reconstruction import Reconstruction
from onnxcompress.distillation.scoring import Scorer, make_scorer
from onnxcompress.distillation.state import load
from onnxcompress.distillation.students import drop_layers, export_student, is_factory
from onnxcompress.distillation.trainer import Trainer
from onnxcompress.distillation.units import Granularity, find_units, wanted_ends
from onnxcompress.distiller import Distilled, Reconstructed
from onnxcompress.errors import CompressError, ModelError
from onnxcompress.evaluation import EvaluateFunction, Metric
from onnxcompress.interrupts import Interrupts
from onnxcompress.model_io import Source, load_model
from onnxcompress.progress import Progress, silent
from onnxcompress.pruning.gradual import GrowingMasks, Schedule
from onnxcompress.torch import OnnxModule

RATE_NORMALIZED, RATE_OTHER = 2e-4, 2e-3
"""Learning rates of models with layer normalization, and of others."""

JOINED_TOLERANCE = 1e-3
"""Relative difference between rows that went through the graph together and alone."""


PART_BYTES = 1 << 30
"""Of values that the gradients of a part of a batch need; a batch that needs more is taken in parts."""


@dataclass(frozen=True)
class Task:
    """What `distill` was asked for, besides the options of the training; see there."""

    student: Source
    teacher: Source | None
    data: Sources
    images: ImageOptions | None = None
    evaluate: str | EvaluateFunction | None = None
    metric: Metric = "auto"
    dropped: tuple[int, ...] = ()
    resume: str | os.PathLike[str] | None = None
    task_loss: TaskLoss | None = None
    labels: tuple[str, ...] = ()
    gradual: Gradual | Schedule | None = None


def run(task: Task, options: Options, progress: Progress) -> Distilled:
    """Do it; arguments and errors as of `distill`."""
    if task.teacher is None and task.task_loss is None:
        raise ValueError("distill needs a teacher, or a task_loss (with labels) that says what is right")
    if task.teacher is None and task.evaluate is None:
        raise ValueError("without a teacher, evaluate must say how good the student is")
    if options.reconstruct and task.teacher is None:
        raise ValueError("a reconstruction needs a teacher")
    if task.gradual is not None and (options.steps is None or task.gradual.until >= options.steps):
        raise ValueError("gradual pruning needs steps, more of them than its masks take to become final")
    with Interrupts.handled() as interrupts, joined_processes(options.device) as processes:
        # One signal ends the training at the next step; a second one ends the process.
        interrupts.finishing()
        session = Session(task, options, processes, progress if processes.is_first else silent)
        session.is_stopped = lambda: interrupts.count > 0
        return session.distil()


def rebuild(
    task: Task, options: Options, granularity: Granularity, rounding: bool, progress: Progress
) -> Reconstructed:
    """As `reconstruct`; arguments and errors are told there."""
    return Session(task, options, Processes(), progress).reconstruct(granularity, rounding, options.steps or 0)


class Session:
    """The parts of one distillation, each made from those before it."""

    def __init__(self, task: Task, options: Options, processes: Processes, progress: Progress) -> None:
        self.task, self.options, self.processes, self.progress = task, options, processes, progress
        self.notes: list[str] = []
        self.is_stopped: Callable[[], bool] = lambda: False
        progress("reading", 0, None)
        self.teacher = None if task.teacher is None else prepared(load_model(task.teacher))
        self.student = self._student()
        self.data = self._open(self.student)
        self.feed = first_feed(self.data)
        if self.teacher is not None:
            self.teacher = aligned(self.teacher, self.student)

    def distil(self) -> Distilled:
        """Train, and give back the best state."""
        checkpoints = self._checkpoints()
        train, held_out = self._split()
        module = self._module()
        teacher = None if self.teacher is None else frozen(OnnxModule(self.teacher), self.processes.device)
        plan = self._plan(module, teacher)
        scorer = self._scorer(held_out, plan)
        began = time.monotonic()
        if self.options.reconstruct:
            self._reconstruct_first(scorer, module.weight_names)
            module = self._module()
            if self.is_stopped() and checkpoints.load() is None:
                checkpoints = Checkpoints(None, "")  # a run that went on from half a reconstruction would end elsewhere
        trainer = self._trainer(module, teacher, plan, train, scorer, checkpoints)
        trainer.before = time.monotonic() - began
        trainer.is_stopped = self.is_stopped
        trainer.train()
        return self._result(trainer, plan)

    def _reconstruct_first(self, scorer: Scorer | None, names: Sequence[str]) -> None:
        """Begin with the student as a reconstruction leaves it, unless it scores less: the same in all processes."""
        weights: dict[str, np.ndarray[Any, Any]] = {}
        if scorer is not None:
            found = self.reconstruct("block", False, self.options.reconstruct)
            before, after = scorer(self.student).value, scorer(found.model).value
            if after < before:
                self.notes.append(f"the reconstruction is left out: {before:.6g} before it, {after:.6g} after")
            else:
                self.notes += found.notes
                for name in names:
                    tensor = found.model.graph.initializers[name].const_value
                    assert tensor is not None
                    weights[name] = tensor.numpy()
        for name, array in self.processes.share(weights).items():
            self.student.graph.initializers[name].const_value = ir.tensor(array, name=name)

    def reconstruct(self, granularity: Granularity, rounding: bool, steps: int) -> Reconstructed:
        """Fit the student unit by unit."""
        assert self.teacher is not None
        module, teacher = self._module(), frozen(OnnxModule(self.teacher), self.processes.device)
        wanted = [[*wanted_values(model), *wanted_ends(model)] for model in (self.student, self.teacher)]
        own, others = (
            {name: array.shape for name, array in self._values(runner, names).items()}
            for runner, names in zip((module, teacher), wanted, strict=True)
        )
        units = find_units(self.student, self.teacher, granularity, own, others)
        joined = self._is_joined(module, [unit.end for unit in units])
        batches = Batches(self.data, self.options.batch, self.options.seed, joined)
        whole = Reconstruction(
            self.student, self.teacher, module, teacher, batches, steps, self._rate(), rounding,
            self.progress, self.is_stopped,
        )  # fmt: skip
        fitted = whole.fit(units)
        return Reconstructed(module.write_back(self.student.clone()), fitted, [*self.notes, *whole.notes])

    # -- models and data --------------------------------------------------------------------------------------

    def _student(self) -> ir.Model:
        source = self.task.student
        if is_factory(source):
            if self.teacher is None:
                raise ModelError("a student that is made by a factory needs a teacher, whose inputs it takes")
            feed = first_feed(self._open(self.teacher))
            source = export_student(str(source), self.teacher, feed, self.options.seed)
        student = prepared(load_model(source))
        return drop_layers(student, self.task.dropped) if self.task.dropped else student

    def _open(self, student: ir.Model) -> DataSet:
        wider = student if self.teacher is None else wider_inputs(student, self.teacher)
        return open_data(self.task.data, wider, images=self.task.images, labels=self.task.labels)

    def _split(self) -> tuple[DataSet, DataSet]:
        if self.task.evaluate is not None:
            return self.data, self.data
        train, held_out, _, note = split(self.data)
        if note:
            self.notes.append(note.replace("calibrate", "train"))
        return train, held_out

    def _scorer(self, held_out: DataSet, plan: Plan) -> Scorer | None:
        if not self.processes.is_first:
            return None
        self.progress("scoring the teacher", 0, None)
        metric = self.task.metric
        if metric == "auto" and plan.kinds == {"classes"}:
            metric = "top1"  # of logits without a Softmax too, where only the loss knows that they are classes
        return make_scorer(self.teacher or self.student, held_out, self.task.evaluate, metric)

    # -- training ---------------------------------------------------------------------------------------------

    def _trainer(
        self,
        module: OnnxModule,
        teacher: OnnxModule | None,
        plan: Plan,
        train: DataSet,
        scorer: Scorer | None,
        checkpoints: Checkpoints,
    ) -> Trainer:
        task, options, processes = self.task, self.options, self.processes
        outputs = module.output_names if task.task_loss is not None else ()
        objective = Objective(plan.terms, options.temperature, task.task_loss, outputs)
        joined = self._is_joined(module, objective.student_values)
        most = self._most_elements(module, objective) if objective.is_separable else math.inf
        batches = Batches(train, options.batch, options.seed, joined, processes.count, processes.rank, most)
        return Trainer(
            self.student, module, teacher, objective, batches, scorer, options, checkpoints, self._rate(),
            processes=processes, gradual=self._gradual(train), progress=self.progress,
        )  # fmt: skip

    def _gradual(self, train: DataSet) -> Gradual | None:
        """Masks that grow. What they are chosen by is measured once: the same in all processes."""
        schedule = self.task.gradual
        if not isinstance(schedule, Schedule):
            return schedule
        power = None
        if self.processes.is_first:
            power = GrowingMasks(self.student, train, schedule, progress=self.progress).power
        masks = GrowingMasks(self.student, train, schedule, self.processes.share(power))
        return Gradual(masks, schedule.until, repr(schedule))

    def _module(self) -> OnnxModule:
        tables = shared_tables(self.student, self.teacher)
        if tables:
            self.notes.append(f"embedding tables stay as they are, being the teacher's: {', '.join(tables)}")
        module = OnnxModule(self.student, learn_scales=self.options.learn_scales, freeze=tables)
        masks = set_masks(module, zero_masks(self.student, module))
        if masks:
            self.notes.append(f"pruned weights keep their zeros: {len(masks)}")
        if not module.weight_names:
            raise ModelError("the student has no weights that could be trained")
        module.to(self.processes.device)
        return module

    def _plan(self, module: OnnxModule, teacher: OnnxModule | None) -> Plan:
        if teacher is None or self.teacher is None:
            return Plan()
        own, others = (
            self._values(runner, wanted_values(model))
            for model, runner in ((self.student, module), (self.teacher, teacher))
        )
        plan = make_plan(self.student, self.teacher, self.options.losses, own, others)
        self.notes += plan.notes
        return plan

    def _values(self, module: OnnxModule, names: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
        """Values on the first feed."""
        with torch.no_grad():
            found = module.values(self.feed, names)
        return {name: tensor.float().cpu().numpy() for name, tensor in found.items()}

    def _most_elements(self, module: OnnxModule, objective: Objective) -> float:
        """Of the inputs of a part of a batch, so that what its gradients need is held in about PART_BYTES."""
        own = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
        held: dict[int, int] = {}

        def hold(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            held[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
            found = module.values(self.feed, objective.student_values)
        needed = sum(size for place, size in held.items() if place not in own)
        del found
        return PART_BYTES / max(needed, 1) * sum(array.size for array in self.feed.values())

    def _is_joined(self, module: OnnxModule, names: Sequence[str]) -> bool:
        """Can feeds be joined along axis 0? The student is asked: the same feed twice must give each row twice."""
        if not can_join(self.student, self.feed):
            return False
        try:
            with torch.no_grad():
                one = module.values(self.feed, names)
                two = module.values(join([self.feed, self.feed]), names)
        except (RuntimeError, CompressError):
            return self._accumulated()
        for name in names:
            twice = torch.cat([one[name], one[name]]) if one[name].dim() else one[name]
            if twice.shape != two[name].shape or relative(two[name], twice) > JOINED_TOLERANCE:
                return self._accumulated()
        return True

    def _accumulated(self) -> bool:
        self.notes.append("the graph takes feeds one at a time: the gradients of a batch are added up")
        return False

    def _rate(self) -> float:
        if self.options.learning_rate is not None:
            return self.options.learning_rate
        normalized = any(node.op_type in NORMALIZATIONS for node in self.student.graph.all_nodes())
        return RATE_NORMALIZED if normalized else RATE_OTHER

    def _checkpoints(self) -> Checkpoints:
        if self.task.resume is None:
            return Checkpoints(None, "")
        total = hashlib.sha256()
        options = {k: v for k, v in asdict(self.options).items() if k not in ("checkpoint_seconds", "device")}
        gradual = self.task.gradual
        name = gradual.name if isinstance(gradual, Gradual) else repr(gradual)
        total.update(repr((options, self.task.dropped, self.task.metric, self.processes.count, name)).encode())
        for model in (self.student, self.teacher):
            total.update(b"" if model is None else fingerprint(model).encode())
        for name, array in sorted(self.feed.items()):
            total.update(name.encode() + np.ascontiguousarray(array).tobytes())
        return Checkpoints.open(self.task.resume, total.hexdigest())

    # -- the end ----------------------------------------------------------------------------------------------

    def _unpruned(self, trainer: Trainer) -> NoReturn:
        """There is nothing to give back: no state has all its masks."""
        if trainer.interrupted:
            raise KeyboardInterrupt
        raise CompressError(f"the training ended before all of the model was pruned: {'; '.join(trainer.notes)}")

    def _result(self, trainer: Trainer, plan: Plan) -> Distilled:
        best = self.processes.share(trainer.best)
        if best is None and trainer.gradual is not None:
            self._unpruned(trainer)
        model = self.student.clone()
        if best is not None:
            load(trainer.parameters, best)
            model = trainer.module.write_back(model)
        outcome = trainer.run
        measured = trainer.scorer is not None and bool(trainer.score_name)
        notes = list(dict.fromkeys([*self.notes, *trainer.notes]))
        if best is None:
            notes.append("no state of the training was better than the student as it came, which is given back")
        if trainer.interrupted:
            notes.append("interrupted: this is the best state until then")
        return Distilled(
            model=model,
            metric=trainer.score_name,
            score=outcome.best_score if measured else None,
            start=outcome.start_score if measured else None,
            reference=None if trainer.scorer is None else trainer.scorer.reference.value,
            steps=outcome.step,
            best_step=outcome.best_step,
            seconds=trainer.spent(),
            terms=[str(term) for term in plan.terms],
            history=[asdict(entry) for entry in outcome.history],
            notes=notes,
            interrupted=trainer.interrupted,
        )
