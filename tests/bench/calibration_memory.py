"""Peak memory of calibrating 64 and 1,024 samples of varying length, each in a process of its own.

Run as `python tests/bench/calibration_memory.py`; prints one JSON document, and exits with 1 when the longer run
peaks more than 10 % above the shorter one. The model is a text recogniser in small: strided and depthwise
convolutions over images 48 high and 32 to 320 wide, then two linears over the columns.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser

SAMPLES = (64, 1024)
ALLOWED = 1.10
HEIGHT, LEAST_WIDTH, GREATEST_WIDTH = 48, 32, 320
STAGES = [(16, "2, 2"), (32, "2, 1"), (48, "2, 2"), (64, "2, 1"), (96, "3, 1")]
LINEARS = (256, 512)


def recogniser() -> onnx.ModelProto:
    """The model with random weights: from x `[1, 3, 48, W]` to y `[1, W / 4, 512]`."""
    rng = np.random.default_rng(0)
    weights: dict[str, np.ndarray[Any, Any]] = {}
    lines = ["h = Identity (x)"]

    def weight(name: str, *shape: int, fan_in: int) -> str:
        weights[name] = (rng.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32)
        return name

    channels, last = 3, "h"
    for i, (width, strides) in enumerate(STAGES):
        dense = weight(f"w{i}", width, channels, 3, 3, fan_in=9 * channels)
        depthwise = weight(f"d{i}", width, 1, 3, 3, fan_in=9)
        lines += [
            f"c{i} = Conv <pads = [1, 1, 1, 1], strides = [{strides}]> ({last}, {dense})",
            f"a{i} = HardSwish (c{i})",
            f"e{i} = Conv <pads = [1, 1, 1, 1], group = {width}> (a{i}, {depthwise})",
            f"r{i} = Relu (e{i})",
        ]
        channels, last = width, f"r{i}"
    lines += [f"squeezed = Squeeze ({last}, axis)", "l = Transpose <perm = [0, 2, 1]> (squeezed)"]
    last = "l"
    for i, width in enumerate(LINEARS):
        lines.append(f"l{i} = MatMul ({last}, {weight(f'm{i}', channels, width, fan_in=channels)})")
        channels, last = width, f"l{i}"
    lines.append(f"y = Softmax <axis = -1> ({last})")
    graph = f"g (float[1, 3, {HEIGHT}, W] x) => (float[1, T, {channels}] y) {{\n" + "\n".join(lines) + "\n}"
    model = onnx.parser.parse_model('<ir_version: 10, opset_import: ["" : 21]>\n' + graph)
    arrays = weights | {"axis": np.array([2])}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(a, name) for name, a in arrays.items())
    onnx.checker.check_model(model)
    return model


def images(count: int) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
    """Images of random width; the widest comes early, so that both runs hold it."""
    rng = np.random.default_rng(1)
    for index in range(count):
        width = GREATEST_WIDTH if index == 5 else int(rng.integers(LEAST_WIDTH, GREATEST_WIDTH + 1))
        yield {"x": rng.standard_normal((1, 3, HEIGHT, width), dtype=np.float32)}


def measure(model: str, method: str, samples: int) -> dict[str, Any]:
    """Calibrate in this process: its peak resident memory in bytes, and the seconds taken."""
    from onnxcompress.calibration import calibrate

    started = time.perf_counter()
    ranges = calibrate(model, lambda: images(samples), method=method)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "samples": ranges.samples,
        "tensors": len(ranges.names),
        "peak_bytes": peak,
        "seconds": round(seconds, 1),
    }


def race(method: str) -> dict[str, Any]:
    """Both sizes, each in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recogniser.onnx"
        onnx.save(recogniser(), path)
        runs = []
        for samples in SAMPLES:
            command = [sys.executable, __file__, "--measure", str(path), method, str(samples)]
            runs.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    ratio = runs[-1]["peak_bytes"] / runs[0]["peak_bytes"]
    return {"method": method, "runs": runs, "ratio": round(ratio, 3), "within_bound": ratio <= ALLOWED}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(sys.argv[2], sys.argv[3], int(sys.argv[4]))))
    else:
        result = race(sys.argv[1] if len(sys.argv) > 1 else "mse")
        print(json.dumps(result, indent=2))
        sys.exit(0 if result["within_bound"] else 1)
