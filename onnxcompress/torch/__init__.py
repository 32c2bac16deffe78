"""What needs torch: ONNX models as torch modules, and our operators as differentiable functions."""

from onnxcompress.torch.module import OnnxModule

__all__ = ["OnnxModule"]
