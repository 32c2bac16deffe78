"""Distillation: a student is trained, as ONNX, to do what its teacher does. `onnxcompress.distiller` is the door."""
