"""Recipes: everything that turns a source model into a result, with every choice that a measurement made.

A recipe is plain data. `build` makes a model of it and times nothing, so that replaying a recipe on the same
source gives the same bytes; the search of `compress` is a choice among recipes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
import onnx_ir as ir

from onnxcompress.errors import CompressError, ModelError, first_line
from onnxcompress.files import read_text
from onnxcompress.model_io import Source, clone_model
from onnxcompress.optimizer import MOST_ROUNDS, optimize
from onnxcompress.passes.lower import FoldFocus, FuseIntegerLinear, FuseSiLU, KeepBiasSum, KeepResidualSum, LowerNative
from onnxcompress.passes.lower.four_bits import LEAST_BLOCK
from onnxcompress.passes.quantize import (
    Decision,
    InsertQDQ,
    QuantizeWeights,
    Scheme,
    SmoothActivations,
    plan_quantization,
)
from onnxcompress.passes.quantize.dynamic import QuantizeDynamic
from onnxcompress.passes.quantize.equalize import EqualizeChannels
from onnxcompress.passes.quantize.plan import Plan
from onnxcompress.passes.quantize.weight_only import LEAST_OPSET
from onnxcompress.passes.simplify import DropShapes, InferShapes
from onnxcompress.slim import Slim

SCHEMA = 1

MOST_RECIPE = 1 << 26
"""Bytes of the longest recipe."""

SIGNED_OPSET = 20
"""The opset of models with signed activations (unless theirs is later): from 21 on, ONNX Runtime 1.31 sets
output_dtype on the QuantizeLinear that it puts around data movements, then makes its zero point unsigned, and
refuses the model."""

Mode = Literal["original", "float", "static", "dynamic"]


@dataclass(frozen=True)
class Recipe:
    """The steps from source to result.

    Attributes:
        source: SHA-256 of the source model's file and external data; "" when not from a file.
        target: the device that it is for (a remark for `load`; the model runs on either).
        optimize: simplify and fuse first.
        portable: standard ops only.
        native: lower to the operators of the domain `onnxcompress`; with the static mode.
        mode: original (a copy of the source), float (no quantization), static (Q/DQ with `ranges`), dynamic.
        activations: type of statically quantized activations.
        method: how the ranges were chosen (a remark; `ranges` holds them).
        elementwise: quantize the nodes between quantized ones too.
        reduced_range: 7-bit weights.
        residual_sum: keep residual sums apart from LayerNormalization.
        tables: store embedding tables as s8 with a scale per row.
        equalize: equalize the channels of convolution pairs.
        smooth: alpha of SmoothQuant; None: not smoothed.
        four_bits: inputs that share a scale in 4-bit weights of native linear layers; 0: they take 8 bits.
        wide: nodes whose input activations take 16 bits.
        exclude: nodes that stay float, and why: slow | sensitive | range | user.
        standard: nodes that are not lowered to native operators, and why: slow.
        dense: native operators that multiply their zero blocks too, and why: slow.
        ranges: (low, high) of every quantized tensor.
        channels: greatest magnitudes per channel of the smoothed tensors.
        heads: greatest magnitudes per channel of the queries, keys and values of native attention.
        slim: how the source was pruned and tuned first, as `Slim.as_table` says it; empty: it was not.
    """

    source: str = ""
    target: Literal["cpu", "cuda"] = "cpu"
    optimize: bool = True
    portable: bool = False
    native: bool = False
    mode: Mode = "float"
    activations: Literal["u8", "s8", "u16"] = "u8"
    method: str = ""
    elementwise: bool = True
    reduced_range: bool = False
    residual_sum: bool = False
    tables: bool = False
    equalize: bool = False
    smooth: float | None = None
    four_bits: int = 0
    wide: tuple[str, ...] = ()
    exclude: Mapping[str, str] = field(default_factory=dict)
    standard: Mapping[str, str] = field(default_factory=dict)
    dense: Mapping[str, str] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    channels: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    heads: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    slim: Mapping[str, str | float] = field(default_factory=dict)

    @property
    def scheme(self) -> Scheme:
        """The quantization scheme of the static mode."""
        return Scheme(
            activations=self.activations,
            exclude=frozenset(self.exclude),
            wide=frozenset(self.wide),
            elementwise=self.elementwise,
            reduced_range=self.reduced_range,
            native=self.native,
        )

    def digest(self) -> str:
        """SHA-256 of the recipe."""
        return hashlib.sha256(to_toml(self).encode()).hexdigest()

    def describe(self) -> str:
        """A few words for people."""
        if self.mode == "original":
            return "the original"
        pruned = Slim.of(self.slim).describe() if self.slim else ""
        if self.mode == "float":
            words = ["optimized float" if self.optimize else "float"] + ["sums apart"] * self.residual_sum
            return ", ".join([*words, pruned] if pruned else words)
        words = ["native" if self.native else self.mode, "int8" if self.activations != "u16" else "int8/u16"]
        words += [f"({self.method} ranges)"] if self.mode == "static" and self.method else []
        words += ["linear layers only"] if self.mode == "static" and not self.elementwise else []
        words += ["smoothed"] if self.smooth is not None else []
        words += ["4-bit weights"] if self.four_bits else []
        words += ["equalized"] if self.equalize else []
        words += [f"with {len(self.exclude)} node{'s' * (len(self.exclude) > 1)} float"] if self.exclude else []
        words += [f"{len(self.standard)} in standard operators"] if self.standard else []
        words += [f"{len(self.dense)} with their zeros"] if self.dense else []
        return " ".join(words) + (f", {pruned}" if pruned else "")


def prepare(source: Source, recipe: Recipe) -> ir.Model:
    """The float model that a recipe quantizes: optimized (if it says so), and fused for ONNX Runtime unless portable.

    Tensor names in `ranges` are this model's.
    """
    opset = SIGNED_OPSET if recipe.activations == "s8" else None
    model = optimize(source, portable=True, opset=opset, most_rounds=MOST_ROUNDS if recipe.optimize else 0)
    InferShapes()(model)  # placement looks at shapes, and models that came without them are kept without
    _name_nodes(model)
    if recipe.equalize:
        EqualizeChannels()(model)
    if recipe.smooth is not None:
        statistics = {name: np.array(values, np.float32) for name, values in recipe.channels.items()}
        try:
            SmoothActivations(statistics, alpha=recipe.smooth, allow_mul=True)(model)
        except ValueError as error:
            raise ModelError(f"the recipe does not fit the model: {error}") from error
    if recipe.native:
        FoldFocus()(model)
    if not recipe.portable:
        FuseSiLU()(model)
    return model


def make_plan(prepared: ir.Model, recipe: Recipe) -> Plan:
    """The quantization plan of a static recipe on its prepared model."""
    return plan_quantization(prepared, recipe.scheme)


def finish(prepared: ir.Model, recipe: Recipe) -> tuple[ir.Model, list[Decision]]:
    """Quantize and lower a copy of a prepared model.

    Returns:
        the model, and what became of each node that could have been quantized.

    Raises:
        ModelError: the recipe's ranges do not fit the model.
    """
    model, decisions = insert(prepared, recipe)
    return model, with_lowered(decisions, lower(model, recipe))


def with_lowered(decisions: Sequence[Decision], lowered: Sequence[Decision]) -> list[Decision]:
    """What became of the nodes, of which the plan knew nothing that only an operator of ours runs in int8."""
    reasons = {d.name: d.reason for d in lowered if d.quantized}
    return [replace(d, quantized=True, reason=reasons[d.name]) if d.name in reasons else d for d in decisions]


def insert(prepared: ir.Model, recipe: Recipe) -> tuple[ir.Model, list[Decision]]:
    """The first half of `finish`: quantize a copy of a prepared model, in standard operators."""
    model = prepared.clone()
    decisions: list[Decision] = []
    if recipe.mode == "static":
        plan = make_plan(model, recipe)
        try:
            InsertQDQ(recipe.ranges, recipe.scheme, plan)(model)
        except KeyError as error:
            raise ModelError(f"the recipe has no range for tensor {error}: it was made from another model") from error
        decisions = plan.decisions
    elif recipe.mode == "dynamic":
        step = QuantizeDynamic(frozenset(recipe.exclude), limit=recipe.scheme.weight_limit)
        step(model)
        decisions = step.decisions
    if recipe.tables and model.graph.opset_imports.get("", 0) >= LEAST_OPSET:
        others = frozenset(node.name or "" for node in model.graph if node.op_type != "Gather")
        QuantizeWeights(8, exclude=others)(model)
    decisions = [replace(d, reason=_EXCLUDED.get(recipe.exclude.get(d.name, ""), d.reason)) for d in decisions]
    return model, decisions


def lower(model: ir.Model, recipe: Recipe) -> list[Decision]:
    """The second half of `finish`: write what runs fast, in place; what became of the nodes that it lowered."""
    if recipe.native:
        step = LowerNative(
            recipe.heads, frozenset(recipe.standard) | frozenset(recipe.exclude), frozenset(recipe.dense),
            recipe.four_bits,
        )  # fmt: skip
        step(model)
        DropShapes()(model)
        return step.decisions
    if recipe.residual_sum:
        KeepResidualSum()(model)
    (KeepBiasSum if recipe.portable else FuseIntegerLinear)()(model)
    DropShapes()(model)
    return []


_EXCLUDED = {
    "slow": "float is faster here, by measurement",
    "sensitive": "quantizing it costs too much accuracy",
    "range": "no range could be taken of its tensors: they were empty, or a mask, on all data",
    "user": "excluded by the user",
}


def build(source: Source, recipe: Recipe) -> tuple[ir.Model, list[Decision]]:
    """Make the model of a recipe: nothing is measured, and the same source gives the same bytes.

    Raises:
        ModelError: the recipe does not fit the model.
    """
    if recipe.mode == "original":
        return clone_model(source), []
    return finish(prepare(source, recipe), recipe)


def to_toml(recipe: Recipe) -> str:
    """The recipe as TOML; numbers keep every bit."""
    lines = ["# Made by onnxcompress; replay it with: onnxcompress compress MODEL -o OUT --recipe THIS"]
    lines.append(f"schema = {SCHEMA}")
    tables: list[tuple[str, Mapping[str, Any]]] = []
    for key in (f.name for f in dataclasses.fields(recipe)):
        value = getattr(recipe, key)
        if isinstance(value, Mapping):
            tables.append((key, value))
        elif value is not None:
            lines.append(f"{key} = {_toml(value)}")
    for key, table in tables:
        if table:
            lines += ["", f"[{key}]"]
            lines += [f"{_toml(name)} = {_toml(value)}" for name, value in sorted(table.items())]
    return "\n".join(lines) + "\n"


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Read a recipe.

    Raises:
        CompressError: no such file, not TOML, another schema, or a key that no recipe has.
    """
    return parse_recipe(read_text(path, kind="a recipe", most=MOST_RECIPE), str(path))


