"""Looking into models: what is in one, what it costs, and how two differ."""

from onnxcompress.inspection.comparison import Difference, diff
from onnxcompress.inspection.inspector import inspect
from onnxcompress.inspection.results import Inspection

__all__ = ["Difference", "Inspection", "diff", "inspect"]
