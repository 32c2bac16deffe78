"""Models that are sound as graphs and wrong in what they ask of operators."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.hostile import Bad

WRONG = r"not a valid ONNX model|ONNX Runtime cannot open it|does not load and was not written|memory ran out"

VALUES: dict[str, np.ndarray[Any, Any]] = {
    "two": np.array([2, 2], np.int64),
    "axis9": np.array([9], np.int64),
    "lowest": np.array([-(2**63)], np.int64),
    "huge": np.array([2**62, 2**62], np.int64),
    "large": np.array([2**40], np.int64),
    "minus": np.array([-7, -7], np.int64),
    "scalar": np.array(3, np.int64),
    "none": np.zeros(0, np.int64),
    "half": np.array([0.5, 0.5], np.float32),
    "nan": np.array([np.nan] * 2, np.float32),
    "text": np.array([b"a", b"b"], object),
    "truth": np.array([True]),
    "weight": np.ones((4, 4, 3, 3), np.float32),
    "matrix": np.ones((5, 7), np.float32),
    "zero": np.array(0, np.int64),
    "byte": np.array(0, np.uint8),
    "signed": np.ones((4, 4), np.int8),
    "nothing": np.zeros((0, 4), np.float32),
}

CASES: Sequence[tuple[str, Sequence[str], dict[str, Any]]] = [
    # too few inputs, or too many
    ("Conv", ["x"], {}),
    ("Conv", [], {}),
    ("Conv", ["x", ""], {}),
    ("Conv", ["x"] * 9, {}),
    ("MatMul", ["x"], {}),
    ("MatMul", [], {}),
    ("Gemm", ["matrix"], {}),
    ("Add", ["x"], {}),
    ("Add", ["x", "x", "x"], {}),
    ("Relu", [], {}),
    ("Relu", ["x", "x"], {}),
    ("Concat", [], {"axis": 0}),
    ("Reshape", ["x"], {}),
    ("Transpose", [], {}),
    ("Gather", ["x"], {}),
    ("Slice", ["x"], {}),
    ("Slice", ["x", "two"], {}),
    ("Softmax", [], {}),
    ("LayerNormalization", ["x"], {}),
    ("BatchNormalization", ["x"], {}),
    ("QuantizeLinear", ["x"], {}),
    ("DequantizeLinear", ["byte"], {}),
    ("Where", ["x"], {}),
    ("Where", ["truth", "x"], {}),
    ("Pad", ["x"], {}),
    ("Resize", [], {}),
    ("Split", [], {}),
    ("Unsqueeze", ["x"], {}),
    ("Clip", [], {}),
    ("Clip", ["x"] * 4, {}),
    ("Expand", ["x"], {}),
    ("Tile", ["x"], {}),
    ("LSTM", ["x"], {}),
    ("If", [], {}),
    ("If", ["truth"], {}),
    ("Loop", [], {}),
    ("Scan", ["x"], {}),
    ("Einsum", [], {}),
    ("Range", ["zero"], {}),
    ("TopK", ["x"], {}),
    ("ScatterND", ["x"], {}),
    ("QLinearConv", ["x"], {}),
    ("ConvInteger", ["byte"], {}),
    ("MatMulInteger", ["byte"], {}),
    # attributes that are missing, of another kind, or of values that are none
    ("Concat", ["x", "x"], {}),
    ("Concat", ["x", "x"], {"axis": 17}),
    ("Concat", ["x", "x"], {"axis": "one"}),
    ("Cast", ["x"], {}),
    ("Cast", ["x"], {"to": 99}),
    ("Cast", ["x"], {"to": -1}),
    ("Cast", ["x"], {"to": "float"}),
    ("Transpose", ["x"], {"perm": [0, 1]}),
    ("Transpose", ["x"], {"perm": [0, 0, 0, 0]}),
    ("Transpose", ["x"], {"perm": [9, 8, 7, 6]}),
    ("Transpose", ["x"], {"perm": [-1, 0, 1, 2]}),
    ("Transpose", ["x"], {"perm": "up"}),
    ("Softmax", ["x"], {"axis": 44}),
    ("Softmax", ["x"], {"axis": -44}),
    ("Softmax", ["x"], {"axis": [1]}),
    ("Flatten", ["x"], {"axis": 77}),
    ("Flatten", ["x"], {"axis": -77}),
    ("Gather", ["x", "zero"], {"axis": 12}),
    ("Einsum", ["x"], {}),
    ("Einsum", ["x"], {"equation": "->->"}),
    ("Einsum", ["x"], {"equation": "abc"}),
    ("Einsum", ["x", "x"], {"equation": "abcd->z"}),
    ("Conv", ["x", "weight"], {"strides": [0, 0]}),
    ("Conv", ["x", "weight"], {"strides": [-1, -1]}),
    ("Conv", ["x", "weight"], {"strides": [1]}),
    ("Conv", ["x", "weight"], {"strides": [1] * 9}),
    ("Conv", ["x", "weight"], {"dilations": [0, 0]}),
    ("Conv", ["x", "weight"], {"dilations": [2**40, 2**40]}),
    ("Conv", ["x", "weight"], {"pads": [1]}),
    ("Conv", ["x", "weight"], {"pads": [-9] * 4}),
    ("Conv", ["x", "weight"], {"pads": "same"}),
    ("Conv", ["x", "weight"], {"group": 0}),
    ("Conv", ["x", "weight"], {"group": 3}),
    ("Conv", ["x", "weight"], {"group": -4}),
    ("Conv", ["x", "weight"], {"group": 2**62}),
    ("Conv", ["x", "weight"], {"kernel_shape": [5, 5]}),
    ("Conv", ["x", "weight"], {"auto_pad": "EVERYWHERE"}),
    ("Conv", ["x", "weight"], {"auto_pad": 7}),
    ("Conv", ["x", "matrix"], {}),
    ("Conv", ["matrix", "weight"], {}),
    ("Conv", ["x", "scalar"], {}),
    ("Conv", ["x", "text"], {}),
    ("Conv", ["x", "weight"], {"unheard": 1}),
    ("MaxPool", ["x"], {}),
    ("MaxPool", ["x"], {"kernel_shape": [0, 0]}),
    ("MaxPool", ["x"], {"kernel_shape": [2**40, 2]}),
    ("MaxPool", ["x"], {"kernel_shape": [2, 2], "strides": [0, 0]}),
    ("AveragePool", ["x"], {"kernel_shape": [-1, 2]}),
    ("LayerNormalization", ["x", "half"], {"axis": 50}),
    ("LayerNormalization", ["x", "half"], {"epsilon": "small"}),
    ("Gemm", ["matrix", "matrix"], {}),
    ("Gemm", ["matrix", "matrix"], {"transA": "yes"}),
    ("Gemm", ["x", "x"], {}),
    ("Split", ["x"], {"axis": 30, "num_outputs": 2}),
    ("Split", ["x"], {"num_outputs": -3}),
    ("ReduceMean", ["x", "axis9"], {}),
    ("ReduceSum", ["x", "lowest"], {}),
    ("ReduceMean", ["x", "half"], {}),
    ("ArgMax", ["x"], {"axis": 99}),
    ("OneHot", ["zero", "minus", "half"], {}),
    ("Pad", ["x", "two"], {"mode": "sideways"}),
    ("Resize", ["x"], {"mode": "magic"}),
    ("DepthToSpace", ["x"], {}),
    ("DepthToSpace", ["x"], {"blocksize": 0}),
    ("DepthToSpace", ["x"], {"blocksize": -2}),
    ("DepthToSpace", ["x"], {"blocksize": 3}),
    ("SpaceToDepth", ["x"], {"blocksize": 0}),
    ("LeakyRelu", ["x"], {"alpha": "steep"}),
    ("Constant", [], {}),
    ("QuantizeLinear", ["x", "half"], {"axis": 66}),
    ("DequantizeLinear", ["signed", "half"], {"axis": 66}),
    ("DequantizeLinear", ["signed", "half"], {"block_size": -4}),
    ("LSTM", ["x", "x", "x"], {"hidden_size": -1}),
    # constants that make no sense
    ("Reshape", ["x", "minus"], {}),
    ("Reshape", ["x", "huge"], {}),
    ("Reshape", ["x", "half"], {}),
    ("Reshape", ["x", "matrix"], {}),
    ("Reshape", ["matrix", "two"], {}),
    ("Unsqueeze", ["x", "axis9"], {}),
    ("Unsqueeze", ["x", "two"], {}),
    ("Unsqueeze", ["x", "lowest"], {}),
    ("Squeeze", ["x", "axis9"], {}),
    ("Squeeze", ["matrix", "zero"], {}),
    ("Slice", ["x", "two", "none"], {}),
    ("Slice", ["x", "two", "two", "axis9"], {}),
    ("Slice", ["x", "half", "half"], {}),
    ("Slice", ["x", "two", "two", "two", "two"], {}),
    ("Gather", ["matrix", "large"], {}),
    ("Gather", ["matrix", "half"], {}),
    ("Expand", ["x", "huge"], {}),
    ("Expand", ["matrix", "minus"], {}),
    ("ConstantOfShape", ["huge"], {}),
    ("ConstantOfShape", ["minus"], {}),
    ("ConstantOfShape", ["half"], {}),
    ("ConstantOfShape", ["matrix"], {}),
    ("Tile", ["matrix", "huge"], {}),
    ("Tile", ["matrix", "minus"], {}),
    ("Tile", ["x", "two"], {}),
    ("Range", ["zero", "large", "zero"], {}),
    ("Range", ["zero", "scalar", "half"], {}),
    ("TopK", ["x", "minus"], {}),
    ("TopK", ["x", "half"], {}),
    ("Pad", ["x", "lowest"], {}),
    ("Pad", ["x", "half"], {}),
    ("Pad", ["matrix", "huge"], {}),
    ("OneHot", ["two", "large", "two"], {}),
    ("Split", ["matrix", "huge"], {}),
    ("Split", ["x", "minus"], {}),
    ("MatMul", ["matrix", "matrix"], {}),
    ("MatMul", ["x", "text"], {}),
    ("MatMul", ["x", "two"], {}),
    ("MatMul", ["signed", "signed"], {}),
    ("Add", ["x", "two"], {}),
    ("Add", ["x", "text"], {}),
    ("Add", ["matrix", "weight"], {}),
    ("Mul", ["x", "truth"], {}),
    ("Where", ["x", "x", "x"], {}),
    ("Clip", ["x", "two"], {}),
    ("Clip", ["x", "matrix", "matrix"], {}),
    ("Softmax", ["two"], {}),
    ("Sqrt", ["two"], {}),
    ("QuantizeLinear", ["x", "two"], {}),
    ("QuantizeLinear", ["x", "half", "two"], {}),
    ("Conv", ["byte", "weight"], {}),
    ("QuantizeLinear", ["x", "half", "zero"], {}),
    ("DequantizeLinear", ["x", "half"], {}),
    ("DequantizeLinear", ["two", "two"], {}),
    ("MatMulInteger", ["signed", "matrix"], {}),
    ("GatherND", ["matrix", "huge"], {}),
    ("ScatterND", ["matrix", "two", "two"], {}),
    # operators that are none
    ("Convolution", ["x", "weight"], {}),
    ("", ["x"], {}),
    ("relu", ["x"], {}),
    ("Relu\n", ["x"], {}),
    ("__import__", ["x"], {}),
]


def written(op: str, inputs: Sequence[str], attributes: dict[str, Any], folder: Path) -> Path:
    """x -> Relu -> the node -> y, with the constants that it reads as initializers."""
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="first"),
        helper.make_node(op, inputs, ["y"], name="wrong", **attributes),
    ]
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8, 8])]
    used = [name for name in dict.fromkeys(inputs) if name in VALUES]
    graph = helper.make_graph(
        nodes, "g", ends, [onnx.ValueInfoProto(name="y")], [numpy_helper.from_array(VALUES[n], n) for n in used]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def wrong() -> Iterator[Bad]:
    for op, inputs, attributes in CASES:
        told = ", ".join([*inputs, *(f"{key}={value}" for key, value in attributes.items())])

        def write(
            folder: Path, op: str = op, inputs: Sequence[str] = inputs, attributes: dict[str, Any] = attributes
        ) -> Path:
            return written(op, inputs, attributes, folder)

        yield Bad(f"{op!r}({told:.60})", write, WRONG)


OPENED = (
    "'Transpose'(x, perm=[0, 1])",
    "'Conv'(x, weight, dilations=",
    "'Conv'(x, weight, group=0)",
    "'Conv'(x, weight, group=3)",
    "'Conv'(x, weight, group=-4)",
    "'Conv'(x, weight, group=46",
    "'Conv'(x, weight, kernel_shape=[5, 5])",
    "'MaxPool'(x, kernel_shape=[1099",
    "'DepthToSpace'(x, blocksize=3)",
    "'QuantizeLinear'(x, half, axis=66)",
    "'DequantizeLinear'(signed, half, axis=66)",
    "'Reshape'(matrix, two)",
    "'Gather'(matrix, large)",
    "'ConstantOfShape'(huge)",
    "'Tile'(matrix, huge)",
    "'Tile'(matrix, minus)",
    "'OneHot'(two, large, two)",
    "'Clip'(x, matrix, matrix)",
    "'GatherND'(matrix, huge)",
)
"""ONNX Runtime 1.31 opens these, and finds out when it runs them."""

FAILS = "cannot run this feed|not a valid ONNX model|memory ran out|ONNX Runtime cannot open it"

WRONG_OPERATORS = [case for case in wrong() if not case.name.startswith(OPENED)]
RUN_TIME_ERRORS = [Bad(case.name, case.write, FAILS) for case in wrong() if case.name.startswith(OPENED)]
