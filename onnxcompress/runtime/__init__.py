"""Running models with ONNX Runtime: opening a session, running feeds, timing models in turn."""

from onnxcompress.runtime.benching import bench
from onnxcompress.runtime.library import library_path
from onnxcompress.runtime.session import load, open_session

__all__ = ["bench", "library_path", "load", "open_session"]
