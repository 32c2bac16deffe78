"""`distill`: a student learns to do what its teacher does, from data without labels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import onnx_ir as ir

from onnxcompress.calibration.collect import Sources
from onnxcompress.data import ImageOptions
from onnxcompress.evaluation import EvaluateFunction, Metric
from onnxcompress.exporting.framework import import_torch
from onnxcompress.memory import giving_back
from onnxcompress.model_io import Source, check_output, file_bytes, save_model
from onnxcompress.progress import Progress, silent
from onnxcompress.pruning.gradual import Schedule, schedule_of
from onnxcompress.pruning.options import Pattern
from onnxcompress.runtime.session import opening

if TYPE_CHECKING:
    from onnxcompress.distillation.masks import Gradual
    from onnxcompress.distillation.objective import TaskLoss


@dataclass(frozen=True, kw_only=True)
class Training:
    """What is known of a training when it is over.

    Attributes:
        metric: its name; empty where nothing was scored.
        score: of the result, in ONNX Runtime.
        start: the student's score as it came.
        reference: the teacher's.
        steps: of the optimizer, in all.
        best_step: after which of them the result is; 0: none was better than the student as it came.
        seconds: of wall-clock time, of all runs together.
        terms: what was compared with what, a line each.
        history: the run: step, seconds, loss, its parts, learning rate, score.
        notes: what the user should know.
        interrupted: stopped before its end.
    """

    metric: str
    score: float | None
    start: float | None
    reference: float | None
    steps: int
    best_step: int
    seconds: float
    terms: list[str] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False


@dataclass(frozen=True, kw_only=True)
class Distilled(Training):
    """What `distill` gives back: a new model, the best state by the metric, the student as it came among them."""

    model: ir.Model


@dataclass(frozen=True)
class Fitted:
    """What became of one unit of a reconstruction.

    Attributes:
        name: the value that it computes.
        target: the teacher's.
        weights: how many were trained.
        before, after: squared error over the power of the teacher's value, on the data that it was fitted on.
    """

    name: str
    target: str
    weights: int
    before: float
    after: float


@dataclass(frozen=True)
class Reconstructed:
    """What `reconstruct` gives back: a new model, what became of its units in graph order, remarks."""

    model: ir.Model
    units: list[Fitted]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Summary(Training):
    """What `distill_file` did. Bytes include external data."""

    output: str
    bytes: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def distill(
    student: Source,
    teacher: Source | None,
    data: Sources,
    *,
    losses: dict[str, float] | None = None,
    steps: int | None = None,
    budget: float | None = None,
    learning_rate: float | None = None,
    batch: int = 32,
    temperature: float = 3.0,
    evaluate: str | EvaluateFunction | None = None,
    metric: Metric = "auto",
    drop_layers: Sequence[int] = (),
    learn_scales: bool = False,
    resume: str | os.PathLike[str] | None = None,
    task_loss: TaskLoss | None = None,
    labels: Sequence[str] = (),
    pattern: Pattern | None = None,
    sparsity: float | None = None,
    gradual: Gradual | None = None,
    seed: int = 0,
    images: ImageOptions | None = None,
    progress: Progress = silent,
    **more: Any,
) -> Distilled:
    """Train a student to do what its teacher does. No labels are needed.

    Both are optimized first, unless they are quantized. Pruned weights keep their zeros, embedding tables that are the
    teacher's own stay as they are. Scores are those of the model as written, in ONNX Runtime; the best state is given
    back, never one that scores below the student as it came.

    Under torchrun (WORLD_SIZE in the environment) the processes train together, each with batches of its own; all
    give back the same model.

    Args:
        student: a path or a model (unchanged); or `PKG.MODULE:FACTORY`, a torch module, which is exported first.
        teacher: a path or a model; None: `task_loss` says what is right.
        data: feeds, as for `calibrate`. Without `evaluate` the last 20 % are held out to measure agreement with
            the teacher on.
        losses: weight by kind: kl, mse, cosine, similarity, hidden; None: chosen from the graph.
        steps: of the optimizer; None: as many as the budget allows.
        budget: seconds of wall-clock time, resumed runs included; 600 where neither is given.
        learning_rate: the highest; None: 2e-4 with layer normalization, else 2e-3. Where the loss rises to twice what
            it was at the start, training goes back to the best state and on with less than a third of it.
        batch: rows of a step; under torchrun of each process.
        temperature: of the softmax in `kl`.
        evaluate, metric: `FILE.py:FN` or `FN(run) -> float`, higher is better; how agreement is measured otherwise.
        drop_layers: layers to take out of the student first, counted from 0.
        learn_scales: train the scales of a quantized student too.
        resume: a folder that keeps the state of the run, which goes on where it was.
        task_loss: `task_loss(outputs, feed) -> Tensor`: mean over the rows of a feed, from the student's outputs by
            name (and the feed, `labels` included); added to the rest.
        labels: entries of the feeds, besides the inputs, that `task_loss` reads.
        pattern, sparsity: prune while training, as `prune` names them (no channels): masks grow over the first 60 %
            of the steps (Zhu & Gupta, To prune, or not to prune, 2017). They need `steps`.
        gradual: masks of one's own that grow while training.
        seed, images: of the order of the data; how a folder of images is read.
        progress: called as work goes on; KeyboardInterrupt (from it, or Ctrl-C) ends the training, and the best
            state so far is given back.
        more: other fields of `distillation.options.Options`: `reconstruct`, a reconstruction before it, among them.

    Raises:
        ValueError: arguments that do not exist or do not go together.
        ModelError, DataError, EvaluationError: models that cannot be run or compared; feeds or an evaluation that fail.
        ExportError: torch is missing, or a factory's module cannot be exported.
        CompressError: the folder to resume from cannot be used.
    """
    import_torch()
    from onnxcompress.distillation.options import Options
    from onnxcompress.distillation.session import Task, run

    options = Options(
        losses or {}, steps, budget, learning_rate, batch, temperature, seed=seed, learn_scales=learn_scales, **more
    )  # fmt: skip
    masks = _growing(schedule_of(pattern, sparsity, steps), gradual)
    task = Task(
        student, teacher, data, images, evaluate, metric, tuple(drop_layers), resume, task_loss, tuple(labels), masks
    )  # fmt: skip
    return giving_back(run, task, options, progress)


def _growing(schedule: Schedule | None, gradual: Gradual | None) -> Schedule | Gradual | None:
    if schedule is not None and gradual is not None:
        raise ValueError("give a pattern or masks of your own (gradual), not both")
    return schedule or gradual


def reconstruct(
    student: Source,
    teacher: Source,
    data: Sources,
    *,
    granularity: Literal["block", "layer"] = "block",
    steps: int = 200,
    learning_rate: float | None = None,
    batch: int = 32,
    rounding: bool = False,
    seed: int = 0,
    images: ImageOptions | None = None,
    progress: Progress = silent,
) -> Reconstructed:
    """Fit a student to its teacher part by part, in graph order: quick, and a good start for `distill`.

    Each part computes the teacher's value from what the student itself gives it, so that later parts make up for
    what earlier ones lost (Li et al. 2021, BRECQ). A part whose error did not fall stays as it was. Zeros of pruned
    weights stay zeros.

    Args:
        student, teacher: paths or models (unchanged); optimized first, unless they are quantized.
        data: feeds, as for `calibrate`; of each part as many as 256 MB of its inputs and targets hold.
        granularity: parts end where blocks do (residual sums, normalizations), or at every layer.
        steps: of Adam for each part.
        learning_rate: None: as for `distill`.
        batch: rows of a step.
        rounding: of a quantized student, learn which way each integer weight is rounded (AdaRound).
        seed: of the order of the data.
        images: how a folder of images is read.
        progress: called as work goes on.

    Raises:
        ModelError: a model cannot be read or run, or the two have nothing in common.
        DataError: feeds that do not fit.
        ExportError: torch is missing.
    """
    import_torch()
    from onnxcompress.distillation.options import Options
    from onnxcompress.distillation.session import Task, rebuild

    options = Options(steps=steps, learning_rate=learning_rate, batch=batch, seed=seed, device="cpu")
    task = Task(student, teacher, data, images)
    return giving_back(rebuild, task, options, granularity, rounding, progress)


def distill_file(
    student: str,
    teacher: str,
    target: str | os.PathLike[str],
    *,
    data: Sequence[str],
    in_place: bool = False,
    progress: Progress = silent,
    **options: Any,
) -> Summary | None:
    """`distill` from file to file. The result is opened in ONNX Runtime before it appears under its name.

    Returns:
        None in processes of torchrun other than the first, which write nothing.

    Raises:
        as `distill`; ModelError also where the target is the teacher, or the student and not `in_place`,
            or the result does not open or cannot be written.
    """
    if os.path.isfile(student):
        check_output(student, target, in_place=in_place, others=data)
    check_output(teacher, target)
    found = distill(student, teacher, list(data), progress=progress, **options)
    if int(os.environ.get("RANK", "0")) > 0:
        return None
    progress("writing", 0, None)
    save_model(found.model, target, verify=opening("trained"))
    fields = {name: value for name, value in vars(found).items() if name != "model"}
    return Summary(output=str(target), bytes=file_bytes(target), **fields)
