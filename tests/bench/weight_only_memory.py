"""Peak memory of weight-only quantization of a 3 GB model with external data.

    python tests/bench/weight_only_memory.py [--bits 8] [--form dequantize] [--layers 60] [--width 3584]

Writes a chain of MatMuls with random weights into a temporary folder, quantizes it in a process of its own
(load, QuantizeWeights, save) and prints that process's peak resident memory. The bound is 1.5 GB.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper

from onnxcompress.model_io import file_bytes, load_model, save_model
from onnxcompress.passes.quantize.weight_only import QuantizeWeights
from onnxcompress.runtime import open_session

LIMIT_BYTES = 1_500_000_000


def write_model(path: Path, layers: int, width: int) -> None:
    """A chain of `layers` MatMuls `[width, width]`; the weights go to disk one at a time."""
    generator = np.random.default_rng(0)
    tensors, nodes = [], []
    data = f"{path.name}.data"
    with open(path.with_name(data), "wb") as stream:
        for i in range(layers):
            weight = generator.standard_normal((width, width), np.float32) / np.float32(np.sqrt(width))
            tensor = TensorProto(name=f"w{i}", data_type=TensorProto.FLOAT, dims=[width, width])
            tensor.data_location = TensorProto.EXTERNAL
            place = {"location": data, "offset": stream.tell(), "length": weight.nbytes}
            for key, value in place.items():
                tensor.external_data.add(key=key, value=str(value))
            stream.write(weight.tobytes())
            tensors.append(tensor)
            nodes.append(helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"x{i + 1}"], name=f"matmul{i}"))
    ends = [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, ["rows", width]) for i in (0, layers)]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)


def quantize(source: Path, target: Path, bits: Literal[4, 8], form: Literal["dequantize", "nbits"]) -> int:
    """Quantize a file; gives this process's peak resident memory in bytes."""
    model = load_model(source)
    ir.passes.Sequential(QuantizeWeights(bits, form=form))(model)
    save_model(model, target)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def agreement(source: Path, target: Path, layers: int, width: int) -> float:
    """Cosine between the two models' outputs on one random row."""
    row = np.random.default_rng(1).standard_normal((1, width), np.float32)
    a, b = (open_session(path, threads=1).run(None, {"x0": row})[0].ravel() for path in (source, target))
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bits", type=int, choices=(4, 8), default=8)
    parser.add_argument("--form", choices=("dequantize", "nbits"), default="dequantize")
    parser.add_argument("--layers", type=int, default=60)
    parser.add_argument("--width", type=int, default=3584)
    parser.add_argument("--in-place", action="store_true", help="write over the source")
    parser.add_argument("--agreement", action="store_true", help="run both models (needs their size in memory)")
    parser.add_argument("--quantize", nargs=2, metavar=("SOURCE", "TARGET"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quantize:
        print(quantize(Path(options.quantize[0]), Path(options.quantize[1]), options.bits, options.form))
        return 0
    with tempfile.TemporaryDirectory(prefix="onnxcompress-bench-") as folder:
        source = Path(folder) / "float.onnx"
        target = source if options.in_place else Path(folder) / "quantized.onnx"
        write_model(source, options.layers, options.width)
        before = file_bytes(source)
        command = [sys.executable, __file__, "--bits", str(options.bits), "--form", options.form]
        child = subprocess.run(
            [*command, "--quantize", str(source), str(target)], check=True, capture_output=True, text=True
        )
        peak = int(child.stdout)
        print(f"{before / 1e9:.2f} GB to {file_bytes(target) / 1e9:.2f} GB, peak memory {peak / 1e9:.2f} GB")
        if options.agreement and not options.in_place:
            print(f"cosine {agreement(source, target, options.layers, options.width):.5f}")
        return 0 if peak <= LIMIT_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
