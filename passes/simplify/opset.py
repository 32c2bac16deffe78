"""Conversion to a later opset: a table of what changed its meaning, and how to say the same again.

Why not the C++ converter: it needs the model as one protobuf (2 GB), drops what it does not know, and stops
at ops of other domains. Ours edits the graph in place and touches no weight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcompress.passes.simplify.editor import (
    Editor,
    all_nodes,
    array_of,
    attribute,
    rank_of,
    static_shape,
)

OLDEST, NEWEST = 7, 25
MIN_IR_VERSION = {21: 10, 22: 10, 23: 11, 24: 12, 25: 13}

Apply = Callable[[ir.Node, Editor], None]
Check = Callable[[ir.Node], str | None]


def _nothing(node: ir.Node, editor: Editor) -> None:
    """For nodes that stay as they are, or that `check` refuses."""


def _always(node: ir.Node) -> str | None:
    return None


@dataclass(frozen=True)
class Adapter:
    """How one op's nodes pass one opset version: `check` gives the reason why a node cannot, before any edit."""

    apply: Apply
    check: Check = _always


class ConvertOpset(ir.passes.InPlacePass):
    """Raise the standard opset of a model.

    Cases:
      1. The opset is already `target` or later: nothing.
      2. Every node has a path through the table below: converted. Ops that the table does not name changed
         only in what they accept (new types, attributes whose default is the old meaning).
      3. A node cannot be converted, model-local functions are left, or the opset is older than 7: nothing is
         changed, and `refusal` says why.
    """

    def __init__(self, target: int) -> None:
        super().__init__()
        if not OLDEST <= target <= NEWEST:
            raise ValueError(f"opset {target} is not one of {OLDEST} to {NEWEST}")
        self.target = target
        self.refusal: str | None = None

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        self.refusal = None
        source = model.graph.opset_imports.get("", model.graph.opset_imports.get("ai.onnx", self.target))
        if source >= self.target:
            return ir.passes.PassResult(model, False)
        self.refusal = self._reason(model, source)
        if self.refusal is not None:
            return ir.passes.PassResult(model, False)
        editor = Editor(model)
        for node in list(all_nodes(model)):
            self._convert(node, source, editor)
        model.graph.opset_imports.pop("ai.onnx", None)
        model.graph.opset_imports[""] = self.target
        for node in all_nodes(model):
            node.version = None
        model.ir_version = max(model.ir_version, MIN_IR_VERSION.get(self.target, 10))
        return ir.passes.PassResult(model, True)

    def _reason(self, model: ir.Model, source: int) -> str | None:
        if source < OLDEST:
            return f"opset {source} is older than {OLDEST}"
        if any("" in f.opset_imports and f.opset_imports[""] != self.target for f in model.functions.values()):
            return "the model has functions of another opset"
        for node in all_nodes(model):
            if node.domain not in ("", "ai.onnx"):
                continue
            op_type = node.op_type
            for version in range(source + 1, self.target + 1):
                adapter = ADAPTERS.get((op_type, version))
                if adapter is None:
                    continue
                reason = adapter.check(node)
                if reason is not None:
                    return f"{node.op_type} {node.name!r} cannot go to opset {version}: {reason}"
                op_type = RENAMED.get((op_type, version), op_type)
        return None

    def _convert(self, node: ir.Node, source: int, editor: Editor) -> None:
        if node.domain not in ("", "ai.onnx"):
            return
        for version in range(source + 1, self.target + 1):
            adapter = ADAPTERS.get((node.op_type, version))
            if adapter is not None and node.graph is not None:
                adapter.apply(node, editor)


def _to_input(name: str, index: int, *, like_input: bool = False) -> Apply:
    """An attribute becomes an input: int64, or of the data's type."""

    def apply(node: ir.Node, editor: Editor) -> None:
        value = attribute(node, name)
        if value is None:
            return
        dtype: np.dtype[Any] = np.dtype(np.int64)
        data = node.inputs[0]
        if like_input:
            dtype = np.dtype(np.float32) if data is None or data.dtype is None else data.dtype.numpy()
        editor.set_input(node, index, editor.constant(np.array(value, dtype), f"{node.name}_{name}"))
        editor.set_attribute(node, name, None)

    return apply


