"""The operators as torch functions, so that a lowered graph can still be tuned.

function(attributes, *inputs) takes the inputs of the operator in order (None: left out) and gives all its outputs
(None: not wanted by these inputs). Quantized tensors may be integers or floats that hold whole numbers; results are
floats (whole numbers where the output is quantized), and gradients pass straight through the rounding.
"""

from collections.abc import Callable
from typing import Any

from onnxcompress.torch.ops.blocks import on_blocks
from onnxcompress.torch.ops.dequantizenchw import dequantizenchw
from onnxcompress.torch.ops.embedlayernorm import embedlayernorm
from onnxcompress.torch.ops.meanpool import meanpool
from onnxcompress.torch.ops.qattention import qattention
from onnxcompress.torch.ops.qconcat import qconcat
from onnxcompress.torch.ops.qconv import qconv
from onnxcompress.torch.ops.qconvtranspose import qconvtranspose
from onnxcompress.torch.ops.qelementwise import qelementwise
from onnxcompress.torch.ops.qlayernorm import qlayernorm
from onnxcompress.torch.ops.qlinear import qlinear
from onnxcompress.torch.ops.qlinear4 import qlinear4
from onnxcompress.torch.ops.qlinearlayernorm import qlinearlayernorm
from onnxcompress.torch.ops.qpool import qpool
from onnxcompress.torch.ops.qresize import qresize
from onnxcompress.torch.ops.qsparseconv import qsparseconv
from onnxcompress.torch.ops.qsqueezeexcite import qsqueezeexcite
from onnxcompress.torch.ops.qtable import qtable
from onnxcompress.torch.ops.quantizenhwc import quantizenhwc
from onnxcompress.torch.ops.weightonlylinear import weightonlylinear

TORCH_OPS: dict[str, Callable[..., tuple[Any, ...]]] = {
    "EmbedLayerNorm": embedlayernorm,
    "MeanPool": meanpool,
    "QAttention": qattention,
    "QConv": qconv,
    "QConvTranspose": qconvtranspose,
    "QLinear": qlinear,
    "QLinear4": qlinear4,
    "QSparseConv": qsparseconv,
    "QSparseLinear": on_blocks(qlinear),
    "QLayerNorm": qlayernorm,
    "QLinearLayerNorm": qlinearlayernorm,
    "QSparseLinearLayerNorm": on_blocks(qlinearlayernorm),
    "QTable": qtable,
    "QElementwise": qelementwise,
    "QPool": qpool,
    "QConcat": qconcat,
    "QResize": qresize,
    "QSqueezeExcite": qsqueezeexcite,
    "QuantizeNHWC": quantizenhwc,
    "DequantizeNCHW": dequantizenchw,
    "WeightOnlyLinear": weightonlylinear,
}

__all__ = ["TORCH_OPS"]
