"""Every operator, as small graphs."""

from tests.torch.cases.case import Case
from tests.torch.cases.convolution import CONVOLUTION, NORMALIZATION, POOLS
from tests.torch.cases.elementwise import ELEMENTWISE
from tests.torch.cases.quantized import QUANTIZED
from tests.torch.cases.recurrent import ATTENTION, RECURRENT
from tests.torch.cases.reductions import REDUCTIONS
from tests.torch.cases.resizing import RESIZING
from tests.torch.cases.shapes import INDEXING, SHAPES

ALL = [
    *ELEMENTWISE, *REDUCTIONS, *CONVOLUTION, *POOLS, *NORMALIZATION, *SHAPES, *INDEXING, *RESIZING, *RECURRENT,
    *ATTENTION, *QUANTIZED,
]  # fmt: skip

__all__ = ["ALL", "Case"]
