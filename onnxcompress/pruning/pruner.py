"""`prune`: weights, blocks or whole channels removed by what they cost, and the others refitted on data."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxcompress.calibration.collect import Sources
from onnxcompress.data import DataSet, ImageOptions, open_data
from onnxcompress.errors import ModelError
from onnxcompress.inspection import inspect
from onnxcompress.model_io import Source, check_output, file_bytes, load_model, save_model
from onnxcompress.optimizer import optimize
from onnxcompress.passes.prune import Refusal
from onnxcompress.passes.prune.channels import Group, explain
from onnxcompress.passes.quantize.detect import quantized_operators
from onnxcompress.progress import Progress, silent
from onnxcompress.pruning.channels import first_shapes, prune_channels
from onnxcompress.pruning.masks import LayerReport, prune_masks
from onnxcompress.pruning.options import SAMPLES, Allocation, Options, Pattern, Saliency, Solver
from onnxcompress.runtime.session import opening


@dataclass(frozen=True)
class Pruned:
    """What `prune` gives back.

    Attributes:
        model: a new model.
        layers: what became of every layer (masks).
        groups: of coupled channels that could be cut, and `keep`, the units of each that stayed (channels).
        refused: what was left as it is, and why.
        notes: what the user should know.
    """

    model: ir.Model
    layers: list[LayerReport] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    keep: dict[str, tuple[int, ...]] = field(default_factory=dict)
    refused: list[Refusal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def explain(self) -> list[str]:
        """A line for each group or layer, and for what was left as it is."""
        if self.groups:
            return explain(self.groups, self.refused, self.keep)
        rows = [(layer.name, layer.op, f"{layer.sparsity:.1%} zero", _error(layer)) for layer in self.layers]
        rows += [(refusal.name, refusal.op, "stays", refusal.reason) for refusal in self.refused]
        widths = [max((len(row[i]) for row in rows), default=0) for i in range(3)]
        return ["  ".join([*(f"{row[i]:<{widths[i]}}" for i in range(3)), row[3]]).rstrip() for row in rows]


@dataclass(frozen=True)
class Size:
    """A model's size.

    Attributes:
        bytes: on disk, external data included.
        macs: of one run; None where shapes leave some of them open.
        sparsity: share of zeros among the weights of two axes or more.
    """

    bytes: int
    parameters: int
    macs: int | None
    sparsity: float


@dataclass(frozen=True)
class Summary:
    """What `prune_file` did."""

    output: str
    pattern: str
    before: Size
    after: Size
    layers: list[LayerReport]
    groups: dict[str, dict[str, int]]
    explanation: list[str]
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def prune(
    model: Source,
    *,
    pattern: Pattern,
    sparsity: float | None = None,
    macs: float | None = None,
    saliency: Saliency | None = None,
    data: Sources | None = None,
    allocation: Allocation = "uniform",
    exclude: Sequence[str] = (),
    compensate: bool | None = None,
    solver: Solver = "admm",
    samples: int = SAMPLES,
    shapes: Mapping[str, Sequence[int]] | None = None,
    threads: int = 0,
    seed: int = 0,
    progress: Progress = silent,
) -> Pruned:
    """Prune a model, as it is told to. It is optimized first; `distill` recovers what accuracy was lost.

    Args:
        model: a path, or a float model, which is not changed.
        pattern: what is removed: whole channels (neurons, heads), blocks of outputs x inputs, two of every four
            inputs, or single weights. All but channels leave zeros, which sparse kernels skip.
        sparsity: masks: share of the weights to remove; of the layers that are pruned. 2:4 has its own.
        macs: channels: share of the multiply-accumulates to keep.
        saliency: what is removed first: magnitude, wanda, obs (by what the layer reads), taylor or fisher (by
            gradients of the outputs; needs torch). None: magnitude without data; with it obs for masks, fisher and
            wanda together for channels (obs where torch is not installed).
        data: feeds, as for `calibrate`; without them nothing but weights is looked at.
        allocation: how masks are spread over layers: uniform, global (the least saliency anywhere) or sensitivity
            (the least error of the outputs, measured layer by layer).
        exclude: nodes that stay as they are: names, or patterns with * and ?.
        compensate: refit the weights that stay, layer by layer, to what each layer gave before. None: with data.
        solver: what finds masks and weights together where both are asked for: admm, or obs (SparseGPT): quicker,
            with a third more error.
        samples: feeds to use, from the first on.
        shapes: channels: input name to dimensions that multiply-accumulates are counted for; those of the first feed
            when None.
        threads: of ONNX Runtime, when data is run; 0: its choice.
        seed: of everything random.
        progress: called as work goes on.

    Raises:
        ValueError: arguments that do not exist or do not go together.
        ModelError: the model cannot be read or run, is quantized, cannot get as small as asked, or a pattern of
            `exclude` matches no node.
        CalibrationError: activations that are not finite.
        DataError: feeds that do not fit the model.
    """
    options = Options(
        pattern, sparsity, macs, saliency, allocation, exclude, compensate, solver, samples, shapes or {}, threads, seed
    )
    options.check_data(data is not None)
    loaded = load_model(model)
    return _prune(loaded, options, None if data is None else open_data(data, loaded), progress)


def prune_file(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    options: Options,
    *,
    in_place: bool = False,
    data: Sequence[str | Path] = (),
    images: ImageOptions | None = None,
    progress: Progress = silent,
) -> Summary:
    """`prune` from file to file. The result is opened in ONNX Runtime before it appears under its name.

    Raises:
        as `prune`; ModelError also where the target is the source and not `in_place`,
            or the result does not open or cannot be written.
    """
    options.check_data(bool(data))
    check_output(source, target, in_place=in_place, others=data)
    model = load_model(source)
    feeds = open_data(data, model, images=images) if data else None
    shapes = options.shapes or first_shapes(feeds)
    before = _size(source, shapes)
    result = _prune(model, replace(options, shapes=shapes), feeds, progress)
    progress("writing", 0, None)
    save_model(result.model, target, verify=opening("pruned"))
    groups = {
        group.name: {"units": group.size, "kept": len(result.keep.get(group.name, range(group.size)))}
        for group in result.groups
    }
    return Summary(
        str(target), options.pattern, before, _size(target, shapes), result.layers, groups, result.explain(),
        result.notes,
    )  # fmt: skip


def _prune(model: ir.Model, options: Options, data: DataSet | None, progress: Progress) -> Pruned:
    present = quantized_operators(model)
    if present:
        listed = ", ".join(f"{count} {op}" for op, count in present.most_common(3))
        raise ModelError(f"the model is quantized ({listed}): prune the float model, then quantize the result")
    if options.compensate is None:
        options = replace(options, compensate=data is not None)
    prepared = optimize(model, portable=True, progress=progress)
    notes: list[str] = []
    if options.pattern == "channels":
        cut = prune_channels(prepared, options, data, notes, progress)
        return Pruned(prepared, groups=cut.groups, keep=cut.keep, refused=cut.refused, notes=notes)
    layers, refused = prune_masks(prepared, options, data, notes, progress)
    return Pruned(prepared, layers, refused=refused, notes=notes)


def _size(path: str | os.PathLike[str], shapes: Mapping[str, Sequence[int]]) -> Size:
    found = inspect(path, shapes=shapes)
    macs = None if found.unknown_macs else found.macs
    return Size(file_bytes(path), found.parameters, macs, found.sparsity or 0.0)


def _error(layer: LayerReport) -> str:
    return "" if layer.error is None else f"output error {layer.error:.3g}"
