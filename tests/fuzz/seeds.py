"""What fuzzing starts from: small inputs that are right."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir

from onnxcompress.calibration import calibrate
from onnxcompress.quantizer import quantize
from onnxcompress.recipe import Recipe, to_toml
from tests.models import encoder, images, small_cnn

BRANCHES = """
<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
g (float[N, 4] x, bool c) => (float[N, 4] y) {
    a = own.twice (x)
    s = Shape (a)
    d = ConstantOfShape (s)
    b = If (c) <
        then_branch = t () => (float[N, 4] p) { p = Relu (a) },
        else_branch = e () => (float[N, 4] q) { q = Add (a, d) }
    >
    k = Constant <value = int64[2] {-1, 4}> ()
    y = Reshape (b, k)
}
<domain: "own", opset_import: ["" : 21]>
twice (v) => (w) { w = Add (v, v) }
"""


def models() -> Iterator[bytes]:
    quantized = [quantize(small_cnn(), mode="dynamic"), quantize(small_cnn(), data=images(2))]
    for model in (small_cnn(), encoder(), *(result.model for result in quantized)):
        yield ir.to_proto(model).SerializeToString()
    yield onnx.parser.parse_model(BRANCHES).SerializeToString()


def archives() -> Iterator[bytes]:
    for save in (np.savez, np.savez_compressed):
        for array in (np.ones((2, 3), np.float32), np.zeros((0, 4)), np.array(["a"]), np.array([1, 2], np.int64)):
            stream = io.BytesIO()
            save(stream, x=array, y=array)
            yield stream.getvalue()


def recipes() -> Iterator[bytes]:
    yield to_toml(Recipe(mode="dynamic")).encode()
    full = Recipe(
        mode="static", exclude={"a": "slow"}, ranges={"x": (0.0, 1.5)}, channels={"x": (1.0, 2.0)}, smooth=0.5,
        wide=("n",), slim={"pattern": "2:4", "sparsity": 0.5, "steps": 20},
    )  # fmt: skip
    yield to_toml(full).encode()


def ranges() -> Iterator[bytes]:
    for method in ("minmax", "percentile", "entropy", "mse", "moving-average"):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "r.json"
            calibrate(small_cnn(), images(1), method=method, tensors=["x"]).save(path)
            yield path.read_bytes()


SEEDS: dict[str, Callable[[], Iterator[bytes]]] = {
    "model": models, "npz": archives, "recipe": recipes, "ranges": ranges,
}  # fmt: skip
