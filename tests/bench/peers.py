"""Race `compress` against ONNX Runtime's own int8 on the zoo, at one thread: the README's table.

    python -m tests.bench.peers [--threads N] [NAME ...]

For each model: `compress` with its real data and metric, ONNX Runtime's dynamic and static quantization as their
documentation says (pre-processing, per-channel weights), then all of them in one race, each in its own process.
A peer that fails is shown with its reason. Run it with nothing else running.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from onnxcompress.model_io import file_bytes
from onnxcompress.pipeline import compress
from onnxcompress.runtime import bench, open_session
from onnxcompress.runtime.session import run
from tests.zoo import ZOO, ZooModel


def ort_dynamic(source: Path, target: Path, model: ZooModel) -> None:
    """quantize_dynamic, s8 weights per channel."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(source, target, per_channel=True, weight_type=QuantType.QInt8)


def ort_static(source: Path, target: Path, model: ZooModel) -> None:
    """quantize_static in the QDQ format, u8 activations, s8 weights per channel, min-max of 64 feeds."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.feeds: Iterator[Any] = iter(model.feeds(64))

        def get_next(self) -> Any:
            return next(self.feeds, None)

    quantize_static(
        source, target, Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip


def prepared(source: Path, folder: Path) -> Path:
    """The model after ONNX Runtime's pre-processing; without its symbolic shapes where they fail."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    target = folder / "prepared.onnx"
    try:
        quant_pre_process(source, target)
    except Exception:
        quant_pre_process(source, target, skip_symbolic_shape=True)
    return target


def attempt(label: str, make: Callable[[], None], target: Path) -> str:
    """Make a peer and open it; gives what went wrong, or nothing."""
    try:
        make()
        open_session(target)
    except Exception as error:
        return f"{label}: {type(error).__name__}: {str(error).splitlines()[0][:100]}"
    return ""


def race(model: ZooModel, threads: int, folder: Path) -> None:
    """Make all contestants of one model, race them, print rows."""
    source = model.path()
    ours, dynamic, static = (folder / f"{name}.onnx" for name in ("ours", "dynamic", "static"))
    started = time.monotonic()
    result = compress(source, ours, data=model.data, evaluate=model.evaluate, threads=threads)
    seconds = time.monotonic() - started
    ready = prepared(source, folder)
    peers = {
        dynamic: attempt("ORT dynamic", lambda: ort_dynamic(ready, dynamic, model), dynamic),
        static: attempt("ORT static", lambda: ort_static(ready, static, model), static),
    }
    contestants = [source, ours, *(path for path, problem in peers.items() if not problem)]
    found = bench(contestants, data=[model.speed_feed()], threads=threads, rounds=9)
    print(f"== {model.name} ({model.metric or 'agreement'}); compress took {seconds:.0f} s")
    for path, measured in zip(contestants, found, strict=True):
        score = f"{model.measure(partial(run, open_session(path))):8.2f}" if model.evaluate else "       -"
        times = measured.latency
        print(
            f"{path.stem:28s} {file_bytes(path) / 1e6:7.2f} MB {times.median_ms:9.3f} ms  "
            f"x{times.speedup_median:.2f} (least x{times.speedup_least:.2f}) {score}"
        )
    for problem in filter(None, peers.values()):
        print(problem)
    for note in result.notes:
        print("note:", note)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=[name for name in ZOO if not ZOO[name].is_quantized])
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    for name in arguments.names:
        # The peers leave files in the working directory.
        with tempfile.TemporaryDirectory(prefix="onnxcompress-peers-") as folder, contextlib.chdir(folder):
            race(ZOO[name], arguments.threads, Path(folder))


if __name__ == "__main__":
    main()
