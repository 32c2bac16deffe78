"""What pruning, distillation and quantization together keep of accuracy, and gain in speed: the rows of the README.

    python -m tests.bench.recovery [--threads N] [--folder DIR] [ROW ...]

Each row prunes, tunes and quantizes a model with the public functions, without a label, and prints every number
beside what it must reach. The dense models of the first rows are trained once, into the zoo's cache. Run it with
nothing else running; CPU-minutes are those of this process, on one thread.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx_ir as ir

from onnxcompress.distiller import distill
from onnxcompress.errors import CompressError
from onnxcompress.model_io import save_model
from onnxcompress.optimizer import optimize
from onnxcompress.pipeline import compress
from onnxcompress.pruning.pruner import prune
from onnxcompress.quantizer import quantize
from onnxcompress.runtime import open_session
from tests.bench import digits, fashion, reuters
from tests.bench.checks import Check, Work, mean_cosine, same_answers, scored
from tests.zoo import ZOO, minilm
from tests.zoo.minilm import Feed

DIGITS_STEPS, CHANNELS_STEPS, FASHION_STEPS, REUTERS_STEPS, SENTENCES_STEPS = 350, 800, 3000, 400, 280
HELD_OUT = 512
"""Feeds without labels on which the best state of a distillation is chosen."""

STRUCTURED = ("ppocr-cls", "ppocr-det", "ppocr-rec", "ddddocr-det", "minilm")


def digits_row(work: Work) -> list[Check]:
    """Digits under affine noise: 80 % of 1x4 blocks, int8, one CPU-minute of distillation."""
    source = digits.model()
    tuned = _tuned(work, digits, source, DIGITS_STEPS, batch=64, pattern="block1x4", sparsity=0.8)
    with work.cpu("quantize"):
        small = quantize(tuned, data=digits.calibration).model
    dense, result = (scored(model, digits.accuracy) for model in (source, small))
    return [
        Check("dense accuracy, %", dense),
        Check("80 % 1x4 and int8: accuracy, %", result, dense - 4),
        Check("CPU-minutes of distillation", work.minutes["distill"], 1.0, at_most=True),
    ]


def fashion_channels_row(work: Work) -> list[Check]:
    """Fashion-MNIST: channels pruned to half the multiply-accumulates, distilled, int8 in stock ONNX Runtime."""
    source = fashion.model()
    tuned = _tuned(work, fashion, source, CHANNELS_STEPS, batch=128, pattern="channels", macs=0.5)
    small = _compressed(work, fashion, tuned, portable=True)
    dense, floating, result = (scored(model, fashion.accuracy) for model in (source, tuned, small))
    _, before, after = work.speedups([_dense(source), tuned, small], next(iter(fashion.calibration())))
    return [
        Check("dense accuracy, %", dense),
        Check("half the work, float: accuracy, %", floating, dense - 1),
        Check("half the work and int8: accuracy, %", result, dense - 1),
        Check("half the work, float: times as fast", before, 1.7),
        Check("half the work and int8: times as fast", after, 3.0),
    ]


def fashion_blocks_row(work: Work) -> list[Check]:
    """Fashion-MNIST: 80 % of 4x4 blocks, distilled, int8, lowered to native operators."""
    source = fashion.model()
    tuned = _tuned(work, fashion, source, FASHION_STEPS, batch=128, pattern="block4x4", sparsity=0.8)
    small = _compressed(work, fashion, tuned, portable=False)
    dense, floating, result = (scored(model, fashion.accuracy) for model in (source, tuned, small))
    _, after = work.speedups([_dense(source), small], next(iter(fashion.calibration())))
    return [
        Check("dense accuracy, %", dense),
        Check("80 % 4x4, float: accuracy, %", floating),
        Check("80 % 4x4 and int8: accuracy, %", result, dense - 1),
        Check("80 % 4x4 and int8, lowered: times as fast", after, 4.0),
    ]


def reuters_row(work: Work) -> list[Check]:
    """MiniLM as a topic classifier: 80 % of 4x4 blocks, distilled, int8, lowered; timed at 1x128."""
    source = reuters.model()
    tuned = _tuned(work, reuters, source, REUTERS_STEPS, batch=16, pattern="block4x4", sparsity=0.8)
    spent = sum(work.minutes.values())
    stock, native = (_compressed(work, reuters, tuned, portable=portable) for portable in (True, False))
    dense, floating, plain, result = (scored(model, reuters.accuracy) for model in (source, tuned, stock, native))
    _, int8, lowered = work.speedups([_dense(source), stock, native], next(iter(reuters.speed())))
    return [
        Check("dense accuracy, %", dense),
        Check("80 % 4x4, float: accuracy, %", floating),
        Check("80 % 4x4 and int8: accuracy, %", plain, dense - 1),
        Check("80 % 4x4 and int8, lowered: accuracy, %", result, dense - 1),
        Check("int8 in stock ONNX Runtime: times as fast", int8, 2.0),
        Check("lowered: times as fast", lowered, 5.0),
        Check("CPU-minutes of pruning and distillation", spent, 40.0, at_most=True),
    ]


def sentences_row(work: Work) -> list[Check]:
    """MiniLM embeddings: 2:4 in every linear layer, ten CPU-minutes."""
    source = ZOO["minilm"].path()
    cosine = mean_cosine(source, minilm.sentences500())
    with work.cpu("prune"):
        pruned = prune(source, pattern="2:4", data=minilm.calibration).model
    with work.cpu("distill"):
        held_out = mean_cosine(source, itertools.islice(minilm.calibration(), 64))
        tuned = distill(pruned, source, _texts, steps=SENTENCES_STEPS, batch=24, evaluate=held_out).model
    before, after = (scored(model, cosine) for model in (pruned, tuned))
    return [
        Check("2:4, refitted: mean cosine", before),
        Check("2:4, distilled: mean cosine", after, 0.92),
        Check("CPU-minutes", sum(work.minutes.values()), 10.0, at_most=True),
    ]


def gptq_row(work: Work) -> list[Check]:
    """MiniLM with 4-bit weights, groups of 32, rounded by GPTQ."""
    source = ZOO["minilm"].path()
    cosine = mean_cosine(source, minilm.sentences500())
    nearest: dict[str, Any] = {"mode": "weight-only", "weights": "int4", "block_size": 32}
    rounded = quantize(source, **nearest).model
    with work.cpu("GPTQ"):
        solved = quantize(source, **{**nearest, "gptq": True, "data": minilm.calibration}).model
    return [
        Check("int4, rounded to nearest: mean cosine", scored(rounded, cosine)),
        Check("int4, GPTQ: mean cosine", scored(solved, cosine), 0.98),
    ]


def structured_row(work: Work) -> list[Check]:
    """Every convolution network of the zoo, and MiniLM's heads and neurons: 70 % of the work."""
    checks = []
    for name in STRUCTURED:
        model = ZOO[name]
        feed = model.speed_feed()
        try:
            with work.cpu(name):
                shapes = {key: array.shape for key, array in feed.items()}
                found = prune(model.path(), pattern="channels", macs=0.7, data=model.feeds(16), shapes=shapes)
        except CompressError as error:
            print(f"    {name}: {error}")
            checks.append(Check(f"{name}: times as fast", 0.0, 1.0))
            continue
        open_session(found.model)
        for line in found.explain():
            print(f"    {name}: {line}")
        checks.append(Check(f"{name}: times as fast", work.speedups([_dense(model.path()), found.model], feed)[1], 1.0))
    return checks


