"""`quantize`: static, dynamic or weight-only quantization, without a search."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import onnx_ir as ir

from onnxcompress.calibration import Ranges, fingerprint
from onnxcompress.calibration.collect import Sources
from onnxcompress.data import DataSet, ImageOptions, open_data
from onnxcompress.errors import CalibrationError, ModelError
from onnxcompress.model_io import (
    Source,
    check_output,
    clone_model,
    file_bytes,
    initializer_bytes,
    load_model,
    save_model,
)
from onnxcompress.optimizer import Log, optimize
from onnxcompress.passes.lower import LowerWeightOnly, attention_tensors, native_nodes
from onnxcompress.passes.lower.functions import AttachFunctions
from onnxcompress.passes.quantize import CorrectBias, Decision, EqualizeChannels, SmoothActivations
from onnxcompress.passes.quantize.detect import quantized_operators
from onnxcompress.passes.quantize.weight_only import LEAST_OPSET
from onnxcompress.passes.simplify import DropShapes, InferShapes, count_nodes
from onnxcompress.passes.simplify.editor import all_nodes
from onnxcompress.progress import Progress, silent
from onnxcompress.quantization_channels import head_magnitudes, mean_errors, smoothing_statistics
from onnxcompress.quantization_names import matching
from onnxcompress.quantization_options import Mode, Options
from onnxcompress.quantization_static import RangeSource, explained, wide_tensors, with_ranges
from onnxcompress.recipe import Recipe, finish, insert, lower, make_plan, prepare, with_lowered
from onnxcompress.runtime.devices import Target
from onnxcompress.runtime.session import OPENED_BYTES, opening
from onnxcompress.solvers.gptq import gptq_blocks

DEFAULT_METHOD = "mse"

PER_CHANNEL_OPSET = 13
"""The first opset whose DequantizeLinear takes a scale per channel."""


@dataclass(frozen=True)
class Quantized:
    """What `quantize` gives back.

    Attributes:
        model: a new model.
        decisions: what became of every node that could have been quantized, and why.
        notes: what the user should know.
    """

    model: ir.Model
    decisions: list[Decision] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Summary:
    """What `quantize_file` did. Bytes include external data; nodes are those of `Quantized.decisions`."""

    output: str
    mode: str
    bytes_before: int
    bytes_after: int
    quantized: int
    float: int
    nodes: list[Decision]
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def quantize(
    model: Source,
    *,
    mode: Mode = "static",
    data: Sources | None = None,
    ranges: str | os.PathLike[str] | Ranges | None = None,
    method: str | None = None,
    weights: Literal["int8", "int4"] = "int8",
    block_size: int | None = None,
    activations: Literal["u8", "s8", "u16"] = "u8",
    exclude: Sequence[str] = (),
    wide: Sequence[str] = (),
    smooth: float | None = None,
    equalize: bool = False,
    bias_correction: bool = False,
    portable: bool = False,
    threads: int = 0,
    gptq: bool = False,
    target: Target = "cpu",
    progress: Progress = silent,
) -> Quantized:
    """Quantize a model, as it is told to: nothing is measured (`compress` searches and measures).

    Static and dynamic quantization optimize the model first. With `ranges` the model is quantized as it stands
    instead, since they are true of its own tensors only: optimize, then calibrate, then quantize. Weight-only
    quantization changes the weights only (and the opset, where it is below 21), and streams them.

    Args:
        model: a path, or a model, which is not changed.
        mode: static (int8 weights and activations, with ranges known beforehand), dynamic (the same with ranges
            taken on every run; MatMul and Gemm only) or weight-only.
        data: feeds to calibrate on, as for `calibrate`; static, and for `smooth` and `gptq`.
        ranges: static: what `calibrate` gave for this model, or its file.
        method: how data becomes ranges: minmax, percentile, entropy, mse or moving-average. None: mse, and the
            method of `ranges`.
        weights: weight-only: int8 (a scale per output channel) or int4 (per block of inputs); static: int4 for linear
            layers in operators of our own, with u8 activations.
        block_size: of int4 weights, and weight-only: inputs that share a scale, a power of two and at least 16 (static:
            32).
        activations: static: u8 (CPUs, and `target` cuda), s8 (symmetric, for TensorRT) or u16.
        exclude: nodes that stay float: names, or patterns with * and ?.
        wide: static: nodes whose input activations take 16 bits, likewise.
        smooth: alpha of SmoothQuant, 0 to 1 (0.5 is usual): outliers of normalized activations move into the
            weights that they meet.
        equalize: cross-layer equalization of convolution weights first.
        bias_correction: static: take the mean error that quantizing a layer's weight adds out of its bias. It helps
            most small convolution networks and can hurt others: measure.
        portable: standard operators only, none of ONNX Runtime's own.
        threads: of ONNX Runtime, when data is run; 0: its choice.
        gptq: weight-only, weights in blocks: round each column so that it makes up for the ones before it, layer by
            layer on data, in the place of rounding each weight to the nearest.
        target: cuda: operators of our own, static (u8 activations) or weight-only (float or half activations), that
            have kernels for CUDA; the model runs on a CPU as well.
        progress: called as work goes on.

    Raises:
        ValueError: arguments that do not exist or do not go together.
        ModelError: the model cannot be read or run, or a pattern matches no node.
        CalibrationError: ranges of another model, or activations that are not finite.
        DataError: feeds that do not fit the model.
    """
    options = Options(
        mode, method, weights, block_size, activations, exclude, wide, smooth, equalize, bias_correction, portable,
        threads, gptq, target,
    )  # fmt: skip
    options.check_sources(data=data is not None, ranges=ranges is not None)
    found = Ranges.load(ranges) if isinstance(ranges, str | os.PathLike) else ranges
    return _quantize(clone_model(model), options, None if data is None else data, found, progress)


def quantize_file(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    options: Options,
    *,
    in_place: bool = False,
    data: Sequence[str] = (),
    images: ImageOptions | None = None,
    ranges: str | os.PathLike[str] | None = None,
    progress: Progress = silent,
) -> Summary:
    """`quantize` from file to file. The result is opened in ONNX Runtime before it appears under its name.

    Raises:
        as `quantize`; ModelError also where the target is the source and not `in_place`,
            or the result does not open or cannot be written.
    """
    options.check_sources(data=bool(data), ranges=ranges is not None)
    check_output(source, target, in_place=in_place, others=[*data, *([] if ranges is None else [ranges])])
    model = load_model(source)
    before, held = file_bytes(source), initializer_bytes(model)
    feeds = open_data(data, model, images=images) if data else None
    result = _quantize(model, options, feeds, None if ranges is None else Ranges.load(ranges), progress)
    notes = list(result.notes)
    opens = max(held, initializer_bytes(result.model)) <= OPENED_BYTES
    if not opens:
        notes.append("the result was not opened in ONNX Runtime before it was written: it is large")
    progress("writing", 0, None)
    save_model(result.model, target, verify=opening("quantized") if opens else None)
    done = sum(decision.quantized for decision in result.decisions)
    return Summary(
        str(target),
        options.mode,
        before,
        file_bytes(target),
        done,
        len(result.decisions) - done,
        result.decisions,
        notes,
    )


def _quantize(
    model: ir.Model, options: Options, data: Sources | None, ranges: Ranges | None, progress: Progress
) -> Quantized:
    """`model` may be changed."""
    present = quantized_operators(model)
    if present:
        listed = ", ".join(f"{count} {op}" for op, count in present.most_common(3))
        return Quantized(model, notes=[f"the model is quantized already ({listed}): it was left as it is"])
    feeds = None if data is None else open_data(data, model)
    match options.mode:
        case "static":
            result = _static(model, options, feeds, ranges, progress)
        case "dynamic":
            result = _dynamic(model, options, feeds, progress)
        case _:
            result = _weight_only(model, options, feeds, progress)
    if not any(decision.quantized for decision in result.decisions):
        result.notes.insert(0, f"nothing was quantized: {_why_not(result.decisions)}")
    return result


def _static(
    model: ir.Model, options: Options, data: DataSet | None, ranges: Ranges | None, progress: Progress
) -> Quantized:
    notes: list[str] = []
    if ranges is not None:
        ranges = _fitting(ranges, model, options.method)
        notes += _unoptimized(model)
    recipe = _recipe(options, optimize=ranges is None)
    recipe, prepared = _prepared(model, recipe, options, data, notes, progress)
    _require_opset(prepared, PER_CHANNEL_OPSET)
    if options.activations == "u16" or options.wide:
        _require_opset(prepared, LEAST_OPSET)
        notes.append("ONNX Runtime's CPU kernels have no 16-bit activations: such nodes run in float between Q and DQ")
    if recipe.native:
        recipe = _attended(recipe, prepared, options, data, notes, progress)
    source = RangeSource(
        prepared, recipe, ranges, data, options.method or DEFAULT_METHOD, options.threads, progress
    )  # fmt: skip
    recipe, reasons = with_ranges(recipe, source)
    if options.wide and not wide_tensors(make_plan(prepared, recipe), recipe):
        notes.append("wide has no effect: none of its nodes is quantized")
    result, decisions = insert(prepared, recipe)
    if options.bias_correction:
        assert data is not None
        step = CorrectBias(mean_errors(prepared, result, data, threads=options.threads, progress=progress))
        step(result)
        notes.append(f"corrected the biases of {_share(step.decisions)} layers")
    lowered = lower(result, recipe)
    if recipe.four_bits:
        notes.append(_four_bits_note(result))
    return Quantized(result, explained(with_lowered(decisions, lowered), reasons), notes)


def _four_bits_note(model: ir.Model) -> str:
    count = sum(node.op_type == "QLinear4" for node in native_nodes(model))
    return f"{count} linear layer{'s' * (count != 1)} take 4-bit weights, the others 8; --explain says why"


def _attended(
    recipe: Recipe, prepared: ir.Model, options: Options, data: DataSet | None, notes: list[str], progress: Progress
) -> Recipe:
    """The recipe with what operators for attention need to know."""
    if not attention_tensors(prepared):
        return recipe
    if data is None:
        notes.append("attention stays in float: what it needs to know of its channels is in data, not in ranges")
        return recipe
    return replace(recipe, heads=head_magnitudes(prepared, data, threads=options.threads, progress=progress))


def _dynamic(model: ir.Model, options: Options, data: DataSet | None, progress: Progress) -> Quantized:
    notes: list[str] = []
    recipe, prepared = _prepared(model, _recipe(options, optimize=True), options, data, notes, progress)
    _require_opset(prepared, PER_CHANNEL_OPSET)
    result, decisions = finish(prepared, recipe)
    return Quantized(result, decisions, notes)


def _weight_only(model: ir.Model, options: Options, data: DataSet | None, progress: Progress) -> Quantized:
    log = Log()
    model = optimize(model, portable=True, most_rounds=0, progress=progress, log=log)
    if model.graph.opset_imports.get("", 0) < LEAST_OPSET:
        raise ModelError(f"weight-only quantization needs opset {LEAST_OPSET}, and {'; '.join(log.notes)}")
    excluded = matching(options.exclude, all_nodes(model), "exclude")
    step = options.weight_pass(excluded)
    notes = []
    if options.gptq:
        assert data is not None
        solved = gptq_blocks(model, step, data, threads=options.threads, progress=progress)
        step = options.weight_pass(excluded, solved)
        notes.append(f"rounded {len(solved)} weights by GPTQ")
    step(model)
    wider = [d for d in step.decisions if d.quantized and d.reason.startswith("8 bits")]
    if options.weights == "int4" and wider:
        notes.append(f"{len(wider)} of the quantized nodes take 8 bits, having no 4-bit form; --explain says why")
    if options.target == "cuda":
        _lower_weights(model, notes)
        return Quantized(model, step.decisions, notes)
    every_run = [
        d for d in step.decisions if d.quantized and d.op in ("Conv", "Gemm") and "MatMulNBits" not in d.reason
    ]
    if every_run:
        notes.append(
            f"ONNX Runtime dequantizes the weights of {len(every_run)} Conv and Gemm nodes on every run: the file is "
            "smaller, the model is not faster"
        )
    return Quantized(model, step.decisions, notes)


def _lower_weights(model: ir.Model, notes: list[str]) -> None:
    """What `QuantizeWeights` wrote, in operators of our own."""
    InferShapes()(model)  # which values are float32 or float16 is not always written down
    lowering = LowerWeightOnly()
    lowering(model)
    AttachFunctions()(model)
    DropShapes()(model)
    left = [decision for decision in lowering.decisions if not decision.quantized]
    if left:
        notes.append(f"{len(left)} nodes have no operator of ours, for one because: {left[0].reason}")


def _recipe(options: Options, *, optimize: bool) -> Recipe:
    assert options.mode != "weight-only"
    return Recipe(
        optimize=optimize, portable=options.portable, mode=options.mode, activations=options.activations,
        method=options.method or "", residual_sum=options.target == "cpu", tables=True, equalize=options.equalize,
        target=options.target, native=options.target == "cuda" or bool(options.four_bits), four_bits=options.four_bits,
    )  # fmt: skip


def _prepared(
    model: ir.Model, recipe: Recipe, options: Options, data: DataSet | None, notes: list[str], progress: Progress
) -> tuple[Recipe, ir.Model]:
    """The recipe with the user's nodes in it, and the float model that it quantizes, equalized and smoothed."""
    progress("optimize", 0, None)
    prepared = prepare(model, replace(recipe, equalize=False))
    if options.equalize:
        equalizing = EqualizeChannels()
        equalizing(prepared)
        notes.append(f"equalized {sum(d.quantized for d in equalizing.decisions)} pairs of layers")
    if options.smooth is not None:
        assert data is not None
        statistics = smoothing_statistics(prepared, data, threads=options.threads, progress=progress)
        smoothing = SmoothActivations(statistics, options.smooth, allow_mul=True)
        smoothing(prepared)
        notes.append(
            f"smoothed the inputs of {_share(smoothing.decisions)} linear layers after a normalization"
            if smoothing.decisions
            else "smooth has no effect: no MatMul or Gemm with constant weights reads a normalization"
        )
    excluded = matching(options.exclude, prepared.graph, "exclude")
    wide = matching(options.wide, prepared.graph, "wide")
    return replace(recipe, exclude=dict.fromkeys(excluded, "user"), wide=tuple(wide)), prepared


