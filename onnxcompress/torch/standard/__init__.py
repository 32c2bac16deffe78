"""The operators of ONNX, and some of ONNX Runtime's own, as torch functions: one file a family, each a table."""

from __future__ import annotations

import onnx_ir as ir

from onnxcompress.torch.standard.activations import ACTIVATIONS
from onnxcompress.torch.standard.arithmetic import ARITHMETIC
from onnxcompress.torch.standard.attention import ATTENTION
from onnxcompress.torch.standard.contributed import CONTRIBUTED
from onnxcompress.torch.standard.convolution import CONVOLUTION
from onnxcompress.torch.standard.indexing import INDEXING
from onnxcompress.torch.standard.integers import INTEGERS
from onnxcompress.torch.standard.logic import LOGIC
from onnxcompress.torch.standard.native import NATIVE
from onnxcompress.torch.standard.normalization import NORMALIZATION
from onnxcompress.torch.standard.operator import Call, Function, Operator
from onnxcompress.torch.standard.padding import PADDING
from onnxcompress.torch.standard.pooling import POOLING
from onnxcompress.torch.standard.products import PRODUCTS
from onnxcompress.torch.standard.recurrent import RECURRENT
from onnxcompress.torch.standard.reductions import REDUCTIONS
from onnxcompress.torch.standard.resizing import RESIZING
from onnxcompress.torch.standard.shapes import SHAPES

__all__ = ["OPERATORS", "Call", "Function", "Operator", "operator_of"]

STANDARD = (
    ACTIVATIONS, ARITHMETIC, ATTENTION, CONVOLUTION, INDEXING, INTEGERS, LOGIC, NORMALIZATION, PADDING, POOLING,
    PRODUCTS, RECURRENT, REDUCTIONS, RESIZING, SHAPES,
)  # fmt: skip

OPERATORS: dict[tuple[str, str], Operator] = {
    **{("", name): operator for table in STANDARD for name, operator in table.items()},
    **{("com.microsoft", name): operator for name, operator in CONTRIBUTED.items()},
    **NATIVE,
}
"""By domain and type."""


def operator_of(node: ir.Node) -> Operator | None:
    """The table's entry for a node."""
    return OPERATORS.get(("" if node.domain == "ai.onnx" else node.domain, node.op_type))