def _drop(*names: str) -> Apply:
    def apply(node: ir.Node, editor: Editor) -> None:
        for name in names:
            editor.set_attribute(node, name, None)

    return apply


def _set_default(name: str, value: int | str) -> Apply:
    """The old default, written out, because the new one differs."""

    def apply(node: ir.Node, editor: Editor) -> None:
        if name not in node.attributes:
            editor.set_attribute(node, name, value)

    return apply


def _only_output(count: int) -> Check:
    def check(node: ir.Node) -> str | None:
        extra = [o.name for o in node.outputs[count:] if o.uses() or o.is_graph_output()]
        return f"its output {extra[0]!r} exists in training only" if extra else None

    return check


def _keep_outputs(count: int, *names: str) -> Apply:
    def apply(node: ir.Node, editor: Editor) -> None:
        _drop(*names)(node, editor)
        if len(node.outputs) > count:
            node.resize_outputs(count)

    return apply


def _spatial(node: ir.Node) -> str | None:
    return "spatial=0 has no later form" if attribute(node, "spatial", 1) == 0 else _only_output(1)(node)


def _softmax(node: ir.Node, editor: Editor) -> None:
    """Below 13 the tensor is flattened at `axis` (1 if absent) and normalized over all that follows."""
    data, result = node.inputs[0], node.outputs[0]
    axis, rank, shape = attribute(node, "axis", 1), rank_of(data), static_shape(data)
    if rank is not None and axis < 0:
        axis += rank
    if rank is not None and (axis == rank - 1 or (shape is not None and all(d == 1 for d in shape[axis + 1 :]))):
        editor.set_attribute(node, "axis", axis - rank if axis == rank - 1 else axis)
        return
    flat = editor.insert("Flatten", [data], {"axis": axis}, before=node)
    dims = editor.insert("Shape", [data], before=node)
    inner = editor.insert(node.op_type, [flat.outputs[0]], {"axis": -1}, before=node)
    back = editor.insert("Reshape", [inner.outputs[0], dims.outputs[0]], before=node, like=result)
    editor.replace(result, back.outputs[0])


def _slice(node: ir.Node, editor: Editor) -> None:
    starts, ends = attribute(node, "starts", ()), attribute(node, "ends", ())
    axes = attribute(node, "axes", tuple(range(len(starts))))
    for i, (name, value) in enumerate((("starts", starts), ("ends", ends), ("axes", axes)), start=1):
        editor.set_input(node, i, editor.constant(np.array(value, np.int64), f"{node.name}_{name}"))
    _drop("starts", "ends", "axes")(node, editor)


def _clip(node: ir.Node, editor: Editor) -> None:
    for i, name in enumerate(("min", "max"), start=1):
        if name in node.attributes:
            _to_input(name, i, like_input=True)(node, editor)


def _pad(node: ir.Node, editor: Editor) -> None:
    _to_input("pads", 1)(node, editor)
    value = attribute(node, "value", 0.0)
    if value != 0 and attribute(node, "mode", "constant") == "constant":
        editor.set_attribute(node, "value", value)
        _to_input("value", 2, like_input=True)(node, editor)
    editor.set_attribute(node, "value", None)


def _split_18(node: ir.Node, editor: Editor) -> None:
    if len(node.inputs) < 2 or node.inputs[1] is None:
        editor.set_attribute(node, "num_outputs", len(node.outputs))


def _upsample_scales(node: ir.Node, editor: Editor) -> None:
    editor.set_input(node, 1, editor.constant(np.array(attribute(node, "scales"), np.float32), f"{node.name}_scales"))
    editor.set_attribute(node, "scales", None)


def _upsample_to_resize(node: ir.Node, editor: Editor) -> None:
    node.op_type = "Resize"


def _scales_known(node: ir.Node) -> str | None:
    mode = attribute(node, "mode", "nearest")
    if mode == "linear":
        return None
    scales = attribute(node, "scales")
    found = np.array(scales) if scales is not None else array_of(node.inputs[1] if len(node.inputs) > 1 else None)
    if found is None:
        return "nearest resizing by scales that are not constant rounds differently up and down"
    if not ((found >= 1).all() or (found <= 1).all()):
        return "nearest resizing up and down at once has no later form"
    return None