def parse_recipe(text: str, path: str) -> Recipe:
    """The recipe of a TOML text that came from `path`.

    Raises:
        CompressError: as `read_recipe`.
    """
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits is no TOMLDecodeError
        raise CompressError(f"{path}: not a recipe ({first_line(error)})") from error
    if document.pop("schema", None) != SCHEMA:
        raise CompressError(f"{path}: not a recipe of schema {SCHEMA}; make it again with this version")
    known = {f.name for f in dataclasses.fields(Recipe)}
    unknown = sorted(set(document) - known)
    if unknown:
        raise CompressError(f"{path}: unknown key {unknown[0]!r}; a recipe has {', '.join(sorted(known))}")
    for key, value in document.items():
        if not _fits(key, value):
            raise CompressError(f"{path}: {key} = {str(value)[:60]} is not what a recipe holds there")
    for table in ("ranges", "channels", "heads"):
        document[table] = {name: tuple(values) for name, values in document.get(table, {}).items()}
    document["wide"] = tuple(document.get("wide", ()))
    return Recipe(**document)


def _fits(key: str, value: Any) -> bool:
    """Is this what a recipe can hold under a key?"""
    match key:
        case "mode":
            return value in get_args(Mode)
        case "activations":
            return value in ("u8", "s8", "u16")
        case "target":
            return value in ("cpu", "cuda")
        case "source" | "method":
            return isinstance(value, str)
        case "smooth":
            return _is_number(value) and 0 <= value <= 1
        case "four_bits":
            return type(value) is int and (value == 0 or (value >= LEAST_BLOCK and value % 4 == 0))
        case "wide":
            return isinstance(value, list) and all(isinstance(name, str) for name in value)
        case "exclude" | "standard" | "dense":
            return isinstance(value, dict) and all(isinstance(reason, str) for reason in value.values())
        case "slim":
            return isinstance(value, dict) and Slim.fits(value)
        case "ranges":
            return isinstance(value, dict) and all(_are_numbers(v) and len(v) == 2 for v in value.values())
        case "channels" | "heads":
            return isinstance(value, dict) and all(map(_are_numbers, value.values()))
        case _:
            return isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_number, value))


def _toml(value: Any) -> str:
    """A string, number, boolean or list as TOML: as JSON, but for characters beyond 16 bits and DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _name_nodes(model: ir.Model) -> None:
    """Give every node of the main graph a name of its own: exclusions and reports go by it."""
    taken: set[str] = set()
    for node in model.graph:
        name = node.name or f"{node.op_type}_{node.outputs[0].name}"
        while name in taken:
            name += "_"
        node.name = name
        taken.add(name)
