"""The operators of the domain `onnxcompress`: one file an operator.

Each exists in five forms that agree: its signature, the function body of standard operators that rides in every model
(so that the file runs anywhere), a numpy reference (all three here), a torch function (onnxcompress/torch/ops), and
the native kernels (onnxcompress/csrc).
"""

from onnxcompress.ops.dequantizenchw import DEQUANTIZENCHW
from onnxcompress.ops.embedlayernorm import EMBEDLAYERNORM
from onnxcompress.ops.meanpool import MEANPOOL
from onnxcompress.ops.op import DOMAIN, VERSION, Op, Port, Variant
from onnxcompress.ops.qattention import QATTENTION
from onnxcompress.ops.qconcat import QCONCAT
from onnxcompress.ops.qconv import QCONV
from onnxcompress.ops.qconvtranspose import QCONVTRANSPOSE
from onnxcompress.ops.qelementwise import QELEMENTWISE
from onnxcompress.ops.qlayernorm import QLAYERNORM
from onnxcompress.ops.qlinear import QLINEAR
from onnxcompress.ops.qlinear4 import QLINEAR4
from onnxcompress.ops.qlinearlayernorm import QLINEARLAYERNORM
from onnxcompress.ops.qpool import QPOOL
from onnxcompress.ops.qresize import QRESIZE
from onnxcompress.ops.qsparseconv import QSPARSECONV
from onnxcompress.ops.qsparselinear import QSPARSELINEAR
from onnxcompress.ops.qsparselinearlayernorm import QSPARSELINEARLAYERNORM
from onnxcompress.ops.qsqueezeexcite import QSQUEEZEEXCITE
from onnxcompress.ops.qtable import QTABLE
from onnxcompress.ops.quantizenhwc import QUANTIZENHWC
from onnxcompress.ops.weightonlylinear import WEIGHTONLYLINEAR

OPS: dict[str, Op] = {
    op.name: op
    for op in (
        EMBEDLAYERNORM,
        MEANPOOL,
        QATTENTION,
        QCONV,
        QCONVTRANSPOSE,
        QLINEAR,
        QLINEAR4,
        QSPARSECONV,
        QSPARSELINEAR,
        QLAYERNORM,
        QLINEARLAYERNORM,
        QSPARSELINEARLAYERNORM,
        QTABLE,
        QELEMENTWISE,
        QPOOL,
        QCONCAT,
        QRESIZE,
        QSQUEEZEEXCITE,
        QUANTIZENHWC,
        DEQUANTIZENCHW,
        WEIGHTONLYLINEAR,
    )
}
"""By type."""

__all__ = ["DOMAIN", "OPS", "VERSION", "Op", "Port", "Variant"]
