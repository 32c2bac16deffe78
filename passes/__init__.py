"""Graph to graph: every pass takes and gives an `onnx_ir.Model`.

A pass imports numpy, ml_dtypes, onnx, onnx_ir, onnxscript and nothing else of this project but other
passes; what was measured (ranges, saliency) enters it as plain data.
"""

if __name__ != "onnxcompress.passes":
    raise ImportError("import onnxcompress.passes: the top-level folder 'passes' is its source")
