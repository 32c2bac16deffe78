"""The bench of native operators: its workloads are real, and its numbers are those of what ran."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from onnxcompress.errors import ModelError
from onnxcompress.inspection import inspect
from onnxcompress.runtime import library, open_session, operators
from onnxcompress.runtime.operators import OperatorTimes, bench_operators
from onnxcompress.runtime.session import run
from onnxcompress.runtime.table import operators_table
from onnxcompress.runtime.workloads import (
    Workload,
    attention,
    convolution,
    float_model,
    linear,
    native_model,
    sparse_linear,
    workloads,
)

SMALL: dict[str, Callable[[], Workload]] = {
    "QLinear": lambda: linear(3, 16, 8),
    "QSparseLinear": lambda: sparse_linear(3, 32, 16, 0.5, (4, 4)),
    "QConv": lambda: convolution(9, 8, 12, 3, 2, 1),
    "depthwise": lambda: convolution(8, 16, 16, 5, 1, 16),
    "QAttention": lambda: attention(2, 5, 2, 8),
}


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "SECONDS", 0.01)
    monkeypatch.setattr(operators, "ROUNDS", 1)


def check(load: Workload) -> None:
    """The native node and its float form run, to results of one size, and cost what the workload says."""
    model, feed = native_model(load)
    real = float_model(load)
    (native,) = run(open_session(model, threads=1), feed)
    (body,) = run(open_session(model, threads=1, native=False), feed)
    (expected,) = run(open_session(real, threads=1), {"x": load.float_x})
    assert native.dtype == np.uint8
    assert native.size == expected.size == body.size
    assert np.abs(native.astype(int) - body.astype(int)).max() <= 2
    assert len(np.unique(native)) > 2, "all results are the same: nothing was computed, or all was cut off"
    assert inspect(model).macs == load.macs
    assert inspect(real).macs == load.macs


@pytest.mark.parametrize("kind", list(SMALL))
def test_workloads_of_each_kind_are_what_they_say(kind: str) -> None:
    check(SMALL[kind]())


@pytest.mark.slow
@pytest.mark.parametrize("index", range(len(workloads())))
def test_every_workload_is_what_it_says(index: int) -> None:
    check(workloads()[index]())


def test_workloads_have_labels_of_their_own() -> None:
    labels = [(load.op, load.label, load.sparsity) for load in (make() for make in workloads()[:8] + workloads()[24:])]
    assert len(set(labels)) == len(labels)
    assert {op for op, _, _ in labels} == {"QLinear", "QSparseLinear", "QConv", "QAttention"}


@pytest.mark.parametrize("kind", list(SMALL))
@pytest.mark.usefixtures("short")
def test_times_of_each_kind(kind: str) -> None:
    load = SMALL[kind]()
    found = operators._measure(load, 1, 100.0)
    assert (found.op, found.label, found.sparsity) == (load.op, load.label, load.sparsity)
    assert min(found.float_ms, found.standard_ms, found.native_ms) > 0
    assert found.gops == pytest.approx(2 * load.macs / (found.native_ms * 1e6))
    assert found.share_of_peak == pytest.approx(found.gops / 100)
    assert found.speedup_over_float == pytest.approx(found.float_ms / found.native_ms)
    assert found.as_dict()["speedup_over_standard"] == pytest.approx(found.standard_ms / found.native_ms)


@pytest.mark.usefixtures("short")
def test_progress_tells_each_workload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "workloads", lambda: list(SMALL.values()))
    said: list[tuple[str, int, int | None]] = []
    results = bench_operators(2, lambda *what: said.append(what))
    assert [result.op for result in results] == [make().op for make in SMALL.values()]
    assert said[0] == ("timing QLinear 3x16x8", 0, len(SMALL))
    assert [done for _, done, _ in said] == list(range(len(SMALL)))


def test_without_a_library_there_is_nothing_to_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "library_path", lambda: None)
    with pytest.raises(ModelError, match="no library of kernels"):
        bench_operators()


def test_the_table() -> None:
    results = [
        OperatorTimes("QLinear", "128x384x384", 0.0, 0.4, 0.2, 0.05, 755.0, 0.84),
        OperatorTimes("QSparseLinear", "16x384x1536 16x4", 0.8, 12.0, 11.0, 2.0, 1500.4, 1.5),
    ]
    header, rule, first, second, note = operators_table(results).splitlines()
    assert header.split("  ")[0] == "operator"
    assert set(rule) == {"-", " "}
    assert first.split() == ["QLinear", "128x384x384", "-", "0.400", "0.200", "0.050", "8.00", "4.00", "755", "84%"]
    assert second.split()[3:] == ["80%", "12.00", "11.00", "2.000", "6.00", "5.50", "1500", "150%"]
    assert len({len(line) for line in (header, rule, first, second)}) == 1
    assert note.startswith("least times")
