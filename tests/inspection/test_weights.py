"""Zeros, patterns and statistics of stored tensors against numpy, in the model and outside it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

import onnxcompress
from onnxcompress.errors import ModelError
from onnxcompress.inspection import weights
from onnxcompress.inspection.results import TensorReport

HEADER = 'ir_version: 10, opset_import: ["": 21, "com.microsoft": 1]'


def with_tensors(text: str, tensors: dict[str, ir.TensorProtocol]) -> ir.Model:
    """The model of a text, with initializers of these names added."""
    proto = onnx.parser.parse_model(text)
    for name, tensor in tensors.items():
        copy = ir.to_proto(tensor)
        copy.name = name
        proto.graph.initializer.append(copy)
    return ir.from_proto(proto)


def report(model: ir.Model | Path, name: str) -> TensorReport:
    (found,) = [tensor for tensor in onnxcompress.inspect(model).tensors if tensor.name == name]
    return found


MATMUL = f"<{HEADER}> g (float[1,64] x) => (float[1,48] y) {{ y = MatMul(x, w) }}"


@pytest.mark.parametrize(
    "dtype",
    [np.float32, np.float16, np.float64, ml_dtypes.bfloat16, np.int8, np.uint8, ml_dtypes.float8_e4m3fn],
)
@pytest.mark.parametrize("external", [False, True])
def test_zeros_of_every_type(dtype: type, external: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "PIECE_BYTES", 1000 - 1000 % 8)
    array: np.ndarray = np.random.default_rng(0).integers(0, 3, (64, 48)).astype(dtype)
    model = with_tensors(MATMUL, {"w": ir.tensor(array)})
    source: ir.Model | Path = model
    if external:
        source = tmp_path / "m.onnx"
        ir.save(model, source, external_data="m.data", size_threshold_bytes=0)
    found = report(source, "w")
    assert found.zeros == np.count_nonzero(array == dtype(0))
    assert (found.elements, found.bytes) == (array.size, array.nbytes)
    assert found.file == ("m.data" if external else None)


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("dtype", [ml_dtypes.int4, ml_dtypes.uint4])
def test_zeros_of_packed_types(dtype: type, external: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "PIECE_BYTES", 100)
    # An odd number of elements: the last byte holds one element and padding that is no element.
    array: np.ndarray = np.random.default_rng(0).integers(0, 4, (33, 47)).astype(dtype)
    text = (
        f"<{HEADER}> g (float[1,33] x) => (float[1,47] y) <float s = {{0.1}}>"
        " { d = DequantizeLinear(w, s) y = MatMul(x, d) }"
    )
    model = with_tensors(text, {"w": ir.tensor(array)})
    source: ir.Model | Path = model
    if external:
        source = tmp_path / "m.onnx"
        ir.save(model, source, external_data="m.data", size_threshold_bytes=0)
    found = report(source, "w")
    assert found.zeros == np.count_nonzero(array.astype(np.int8) == 0)
    assert (found.elements, found.bytes) == (33 * 47, (33 * 47 + 1) // 2)


def test_zero_point_is_the_zero_of_a_quantized_weight() -> None:
    text = (
        f"<{HEADER}> g (float[1,64] x) => (float[1,48] y) <float s = {{0.1}}, uint8 z = {{7}}>"
        " { d = DequantizeLinear(w, s, z) y = MatMul(x, d) }"
    )
    array = np.random.default_rng(0).integers(5, 9, (64, 48)).astype(np.uint8)
    assert report(with_tensors(text, {"w": ir.tensor(array)}), "w").zeros == np.count_nonzero(array == 7)


def test_zero_points_that_differ_by_channel_leave_zeros_unknown() -> None:
    text = f"<{HEADER}> g (float[1,2] x) => (float[1,2] y) {{ d = DequantizeLinear<axis=1>(w, s, z) y = MatMul(x, d) }}"
    tensors: dict[str, np.ndarray] = {
        "w": np.zeros((2, 2), np.uint8),
        "s": np.ones(2, np.float32),
        "z": np.array([0, 1], np.uint8),
    }
    found = report(with_tensors(text, {name: ir.tensor(array) for name, array in tensors.items()}), "w")
    assert found.zeros is None
    assert found.sparsity is None


def test_four_bit_blocks_hold_two_weights_a_byte() -> None:
    text = f"""<{HEADER}> g (float[1,40] x) => (float[1,6] y)
    {{ y = com.microsoft.MatMulNBits<K=40, N=6, bits=4, block_size=16>(x, w, s) }}"""
    codes = np.random.default_rng(0).integers(6, 10, (6, 48))
    codes[:, 40:] = 0  # the padding of the last block
    packed = (codes[:, 0::2] | codes[:, 1::2] << 4).astype(np.uint8).reshape(6, 3, 8)
    model = with_tensors(text, {"w": ir.tensor(packed), "s": ir.tensor(np.ones(18, np.float32))})
    found = report(model, "w")
    assert (found.elements, found.zeros) == (240, int(np.count_nonzero(codes[:, :40] == 8)))
    assert onnxcompress.inspect(model).parameters == 240


def two_four_share(view: np.ndarray) -> float:
    groups = [row[k : k + 4] for row in view for k in range(0, view.shape[1] // 4 * 4, 4)]
    return float(np.mean([np.count_nonzero(group == 0) >= 2 for group in groups]))


def block_share(view: np.ndarray) -> float:
    rows, columns = (dim // 4 * 4 for dim in view.shape)
    blocks = [view[i : i + 4, j : j + 4] for i in range(0, rows, 4) for j in range(0, columns, 4)]
    return float(np.mean([not block.any() for block in blocks]))


def sparse(shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(0)
    array = rng.standard_normal(shape).astype(np.float32)
    array[rng.random(shape) < 0.5] = 0
    array[:8] *= rng.random((8, *[1] * (len(shape) - 1))) < 0.5
    return array


@pytest.mark.parametrize(
    ("node", "shape", "turn"),
    [
        ("y = MatMul(x, w)", (24, 18), True),
        ("y = Gemm(x, w)", (24, 18), True),
        ("y = Gemm<transB=1>(x, w)", (18, 24), False),
        ("y = Conv(x, w)", (12, 10, 3, 1), False),
    ],
)
def test_patterns_in_the_output_by_input_view(node: str, shape: tuple[int, ...], turn: bool) -> None:
    dims = "1,10,5,5" if len(shape) == 4 else "3,24"
    array = sparse(shape)
    found = report(
        with_tensors(f"<{HEADER}> g (float[{dims}] x) => (float[A,B] y) {{ {node} }}", {"w": ir.tensor(array)}),
        "w",
    )
    # [outputs, inputs], and for a convolution [out, ky, kx, in]: channels innermost.
    view = array.T if turn else array.transpose(0, *range(2, len(shape)), 1).reshape(shape[0], -1)
    assert found.groups_2_4 == pytest.approx(two_four_share(view))
    assert found.blocks_4x4 == pytest.approx(block_share(view))


def test_dense_weights_are_not_searched_for_patterns() -> None:
    found = report(with_tensors(MATMUL, {"w": ir.tensor(np.ones((64, 48), np.float32))}), "w")
    assert (found.zeros, found.groups_2_4, found.blocks_4x4) == (0, None, None)


@pytest.mark.parametrize("dtype", [np.float32, np.int8, ml_dtypes.int4])
def test_statistics(dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "PIECE_BYTES", 64)
    array: np.ndarray = np.random.default_rng(0).integers(-8, 8, (64, 48)).astype(dtype)
    (found,) = weights.weight_statistics(with_tensors(MATMUL, {"w": ir.tensor(array)}), ["w"])
    numbers = array.astype(np.float64)
    assert (found.minimum, found.maximum, found.nonfinite) == (-8, 7, 0)
    assert found.mean == pytest.approx(numbers.mean())
    assert found.std == pytest.approx(numbers.std())


def test_nonfinite_weights_are_counted_apart() -> None:
    array = np.ones((64, 48), np.float32)
    array[0, :3] = np.nan, np.inf, -np.inf
    (found,) = weights.weight_statistics(with_tensors(MATMUL, {"w": ir.tensor(array)}), ["w"])
    assert (found.minimum, found.maximum, found.nonfinite) == (1, 1, 3)


def test_external_data_that_ends_early(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    ir.save(with_tensors(MATMUL, {"w": ir.tensor(np.ones((64, 48), np.float32))}), path, external_data="m.data",
            size_threshold_bytes=0)  # fmt: skip
    data = tmp_path / "m.data"
    opened = ir.load(path)
    data.write_bytes(data.read_bytes()[:-6])
    with pytest.raises(ModelError, match=r"its external data ends at 12288, m\.data at 12282"):
        onnxcompress.inspect(path)
    with pytest.raises(ModelError, match="ends before"):
        onnxcompress.inspect(opened)


def test_tensor_that_is_not_what_its_shape_says() -> None:
    proto = onnx.parser.parse_model(MATMUL)
    proto.graph.initializer.append(onnx.TensorProto(name="w", data_type=1, dims=[64, 48], float_data=[0.0]))
    with pytest.raises(ModelError, match="shape says"):
        onnxcompress.inspect(ir.from_proto(proto))


MEASURE = """
import sys, resource
import onnxcompress
found = onnxcompress.inspect(sys.argv[1])
print(found.weight_bytes, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="resource counts kilobytes on Linux")
def test_memory_does_not_grow_with_external_weights(tmp_path: Path) -> None:
    def peak(rows: int) -> tuple[int, int]:
        path = tmp_path / f"m{rows}.onnx"
        with open(tmp_path / f"m{rows}.data", "wb") as stream:
            stream.truncate(rows * 4096)
        tensor = ir.ExternalTensor(f"m{rows}.data", 0, rows * 4096, ir.DataType.FLOAT, name="w",
                                   shape=ir.Shape((rows, 1024)), base_dir=tmp_path)  # fmt: skip
        text = f"<{HEADER}> g (float[1,{rows}] x) => (float[1,1024] y) {{ y = MatMul(x, w) }}"
        ir.save(with_tensors(text, {"w": tensor}), path)
        output = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True,
                                env={"PYTHONPATH": str(Path(__file__).parents[2])}).stdout  # fmt: skip
        weight_bytes, memory = (int(word) for word in output.split())
        return weight_bytes, memory

    small, large = peak(256), peak(1 << 17)
    assert large[0] == 512 << 20
    # Two pieces of 16 MB and their comparison, whatever the size.
    assert large[1] - small[1] < 100 << 20
