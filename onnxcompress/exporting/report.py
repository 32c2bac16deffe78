"""What an export gave, as JSON and as text."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from onnxcompress.exporter import Exported
from onnxcompress.model_io import file_bytes


def describe(exported: Exported, path: str) -> dict[str, Any]:
    """The exported model: file, size in bytes, opset, parameters, inputs, outputs with their measured errors."""
    model = exported.model
    errors = {check.output: check.error for check in exported.checks}
    tensors = (value.const_value for value in model.graph.initializers.values())
    return {
        "path": path,
        "bytes": file_bytes(path),
        "opset": model.opset_imports[""],
        "parameters": sum(tensor.size for tensor in tensors if tensor is not None),
        "verified": bool(exported.checks),
        "inputs": [_value(value) for value in model.graph.inputs],
        "outputs": [{**_value(v), "error": errors.get(str(v.name))} for v in model.graph.outputs],
    }


def summary(document: dict[str, Any]) -> str:
    """The same for people."""
    lines = [
        f"{document['path']}: {document['parameters']:,} parameters, {_size(document['bytes'])}, "
        f"opset {document['opset']}"
    ]
    width = max(len(value["name"]) for kind in ("inputs", "outputs") for value in document[kind])
    for kind in ("inputs", "outputs"):
        for value in document[kind]:
            shape = ", ".join("?" if d is None else str(d) for d in value["shape"] or [])
            line = f"  {kind[:-1]:<7} {value['name']:<{width}}  {value['dtype']}[{shape}]"
            if value.get("error") is not None:
                line += f"  error {value['error']:.1e} against torch"
            lines.append(line)
    if not document["verified"]:
        lines.append("  not verified against torch")
    return "\n".join(lines)


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def _value(value: ir.Value) -> dict[str, Any]:
    shape = None if value.shape is None else [d if isinstance(d, int) else d.value for d in value.shape]
    return {"name": value.name, "dtype": None if value.dtype is None else str(value.dtype), "shape": shape}
