"""The native operators by shape and sparsity: the table of `onnxcompress bench --ops`, and a plot of it.

    python -m tests.bench.operators [--threads N] [--plot operators.png]

Each bar is one workload: operations a second of the dense operator, for float, standard int8 and native kernels,
against the processor's peak. Run it with nothing else running. The plot needs matplotlib (the extra `plot`).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from onnxcompress.runtime import library
from onnxcompress.runtime.operators import OperatorTimes, bench_operators
from onnxcompress.runtime.table import operators_table


def plot(results: Sequence[OperatorTimes], peak: float, path: str) -> None:
    """One group of bars a workload, on a logarithmic axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(10, 0.32 * len(results) + 1.5))
    for offset, (label, color, milliseconds) in enumerate((
        ("float", "#9aa5b1", [r.float_ms for r in results]),
        ("standard int8", "#5b8def", [r.standard_ms for r in results]),
        ("native", "#e4572e", [r.native_ms for r in results]),
    )):  # fmt: skip
        rates = [r.gops * r.native_ms / ms for r, ms in zip(results, milliseconds, strict=True)]
        axes.barh([i + 0.27 * (offset - 1) for i in range(len(results))], rates, 0.25, label=label, color=color)
    axes.axvline(peak, color="black", linewidth=0.8, linestyle="--", label=f"peak {peak:.0f}")
    names = [f"{r.op} {r.label}" + (f", {r.sparsity:.0%} zero" if r.sparsity else "") for r in results]
    axes.set_yticks(range(len(results)), names, fontsize=7)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("10⁹ operations a second of the dense operator")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--plot", metavar="PNG")
    arguments = parser.parse_args()
    results = bench_operators(arguments.threads, lambda what, done, total: print(f"\r{what:60}", end="", flush=True))
    print("\r" + operators_table(results))
    if arguments.plot:
        plot(results, library.peak() * arguments.threads, arguments.plot)


if __name__ == "__main__":
    main()
