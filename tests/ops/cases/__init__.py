"""Cases of every operator: one file an operator, each with a list CASES."""

from tests.ops.cases.case import Case
from tests.ops.cases.dequantizenchw import CASES as DEQUANTIZENCHW
from tests.ops.cases.embedlayernorm import CASES as EMBEDLAYERNORM
from tests.ops.cases.meanpool import CASES as MEANPOOL
from tests.ops.cases.qattention import CASES as QATTENTION
from tests.ops.cases.qconcat import CASES as QCONCAT
from tests.ops.cases.qconv import CASES as QCONV
from tests.ops.cases.qconvtranspose import CASES as QCONVTRANSPOSE
from tests.ops.cases.qelementwise import CASES as QELEMENTWISE
from tests.ops.cases.qlayernorm import CASES as QLAYERNORM
from tests.ops.cases.qlinear import CASES as QLINEAR
from tests.ops.cases.qlinear4 import CASES as QLINEAR4
from tests.ops.cases.qlinearlayernorm import CASES as QLINEARLAYERNORM
from tests.ops.cases.qpool import CASES as QPOOL
from tests.ops.cases.qresize import CASES as QRESIZE
from tests.ops.cases.qsparseconv import CASES as QSPARSECONV
from tests.ops.cases.qsparselinear import CASES as QSPARSELINEAR
from tests.ops.cases.qsparselinearlayernorm import CASES as QSPARSELINEARLAYERNORM
from tests.ops.cases.qsqueezeexcite import CASES as QSQUEEZEEXCITE
from tests.ops.cases.qtable import CASES as QTABLE
from tests.ops.cases.quantizenhwc import CASES as QUANTIZENHWC
from tests.ops.cases.weightonlylinear import CASES as WEIGHTONLYLINEAR

ALL: list[Case] = [
    *EMBEDLAYERNORM,
    *MEANPOOL,
    *QATTENTION,
    *QCONV,
    *QCONVTRANSPOSE,
    *QLINEAR,
    *QLINEAR4,
    *QSPARSECONV,
    *QSPARSELINEAR,
    *QLAYERNORM,
    *QLINEARLAYERNORM,
    *QSPARSELINEARLAYERNORM,
    *QTABLE,
    *QELEMENTWISE,
    *QPOOL,
    *QCONCAT,
    *QRESIZE,
    *QSQUEEZEEXCITE,
    *QUANTIZENHWC,
    *DEQUANTIZENCHW,
    *WEIGHTONLYLINEAR,
]
