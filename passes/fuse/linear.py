"""Linear nodes and what feeds them: MatMul + Add as Gemm, transposes and pads taken in."""

from __future__ import annotations

from typing import NamedTuple

import onnx_ir as ir

from onnxcompress.passes.simplify.editor import (
    Editor,
    array_of,
    attribute,
    dims_of,
    ints_of,
    only_reader,
    producer,
    rank_of,
    scalar_of,
    tensor_of,
)
from onnxcompress.passes.simplify.rules import Rule


class Product(NamedTuple):
    matmul: ir.Node
    bias: ir.Value


def _matmul_add(node: ir.Node) -> Product | None:
    """A matrix times a constant matrix, read by the Add of a constant vector [N], [1, N] or [1] alone."""
    for left, right in ((0, 1), (1, 0)):
        matmul, bias = producer(node.inputs[left], "MatMul"), node.inputs[right]
        if matmul is None or bias is None or only_reader(matmul.outputs[0]) is not node:
            continue
        weight, constant = tensor_of(matmul.inputs[1]), tensor_of(bias)
        if weight is None or constant is None or len(weight.shape) != 2 or rank_of(matmul.inputs[0]) != 2:
            continue
        n = dims_of(weight)[1]
        if dims_of(constant) in ((n,), (1, n)) and weight.dtype == constant.dtype:
            return Product(matmul, bias)
    return None


def _emit_gemm(node: ir.Node, found: Product, editor: Editor) -> bool:
    inputs = [*found.matmul.inputs, found.bias]
    new = editor.insert("Gemm", inputs, before=node, like=node.outputs[0])
    return editor.replace(node.outputs[0], new.outputs[0])


def _gemm_transpose(node: ir.Node) -> list[tuple[int, ir.Value]] | None:
    """Gemm that reads a transposed matrix: transA or transB."""
    found = []
    for i in (0, 1):
        before = producer(node.inputs[i], "Transpose")
        if before is not None and before.inputs[0] is not None and attribute(before, "perm", (1, 0)) == (1, 0):
            found.append((i, before.inputs[0]))
    return found or None


def _take_transposes(node: ir.Node, found: list[tuple[int, ir.Value]], editor: Editor) -> None:
    for i, value in found:
        name = "transA" if i == 0 else "transB"
        editor.set_attribute(node, name, 1 - attribute(node, name, 0))
        editor.set_input(node, i, value)


class Padded(NamedTuple):
    data: ir.Value
    pads: list[int]


def _pad(node: ir.Node) -> Padded | None:
    """Conv, or AveragePool that counts its pads, of a tensor padded with zeros.

    Cases:
      1. Pad in constant mode, value 0 or absent, pads constant, none negative, none on the first two axes.
      2. auto_pad is NOTSET or VALID.
      3. AveragePool: count_include_pad = 1, and ceil_mode = 0.
    """
    data = node.inputs[0]
    before = producer(data, "Pad")
    if before is None or before.inputs[0] is None or attribute(before, "mode", "constant") != "constant":
        return None
    if node.op_type == "AveragePool" and (
        not attribute(node, "count_include_pad", 0) or attribute(node, "ceil_mode", 0)
    ):
        return None
    pads = ints_of(before.inputs[1]) if len(before.inputs) > 1 else None
    value = before.inputs[2] if len(before.inputs) > 2 else None
    axes = before.inputs[3] if len(before.inputs) > 3 else None
    if pads is None or axes is not None or (value is not None and scalar_of(value) != 0) or any(p < 0 for p in pads):
        return None
    rank = len(pads) // 2
    if rank < 3 or any((pads[0], pads[1], pads[rank], pads[rank + 1])):
        return None
    auto_pad = attribute(node, "auto_pad", "NOTSET")
    if auto_pad not in ("NOTSET", "VALID"):
        return None
    old = attribute(node, "pads") if auto_pad == "NOTSET" else None
    spatial = [*pads[2:rank], *pads[rank + 2 :]]
    return Padded(before.inputs[0], [a + b for a, b in zip(old or [0] * len(spatial), spatial, strict=True)])


def _take_pads(node: ir.Node, found: Padded, editor: Editor) -> None:
    editor.set_attribute(node, "auto_pad", None)
    editor.set_attribute(node, "pads", found.pads)
    editor.set_input(node, 0, found.data)


def _zero_bias(node: ir.Node) -> bool | None:
    array = array_of(node.inputs[2]) if len(node.inputs) > 2 else None
    return True if array is not None and not array.any() and len(node.inputs) == 3 else None


def _drop_bias(node: ir.Node, found: bool, editor: Editor) -> None:
    editor.set_input(node, 2, None)
    node.resize_inputs(2)


LINEAR_RULES = (
    Rule("MatMul + Add to Gemm", ("Add",), _matmul_add, _emit_gemm, since=7),
    Rule("transpose into Gemm", ("Gemm",), _gemm_transpose, _take_transposes),
    Rule("pad into the node after it", ("Conv", "AveragePool"), _pad, _take_pads, since=11),
    Rule("bias of zeros", ("Conv", "ConvTranspose", "Gemm"), _zero_bias, _drop_bias, since=11),
)
