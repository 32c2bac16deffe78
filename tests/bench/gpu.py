"""Every kind of operator on a GPU: against ONNX Runtime's own float32 and float16, and against what the device can do.

    python -m tests.bench.gpu [--bandwidth GB/S --rate TOPS] [--only WORD]

Builds the library with nvcc where the installed one has no CUDA kernels. A workload is a graph of several nodes with
weights of their own, so that no cache holds them, and its time is that of one node. `limit` is the time that the bytes
take at the device's bandwidth or the operations at its int8 rate (float16's for weights alone), whichever is longer.
Run it with nothing else on the device; a few minutes.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from onnxcompress.errors import CompressError
from onnxcompress.runtime.devices import CUDA, why_no_cuda
from onnxcompress.runtime.session import open_session
from onnxcompress.runtime.workloads import (
    Array,
    Arrays,
    Workload,
    attention,
    convolution,
    float_model,
    linear,
    native_model,
    sparse_linear,
)
from tests.cuda.library import build_library, gpu_name, missing_tool

DEVICES: Mapping[str, tuple[float, float, float]] = {
    "H200": (4800, 1979, 989), "H100 PCIe": (2000, 1513, 756), "H100 NVL": (3900, 1671, 835), "H100": (3350, 1979, 989),
    "A100-SXM4-80GB": (2039, 624, 312), "A100 80GB": (1935, 624, 312), "A100": (1555, 624, 312), "A10": (600, 250, 125),
    "L40S": (864, 733, 362), "L40": (864, 362, 181), "L4": (300, 242, 121), "RTX 4090": (1008, 661, 330),
    "RTX 3090": (936, 284, 142),
}  # fmt: skip
"""By a part of the name, first match: GB/s, dense int8 TOPS, dense float16 TFLOPS (NVIDIA's data sheets)."""

ROUNDS, SECONDS = 5, 0.15
COPIES_BYTES, MOST_COPIES = 128 << 20, 24


@dataclass(frozen=True)
class Timed:
    """Milliseconds of a workload; limit: 0 where the device is not known."""

    load: Workload
    native: float
    float32: float
    float16: float
    limit: float

    def cells(self) -> list[str]:
        """A line of the table."""
        load = self.load
        zeros = f", {load.sparsity:.0%} zero" if load.sparsity else ""
        rate = 2e-9 * load.macs / self.native
        speeds = [f"{other / self.native:.2f}" for other in (self.float32, self.float16)]
        share = f"{self.limit / self.native:.0%}" if self.limit else "-"
        times = [f"{1e3 * t:.1f}" for t in (self.native, self.float32, self.float16)]
        return [
            load.op,
            load.label + zeros,
            *times,
            *speeds,
            f"{rate:.1f}",
            f"{_bytes(load) / self.native / 1e6:.0f}",
            share,
        ]


def workloads() -> list[Callable[[], Workload]]:
    """What is timed; makers, since some hold hundreds of megabytes."""
    made: list[Callable[[], Workload]] = [partial(linear, 4096, 4096, 4096), partial(two_of_four, 4096, 4096, 4096)]
    for m in (1, 16, 128, 1024):
        made += [partial(linear, m, 4096, 4096), partial(two_of_four, m, 4096, 4096)]
    made += [partial(sparse_linear, m, 4096, 4096, 0.8, (4, 4)) for m in (1, 128, 1024)]
    made += [partial(weights_alone, m, 4096, 11008, bits) for bits in (4, 8) for m in (1, 4, 16, 128, 1024)]
    made += [partial(linear, 128, 384, 1536), partial(linear, 1024, 768, 3072)]
    made += [partial(layer_norm, rows, columns) for rows, columns in ((1024, 768), (4096, 4096))]
    made += [partial(attention, batch, tokens, 12, 64) for batch, tokens in ((8, 128), (8, 512), (1, 2048))]
    images = (
        (56, 64, 64, 3, 1, 1), (28, 128, 128, 3, 1, 1), (14, 256, 256, 3, 1, 1), (56, 64, 256, 1, 1, 1),
        (14, 1024, 256, 1, 1, 1), (112, 96, 96, 3, 2, 96), (14, 576, 576, 3, 1, 576),
    )  # fmt: skip
    return made + [partial(many, 32, partial(convolution, *image)) for image in images]


def two_of_four(m: int, k: int, n: int) -> Workload:
    """A linear layer with two zeros in each four weights."""
    load = linear(m, k, n)
    w = np.array(load.inputs["w"])
    w[:, 0::4], w[:, 1::4] = 0, 0
    inputs: Arrays = {**load.inputs, "w": w}
    return replace(load, label=f"{load.label} 2:4", inputs=inputs, sparsity=0.5)


def weights_alone(m: int, k: int, n: int, bits: int) -> Workload:
    """A linear layer of halves with weights of 4 or 8 bits in blocks of 128."""
    rng = np.random.default_rng(0)
    load = linear(m, k, n)
    w = rng.integers(0, 256, (n, k // 2 if bits == 4 else k)).astype(np.uint8)
    x = rng.standard_normal((m, k)).astype(np.float16)
    inputs: Arrays = {
        "x": x,
        "w": w,
        "w_scale": np.full((n, k // 128), 0.01, np.float32),
        "bias": np.zeros(n, np.float32),
    }
    attributes = {"bits": bits, "block_size": 128}
    return replace(load, op="WeightOnlyLinear", label=f"{m}x{k}x{n}, {bits} bits", inputs=inputs, attributes=attributes)


def layer_norm(rows: int, columns: int) -> Workload:
    """LayerNorm to u8."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, columns)).astype(np.float32)
    ones, zeros = np.ones(columns, np.float32), np.zeros(columns, np.float32)
    inputs: Arrays = {"x": x, "gamma": ones, "beta": zeros, "q_scale": np.float32(0.03), "q_zero_point": np.uint8(128)}
    nodes = [("LayerNormalization", ("x", "gamma", "beta"), {"axis": -1})]
    weights: Arrays = {"gamma": ones, "beta": zeros}
    return Workload("QLayerNorm", f"{rows}x{columns}", inputs, {}, 0, nodes, weights, x, output="q")


def many(batch: int, make: Callable[[], Workload]) -> Workload:
    """A workload on images, with a batch of them."""
    load = make()
    x = np.repeat(np.asarray(load.inputs["x"]), batch, axis=0)
    label, real = f"{batch} of {load.label}", np.repeat(load.float_x, batch, axis=0)
    inputs: Arrays = {**load.inputs, "x": x}
    return replace(load, label=label, inputs=inputs, macs=batch * load.macs, float_x=real)


def measure(load: Workload, device: tuple[float, float, float] | None) -> Timed:
    """Time a workload's native, float32 and float16 forms, in turn."""
    native, feed = native_model(load)
    weights = {name: np.asarray(array) for name, array in load.float_weights.items()}
    half = replace(
        load, float_weights={name: _halved(array) for name, array in weights.items()}, float_x=_halved(load.float_x)
    )
    forms = [(native, feed), (float_model(load), {"x": load.float_x}), (float_model(half), {"x": half.float_x})]
    runs = []
    for model, given in forms:
        count = repeated(model, given)
        runs.append((bound(open_session(model, providers=CUDA), given), count))
    ours, float32, float16 = (
        1e3 * min(times) / count for times, (_, count) in zip(race(runs), runs, strict=True)
    )  # fmt: skip
    limit = 0.0
    if device is not None:
        bandwidth, int8, float16 = device
        rate = float16 if load.op == "WeightOnlyLinear" else int8 * (2 if load.label.endswith("2:4") else 1)
        limit = max(_bytes(load) / bandwidth / 1e6, 2e-9 * load.macs / rate)
    return Timed(load, ours, float32, float16, limit)


def repeated(model: ir.Model, feed: Mapping[str, Array]) -> int:
    """Add copies of a model's nodes with weights of their own, in place; how many there are then.

    Every copy's result is one of the graph's, so that nothing is left out as unused.
    """
    graph = model.graph
    nodes, weights = list(graph), list(graph.initializers.values())
    held = sum(value.const_value.nbytes for value in weights if value.const_value is not None)
    count = max(2, min(MOST_COPIES, COPIES_BYTES // max(1, held)))
    (result,) = graph.outputs
    for i in range(1, count):
        known: dict[ir.Value | None, ir.Value] = {}
        for value in weights:
            known[value] = ir.Value(
                name=f"{value.name}_{i}", type=value.type, shape=value.shape, const_value=value.const_value
            )
            graph.register_initializer(known[value])
        for node in nodes:
            copy = ir.node(
                node.op_type, [known.get(v, v) for v in node.inputs], node.attributes, domain=node.domain,
                overload=node.overload, num_outputs=len(node.outputs),
            )  # fmt: skip
            for old, new in zip(node.outputs, copy.outputs, strict=True):
                new.name, new.type = f"{old.name}_{i}", old.type
                known[old] = new
            graph.append(copy)
        graph.outputs.append(known[result])
    return count


def bound(session: ort.InferenceSession, feed: Mapping[str, Array]) -> Callable[[], None]:
    """A run of the session whose inputs and outputs stay on the device."""
    binding = session.io_binding()
    for name, array in feed.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array, "cuda", 0))
    for output in session.get_outputs():
        binding.bind_output(output.name, "cuda")
    return partial(session.run_with_iobinding, binding)


def race(runs: Sequence[tuple[Callable[[], None], int]]) -> list[list[float]]:
    """Seconds of one run of each, in rounds, in turn. A run ends when the device has."""
    paces = []
    for run, _ in runs:
        run()
        started = time.perf_counter()
        run()
        paces.append(max(3, int(SECONDS / max(time.perf_counter() - started, 1e-6))))
    found: list[list[float]] = [[] for _ in runs]
    for _ in range(ROUNDS):
        for (run, _), pace, times in zip(runs, paces, found, strict=True):
            started = time.perf_counter()
            for _ in range(pace):
                run()
            times.append((time.perf_counter() - started) / pace)
    return found


def _halved(array: Array) -> Array:
    return array.astype(np.float16) if array.dtype == np.float32 else array


def _bytes(load: Workload) -> int:
    """That have to be read and written once; of weights stored as sparse, what is stored of them."""
    read = sum(np.asarray(array).nbytes for array in load.inputs.values())
    if load.label.endswith("2:4"):
        read -= np.asarray(load.inputs["w"]).nbytes * 3 // 8  # half of the bytes, and 2 bits for each of the others
    return read + _results(load) * (2 if load.op == "WeightOnlyLinear" else 1)


def _results(load: Workload) -> int:
    """Elements of the result."""
    if load.op in ("QLinear", "QSparseLinear", "WeightOnlyLinear"):
        return int(np.shape(load.inputs["x"])[0]) * int(np.size(load.inputs["bias"]))
    if load.op == "QConv":
        stride = load.attributes["strides"][0]
        batch, height, width, _ = np.shape(load.inputs["x"])
        return int(batch * -(-height // stride) * -(-width // stride) * np.size(load.inputs["bias"]))
    return int(np.size(load.float_x)) // (3 if load.op == "QAttention" else 1)


def require_library(folder: Path) -> None:
    """See to a library with CUDA kernels.

    Raises:
        CompressError: there is no GPU, or none that ONNX Runtime can use, or no nvcc to build with.
    """
    if not why_no_cuda():
        return
    if not gpu_name():
        raise CompressError("there is no GPU here")
    if tool := missing_tool("ON"):
        raise CompressError(f"{why_no_cuda()}, and there is no {tool} to build it")
    print("building the library for CUDA ...", file=sys.stderr)
    os.environ["ONNXCOMPRESS_LIBRARY"] = str(build_library(folder, "ON"))
    if reason := why_no_cuda():
        raise CompressError(reason)


HEADINGS = ("operator", "shape", "native µs", "fp32 µs", "fp16 µs", "v fp32", "v fp16", "TOPS", "GB/s", "of limit")


def table(rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = ["| " + " | ".join(row) + " |" for row in (HEADINGS, ["---"] * len(HEADINGS), *rows)]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bandwidth", type=float, help="GB/s of the device, where it is not known")
    parser.add_argument("--rate", type=float, help="its dense int8 TOPS")
    parser.add_argument("--only", default="", metavar="WORD", help="of the operator or the shape")
    arguments = parser.parse_args()
    name = gpu_name()
    device = next((limits for part, limits in DEVICES.items() if part in name), None)
    if arguments.bandwidth and arguments.rate:
        device = (arguments.bandwidth, arguments.rate, arguments.rate / 2)
    with tempfile.TemporaryDirectory() as folder:
        try:
            require_library(Path(folder))
        except CompressError as error:
            print(f"skipped: {error}")
            return 0
        print(f"{name or 'an unknown GPU'}, ONNX Runtime {ort.__version__}\n")
        rows: list[list[str]] = []
        for make in workloads():
            load = make()
            if arguments.only in f"{load.op} {load.label}":
                print(f"\r{load.op} {load.label:50}", end="", file=sys.stderr, flush=True)
                rows.append(measure(load, device).cells())
    print("\r" + table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
