"""How the time of `quantize` grows with the nodes: `python -m tests.bench.quantize_scale [NODES ...]`.

Prints the processor time of each mode on the graphs of `optimize_scale`. Static takes made-up ranges, so that what is
timed is the work on the graph: optimizing, planning, writing the pairs, lowering; with `--calibrate` it runs the
model on one feed instead, which adds ONNX Runtime's own time.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnxcompress.quantizer import quantize
from onnxcompress.recipe import Recipe, finish, make_plan, prepare
from tests.bench.optimize_scale import CHANNELS, WIDTH, synthetic


def static(model: ir.Model) -> int:
    """Static quantization with the same range for every tensor; gives the quantized nodes."""
    recipe = Recipe(mode="static")
    prepared = prepare(model, recipe)
    ranges = dict.fromkeys(make_plan(prepared, recipe).observed, (-2.0, 2.0))
    _, decisions = finish(prepared, replace(recipe, ranges=ranges))
    return sum(decision.quantized for decision in decisions)


def calibrated(model: ir.Model) -> int:
    feed = {"x": np.random.default_rng(0).standard_normal((1, CHANNELS, WIDTH), np.float32)}
    return sum(decision.quantized for decision in quantize(model, data=[feed], threads=1).decisions)


def dynamic(model: ir.Model) -> int:
    return sum(decision.quantized for decision in quantize(model, mode="dynamic").decisions)


def weight_only(model: ir.Model) -> int:
    return len(quantize(model, mode="weight-only").decisions)


def measure(quantizing: Callable[[ir.Model], int], nodes: int) -> tuple[float, int]:
    """Seconds of processor time, and nodes decided upon."""
    model = synthetic(nodes)
    gc.collect()  # not to pay for the graph before this one
    start = time.process_time()
    decided = quantizing(model)
    return time.process_time() - start, decided


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nodes", nargs="*", type=int, default=[5_000, 10_000, 50_000])
    parser.add_argument("--calibrate", action="store_true", help="static with data instead")
    options = parser.parse_args()
    for quantizing in (calibrated,) if options.calibrate else (static, dynamic, weight_only):
        for nodes in options.nodes:
            seconds, decided = measure(quantizing, nodes)
            each = 1e6 * seconds / nodes
            print(
                f"{quantizing.__name__:12} {nodes:7d} nodes: {seconds:6.1f} s, {each:5.0f} us a node; {decided} decided"
            )


if __name__ == "__main__":
    main()