def _resize_11(node: ir.Node, editor: Editor) -> None:
    """Before 11: coordinates are asymmetric, and nearest rounds down going up and up going down."""
    scales = node.inputs[1]
    found = array_of(scales)
    node.resize_inputs(3)
    node.replace_input_with(1, editor.constant(np.zeros(0, np.float32), "no_roi"))
    node.replace_input_with(2, scales)
    editor.set_attribute(node, "coordinate_transformation_mode", "asymmetric")
    if attribute(node, "mode", "nearest") == "nearest":
        rounding = "ceil" if found is not None and (found < 1).any() else "floor"
        editor.set_attribute(node, "nearest_mode", rounding)


def _resize_mode(node: ir.Node) -> str | None:
    mode = attribute(node, "coordinate_transformation_mode", "half_pixel")
    return f"{mode} was removed" if mode == "tf_half_pixel_for_nn" else None


def _grid_sample(node: ir.Node, editor: Editor) -> None:
    mode = attribute(node, "mode", "bilinear")
    editor.set_attribute(node, "mode", {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode))


def _scatter(node: ir.Node, editor: Editor) -> None:
    node.op_type = "ScatterElements"


def _scan(node: ir.Node) -> str | None:
    return "Scan had a batch axis before opset 9"


def _topk(node: ir.Node, editor: Editor) -> None:
    editor.set_input(node, 1, editor.constant(np.array([attribute(node, "k", 1)], np.int64), f"{node.name}_k"))
    editor.set_attribute(node, "k", None)


def _group_norm(node: ir.Node) -> str | None:
    return "its scale and bias went from one a group to one a channel"


def _dft(node: ir.Node, editor: Editor) -> None:
    axis = attribute(node, "axis", 1)
    editor.set_input(node, 2, editor.constant(np.array(axis, np.int64), f"{node.name}_axis"))
    editor.set_attribute(node, "axis", None)


_REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin",
    "ReduceProd", "ReduceSumSquare",
)  # fmt: skip

ADAPTERS: dict[tuple[str, int], Adapter] = {
    ("BatchNormalization", 9): Adapter(_drop("spatial"), _spatial),
    ("Scan", 9): Adapter(_nothing, _scan),
    ("Upsample", 9): Adapter(_upsample_scales),
    ("Dropout", 10): Adapter(_nothing, _only_output(1)),
    ("Slice", 10): Adapter(_slice),
    ("TopK", 10): Adapter(_topk),
    ("Upsample", 10): Adapter(_upsample_to_resize),
    ("Clip", 11): Adapter(_clip),
    ("Pad", 11): Adapter(_pad),
    ("Resize", 11): Adapter(_resize_11, _scales_known),
    ("Scatter", 11): Adapter(_scatter),
    ("Dropout", 12): Adapter(_drop("ratio")),
    ("Hardmax", 13): Adapter(_softmax),
    ("LogSoftmax", 13): Adapter(_softmax),
    ("Softmax", 13): Adapter(_softmax),
    ("ReduceSum", 13): Adapter(_to_input("axes", 1)),
    ("Resize", 13): Adapter(_nothing, _resize_mode),
    ("Split", 13): Adapter(_to_input("split", 1)),
    ("Squeeze", 13): Adapter(_to_input("axes", 1)),
    ("Unsqueeze", 13): Adapter(_to_input("axes", 1)),
    ("BatchNormalization", 14): Adapter(_keep_outputs(1), _only_output(1)),
    ("RoiAlign", 16): Adapter(_set_default("coordinate_transformation_mode", "output_half_pixel")),
    **{(op, 18): Adapter(_to_input("axes", 1)) for op in _REDUCTIONS},
    ("Split", 18): Adapter(_split_18),
    ("GridSample", 20): Adapter(_grid_sample),
    ("DFT", 20): Adapter(_dft),
    ("GroupNormalization", 21): Adapter(_nothing, _group_norm),
}
"""(op, version) -> how its nodes reach that version. Where an op is not named, its old nodes stay as they are."""

RENAMED = {("Upsample", 10): "Resize", ("Scatter", 11): "ScatterElements"}
