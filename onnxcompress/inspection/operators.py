"""One node at a time: the types of its outputs, and its value where it is small and constant.

Standard operators are asked of onnx's own schemas. ONNX Runtime's operators have no schema there: each is
read as the standard operator that has the same output shape. The operators of this project have their own rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.defs
import onnx.numpy_helper
import onnx.reference
import onnx.shape_inference
import onnx_ir as ir

from onnxcompress.inspection.facts import Array, Dim, Facts, Shape, Visit
from onnxcompress.inspection.native import is_native, native_outputs

DATA_LIMIT = 1024
"""Values of up to this many elements are kept: shape arithmetic needs them, weights are larger."""

STANDARD_FORMS: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "FusedConv": ("Conv", (0, 1, 2)),
    "FusedGemm": ("Gemm", (0, 1, 2)),
    "QGemm": ("Gemm", (0, 3)),
    "MatMulIntegerToFloat": ("MatMul", (0, 1)),
    "DynamicQuantizeMatMul": ("MatMul", (0, 1)),
    "DynamicQuantizeLSTM": ("LSTM", (0, 1, 2)),
    "QLinearAdd": ("Add", (0, 3)),
    "QLinearMul": ("Mul", (0, 3)),
    "QLinearAveragePool": ("AveragePool", (0,)),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", (0,)),
    "QuantizeLinear": ("QuantizeLinear", (0, 1, 2)),
    "DequantizeLinear": ("DequantizeLinear", (0, 1, 2)),
    "QLinearConcat": ("Concat", tuple(range(2, 300, 3))),
    **{
        name: ("Identity", (0,))
        for name in (
            "QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax", "Gelu", "FastGelu", "BiasGelu",
            "QuickGelu", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "RotaryEmbedding",
        )
    },
}  # fmt: skip
"""Operators of com.microsoft: the standard operator with the same output shape, and the inputs it takes."""

UNEVALUATED = {
    "RandomNormal",
    "RandomUniform",
    "RandomNormalLike",
    "RandomUniformLike",
    "Multinomial",
    "Bernoulli",
}


def infer_outputs(visit: Visit) -> list[Facts]:
    """Types and shapes of a node's outputs from those of its inputs.

    Raises:
        Exception: onnx finds the node wrong (its own errors), or has no schema for it (SchemaError).
    """
    if visit.node.domain == "com.microsoft":
        return _infer_contrib(visit)
    if is_native(visit):
        return native_outputs(visit)
    return _infer_standard(visit, visit.node.op_type, visit.node.domain, visit.version, visit.inputs)


def _infer_standard(visit: Visit, op: str, domain: str, version: int, inputs: Sequence[Facts | None]) -> list[Facts]:
    names = [output.name or "" for output in visit.node.outputs]
    schema = _schema(op, domain, version)
    node = _proto(op, domain, visit.attributes, inputs, len(names), schema)
    types: dict[str, onnx.TypeProto] = {}
    data: dict[str, onnx.TensorProto] = {}
    for name, facts in zip(node.input, inputs, strict=True):
        if facts is None:
            continue
        proto = facts.type_proto()
        if proto is None:
            return [Facts(name) for name in names]
        types[name] = proto
        if facts.data is not None:
            data[name] = onnx.numpy_helper.from_array(facts.data)
    imports = [onnx.helper.make_opsetid(domain, version)]
    found = onnx.shape_inference.infer_node_outputs(schema, node, types, data, opset_imports=imports)
    return [from_type(name, found.get(f"o{index}")) for index, name in enumerate(names)]


def _infer_contrib(visit: Visit) -> list[Facts]:
    names = [output.name or "" for output in visit.node.outputs]
    dtype = _contrib_dtype(visit)
    shape = _contrib_shape(visit)
    form = STANDARD_FORMS.get(visit.node.op_type)
    if shape is not None or form is None:
        return [Facts(names[0], dtype, shape), *(Facts(name) for name in names[1:])]
    # Only the shapes are asked for: the standard operator would refuse the integer types.
    inputs = [
        None if facts is None else Facts(facts.name, ir.DataType.FLOAT, facts.shape)
        for facts in (visit.input(index) for index in form[1] if index < len(visit.inputs))
    ]
    outputs = _infer_standard(visit, form[0], "", onnx.defs.onnx_opset_version(), inputs)
    for facts in outputs:
        facts.dtype = dtype
    return outputs


def _contrib_dtype(visit: Visit) -> ir.DataType | None:
    op = visit.node.op_type
    index = {"QuantizeLinear": 2, "DequantizeLinear": 1, "QGemm": 8, "EmbedLayerNormalization": 2}.get(op, 0)
    if op in ("MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QAttention"):
        return ir.DataType.FLOAT
    facts = visit.input(index)
    if facts is None:
        return ir.DataType.FLOAT if op == "QGemm" else None
    return facts.dtype


def evaluate(visit: Visit) -> list[Array] | None:
    """The node's value, where all its inputs' are known and it is small; None otherwise."""
    if visit.node.op_type == "Shape" and visit.node.domain == "":
        return _evaluate_shape(visit)
    if visit.node.domain not in ("", "ai.onnx") or visit.node.op_type in UNEVALUATED or not visit.inputs:
        return None
    if any(facts is not None and facts.data is None for facts in visit.inputs):
        return None
    if any(facts.size is not None and facts.size > DATA_LIMIT for facts in visit.outputs):
        return None
    if _is_large_fill(visit):
        return None
    node = _proto(visit.node.op_type, "", visit.attributes, visit.inputs, len(visit.outputs), None)
    feeds = {f"i{k}": facts.data for k, facts in enumerate(visit.inputs) if facts is not None}
    # A bare node would be evaluated at the newest opset, whatever its own: a function carries its opset.
    imports = [onnx.helper.make_opsetid("", visit.version)]
    function = onnx.helper.make_function("one", "node", sorted(feeds), list(node.output), [node], imports)
    try:
        values = onnx.reference.ReferenceEvaluator(function).run(None, feeds, attributes={})
    except Exception:  # what the reference cannot do stays unknown: its shape is still inferred
        return None
    arrays = [np.asarray(value) for value in values]
    return arrays if all(array.size <= DATA_LIMIT for array in arrays) else None


def from_type(name: str, proto: onnx.TypeProto | None) -> Facts:
    """Facts of a value of an ONNX type; impossible dimensions become unknown."""
    if proto is None:
        return Facts(name)
    if not proto.HasField("tensor_type"):
        return Facts(name, other=proto)
    tensor = proto.tensor_type
    shape: Shape | None = None
    if tensor.HasField("shape"):
        shape = tuple(_dim(dim) for dim in tensor.shape.dim)
    return Facts(name, ir.DataType(tensor.elem_type) if tensor.elem_type else None, shape)


def declared_facts(value: ir.Value) -> Facts:
    """What the model itself says of a value."""
    proto = ir.serde.serialize_type(value.type) if value.type is not None else None
    facts = from_type(value.name or "", proto)
    facts.dtype = value.dtype
    if value.shape is not None:
        facts.shape = tuple(
            (dim if dim >= 0 else None) if isinstance(dim, int) else _symbol(dim.value) for dim in value.shape
        )
    return facts


def _symbol(name: str | None) -> str | None:
    return None if name in (None, "", "?") else name


def _dim(dim: onnx.TensorShapeProto.Dimension) -> Dim:
    if dim.HasField("dim_value"):
        return dim.dim_value if dim.dim_value >= 0 else None
    return dim.dim_param or None


def _schema(op: str, domain: str, version: int) -> onnx.defs.OpSchema:
    domain = "" if domain == "ai.onnx" else domain
    try:
        return onnx.defs.get_schema(op, version, domain)
    except onnx.defs.SchemaError:
        # ONNX Runtime writes some operators (LayerNormalization) under opsets older than the operator.
        return onnx.defs.get_schema(op, domain)


def _proto(
    op: str,
    domain: str,
    attributes: Mapping[str, ir.Attr],
    inputs: Sequence[Facts | None],
    outputs: int,
    schema: onnx.defs.OpSchema | None,
) -> onnx.NodeProto:
    node = onnx.NodeProto(op_type=op, domain=domain)
    node.input.extend("" if facts is None else f"i{index}" for index, facts in enumerate(inputs))
    node.output.extend(f"o{index}" for index in range(outputs))
    for name, attribute in attributes.items():
        if (schema is None or name in schema.attributes) and not attribute.is_ref():
            node.attribute.append(ir.serde.serialize_attribute(attribute))
    return node


def _evaluate_shape(visit: Visit) -> list[Array] | None:
    facts = visit.input(0)
    if facts is None or facts.shape is None:
        return None
    dims = facts.shape[visit.attribute("start", 0) : visit.attribute("end", None)]
    known = [dim for dim in dims if isinstance(dim, int)]
    return [np.array(known, np.int64)] if len(known) == len(dims) else None


def _is_large_fill(visit: Visit) -> bool:
    """Whether a tiny input would make a huge constant, before its shape is known to be one."""
    if visit.node.op_type not in ("ConstantOfShape", "Expand", "Tile", "Range", "Resize", "Pad"):
        return False
    return visit.outputs[0].size is None


def _contrib_shape(visit: Visit) -> Shape | None:
    op = visit.node.op_type
    first, second = visit.input(0), visit.input(1)
    if first is None or first.shape is None:
        return None
    if op == "MatMulNBits":
        return (*first.shape[:-1], int(visit.attribute("N", 0)) or None)
    if second is None or second.shape is None:
        return None
    if op in ("FusedMatMul", "TransposeMatMul"):
        return _matmul_shape(_turned(first.shape, visit, "transA"), _turned(second.shape, visit, "transB"))
    if op in ("Attention", "QAttention") and len(first.shape) == 3:
        sizes = visit.attribute("qkv_hidden_sizes", None)
        width = second.shape[-1]
        return (*first.shape[:2], sizes[2] if sizes else width // 3 if isinstance(width, int) else None)
    if op == "MultiHeadAttention" and len(first.shape) == 3:
        value = visit.input(2)
        width = value.shape[-1] if value is not None and value.shape is not None and len(value.shape) == 3 else None
        return (*first.shape[:2], width if value is not None else first.shape[-1])
    if op == "EmbedLayerNormalization":
        table = visit.input(2)
        return None if table is None or table.shape is None else (*first.shape, table.shape[-1])
    return None


def _turned(shape: Shape, visit: Visit, name: str) -> Shape:
    return (*shape[:-2], shape[-1], shape[-2]) if visit.attribute(name, 0) and len(shape) > 1 else shape


def _matmul_shape(a: Shape, b: Shape) -> Shape | None:
    if len(a) < 2 or len(b) < 2:
        return None
    batch = a[:-2] if len(a) >= len(b) else b[:-2]
    return (*batch, a[-2], b[-1])


def attribute_tensor(attributes: Mapping[str, ir.Attr]) -> Any:
    """The tensor of a Constant node; None for a string, a sparse tensor or an unresolved reference."""
    for name, attribute in attributes.items():
        if attribute.is_ref():
            return None
        if name == "value":
            return attribute.as_tensor()
        if name in ("value_int", "value_ints"):
            return ir.tensor(np.array(attribute.value, np.int64))
        if name in ("value_float", "value_floats"):
            return ir.tensor(np.array(attribute.value, np.float32))
    return None
