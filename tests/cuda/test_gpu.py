"""Every operator on a GPU, in ONNX Runtime: `pytest -m gpu`. Skipped where there is none, or no nvcc to build with."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

import onnxcompress
from onnxcompress.runtime import library
from onnxcompress.runtime.devices import CUDA, why_no_cuda
from tests.cuda.library import build_library, gpu_name, missing_tool, using
from tests.ops import forms
from tests.ops.cases import ALL
from tests.ops.cases.case import Case
from tests.ops.test_forms import compare
from tests.zoo import ZooModel

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def gpu_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This tree's library, built for CUDA; the tests are skipped where it finds no device."""
    if not gpu_name():
        pytest.skip("no GPU")
    if tool := missing_tool("ON"):
        pytest.skip(f"no {tool}")
    library = build_library(tmp_path_factory.mktemp("gpu_library"), "ON")
    with using(library):
        reason = why_no_cuda()
    if reason:
        pytest.skip(reason)
    return library


@pytest.mark.parametrize("case", ALL, ids=str)
def test_agrees_with_the_reference(case: Case, gpu_library: Path) -> None:
    if "kernel" in case.skip:
        pytest.skip(case.skip["kernel"])
    with using(gpu_library):
        actual = forms.on_gpu(case)
    compare(case.on_device(), forms.reference(case), actual, case.steps, False)


@pytest.mark.parametrize("name", ["minilm", "ppocr-det", "ppocr-cls"])
def test_a_compressed_model_gives_the_same_on_both_devices(
    name: str, zoo: Callable[[str], ZooModel], gpu_library: Path, tmp_path: Path
) -> None:
    """Chosen and timed on the GPU, within the bound there; `load` takes it to the GPU by itself."""
    model = zoo(name)
    feeds = list(model.feeds(12))
    with using(gpu_library):
        result = onnxcompress.compress(model.path(), tmp_path / "small.onnx", data=feeds, target="cuda", max_drop=0.03)
        assert result.within_bound and result.speedup is not None
        there = onnxcompress.load(tmp_path / "small.onnx")
        here = onnxcompress.load(tmp_path / "small.onnx", providers=["CPUExecutionProvider"])
        assert there.get_providers()[0] == CUDA[0]
        for feed in feeds[:4]:
            for on_gpu, on_cpu in zip(there.run(None, feed), here.run(None, feed), strict=True):
                one, other = np.asarray(on_gpu, np.float64).ravel(), np.asarray(on_cpu, np.float64).ravel()
                assert one @ other > 0.995 * np.linalg.norm(one) * np.linalg.norm(other)


def test_threads_that_share_a_session_give_what_one_gives(gpu_library: Path) -> None:
    """Every run has a stream of its own, and scratch memory that no other run is given before its kernels are done."""
    case = max((case for case in ALL if case.op == "QSqueezeExcite"), key=lambda case: np.asarray(case.inputs[0]).size)
    options = ort.SessionOptions()
    with using(gpu_library):
        library.register(options)
    proto = forms.model(case, functions=False).SerializeToString()
    session = ort.InferenceSession(proto, options, providers=[CUDA[0]])
    rng = np.random.default_rng(0)
    x = np.asarray(case.inputs[0])
    feeds = [{"i0": rng.integers(0, 256, x.shape).astype(x.dtype)} for _ in range(4)]
    alone = [session.run(None, feed)[0] for feed in feeds]
    with ThreadPoolExecutor(len(feeds)) as pool:
        for _ in range(200):
            for one, other in zip(alone, pool.map(lambda feed: session.run(None, feed)[0], feeds), strict=True):
                np.testing.assert_array_equal(one, other)