ROWS: dict[str, Callable[[Work], list[Check]]] = {
    "digits": digits_row,
    "fashion-channels": fashion_channels_row,
    "fashion-blocks": fashion_blocks_row,
    "reuters": reuters_row,
    "sentences": sentences_row,
    "gptq": gptq_row,
    "structured": structured_row,
}


def _dense(source: Path) -> ir.Model:
    """What speed is compared with: the float model after `optimize`, so that a tidier graph counts for nothing."""
    return optimize(source, portable=True)


def _tuned(work: Work, data: ModuleType, source: Path, steps: int, *, batch: int, **how: Any) -> Path:
    """A classifier pruned with compensation, then distilled from the dense one on data without labels."""
    with work.cpu("prune"):
        pruned = prune(source, data=data.calibration, **how).model
    print(f"    ... pruned: accuracy {scored(pruned, data.accuracy):.2f} %", flush=True)
    evaluate = same_answers(source, itertools.islice(data.calibration(), HELD_OUT))
    target = work.folder / f"{source.stem}-{how['pattern']}.onnx"
    with work.cpu("distill"):
        found = distill(
            pruned, source, data.unlabelled, steps=steps, batch=batch, evaluate=evaluate,
            resume=work.folder / f"{target.stem}.state",
        )  # fmt: skip
    save_model(found.model, target)
    return target


def _compressed(work: Work, data: ModuleType, source: Path, *, portable: bool) -> Path:
    """The fastest int8 of a model, searched by `compress`."""
    target = source.with_name(f"{source.stem}-{'stock' if portable else 'native'}.onnx")
    with work.cpu(f"compress to {target.stem}"):
        speed: list[Feed] = [next(iter(data.speed()))] if hasattr(data, "speed") else []
        feeds = [*speed, *data.calibration()]
        compress(source, target, data=feeds, threads=work.threads, portable=portable)
    return target


def _texts() -> Iterator[Feed]:
    """Texts that `minilm.sentences500` does not have: news items of two sources, 24 of about one length a feed."""
    encode = minilm.tokenizer().encode
    own = [encode(text).ids for text in minilm.training_texts()]
    items = [*own, *own, *([ids[:64] for ids, _ in reuters.read("train")])]
    yield from reuters.in_batches(items, 24, seed=0)


def main() -> None:
    """The command line."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", default=list(ROWS), help=", ".join(ROWS))
    parser.add_argument("--threads", type=int, default=1, help="of ONNX Runtime, in races")
    parser.add_argument("--folder", type=Path, help="keep models, and the state of distillations, here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    missed = 0
    with contextlib.ExitStack() as stack:
        folder = arguments.folder
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="onnxcompress-recovery-")))
        folder.mkdir(parents=True, exist_ok=True)
        for name in arguments.rows:
            print(f"== {name}: {ROWS[name].__doc__}", flush=True)
            work = Work(folder, arguments.threads)
            checks = ROWS[name](work)
            missed += sum(not check.holds for check in checks)
            print("\n".join(map(str, [*checks, *work.spent()])), flush=True)
    print(f"{missed} targets missed")


if __name__ == "__main__":
    main()