def _fitting(ranges: Ranges, model: ir.Model, method: str | None) -> Ranges:
    """The ranges, by the method asked for, if they are this model's.

    Optimizing renames tensors and folds nodes under the names they had, so no other model's ranges will do.
    """
    if ranges.digest != fingerprint(model):
        raise CalibrationError(
            "the ranges were taken from another model: quantize the very model that was calibrated, "
            "calibrate this one, or give data"
        )
    return ranges if method is None or method == ranges.method else ranges.by(method)


def _unoptimized(model: ir.Model) -> list[str]:
    before, after = count_nodes(model), count_nodes(optimize(model, portable=True))
    if after >= before:
        return []
    return [
        f"the model was quantized as it stands, since its ranges were taken of it; optimizing would make {after} nodes "
        f"of its {before}: optimize, calibrate and quantize in that order for a faster result"
    ]


def _require_opset(model: ir.Model, least: int) -> None:
    opset = model.graph.opset_imports.get("", 0)
    if opset < least:
        log = Log()
        optimize(model, most_rounds=0, log=log)
        raise ModelError(f"this quantization needs opset {least}, the model has {opset}: {'; '.join(log.notes)}")


def _share(decisions: Sequence[Decision]) -> str:
    return f"{sum(decision.quantized for decision in decisions)} of {len(decisions)}"


def _why_not(decisions: Sequence[Decision]) -> str:
    if not decisions:
        return "the model has no Conv, Gemm or MatMul"
    reason, count = Counter(decision.reason for decision in decisions).most_common(1)[0]
    return f"{count} of {len(decisions)} nodes stay float because: {reason}"
