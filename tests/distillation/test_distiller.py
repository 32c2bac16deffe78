"""`distill` from end to end, on digits."""

from __future__ import annotations

import itertools
import math
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from onnxcompress.distillation import session
from onnxcompress.distillation.checkpoints import FILE
from onnxcompress.distillation.masks import Gradual
from onnxcompress.distiller import Distilled, distill
from onnxcompress.errors import CompressError, DataError, EvaluationError, ModelError
from onnxcompress.model_io import save_model
from onnxcompress.quantizer import quantize
from onnxcompress.runtime.session import open_session
from onnxcompress.torch import OnnxModule
from tests.distillation.graphs import graph
from tests.distillation.networks import accuracy, cut_off_at, digits, feeds, no_loss, pruned, untrained, weight_of
from tests.models import with_initializers
from tests.zoo import ZooModel

Array = np.ndarray[Any, Any]


def short(student: ir.Model, teacher: ir.Model | None, steps: int = 20, **options: Any) -> Distilled:
    """A run on 300 digits."""
    return distill(student, teacher, options.pop("data", feeds(300)), steps=steps, **options)


def assert_same(one: ir.Model, other: ir.Model) -> None:
    """Equal weights, to the bit."""
    assert one.graph.initializers.keys() == other.graph.initializers.keys()
    for name in one.graph.initializers:
        np.testing.assert_array_equal(weight_of(one, name), weight_of(other, name), err_msg=name)


def without_times(found: Distilled) -> list[dict[str, Any]]:
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in found.history]


def test_a_pruned_student_regains_most_of_what_it_lost(teacher: ir.Model) -> None:
    student = pruned(teacher, 0.85)
    before, best = accuracy(student), accuracy(teacher)
    found = distill(student, teacher, feeds(), steps=150)
    after = accuracy(found.model)
    assert best > 0.93 and before < 0.75
    assert after > best - 0.25 * (best - before)
    assert found.metric == "top1 of scores" and found.reference == 1.0
    assert found.start is not None and found.score is not None and found.score > found.start
    assert found.steps == 150 and 0 < found.best_step <= 150
    assert "pruned weights keep their zeros: 3" in found.notes
    assert [entry["step"] for entry in found.history] == list(range(15, 151, 15))
    assert found.history[-1]["loss"] < 0.3 * found.history[0]["loss"]
    for name in ("w2", "w3", "w4"):
        np.testing.assert_array_equal(weight_of(found.model, name) == 0, weight_of(student, name) == 0)


def test_the_result_in_onnx_runtime_is_what_torch_computes(teacher: ir.Model) -> None:
    found = short(pruned(teacher), teacher)
    images = digits()[0][:64]
    (in_torch,) = OnnxModule(found.model)({"image": images})
    (in_runtime,) = open_session(found.model).run(None, {"image": images})
    np.testing.assert_allclose(in_runtime, in_torch.detach().numpy(), atol=1e-4)


def test_what_came_in_is_not_changed(teacher: ir.Model) -> None:
    student = pruned(teacher)
    weights = weight_of(student, "w3").copy(), weight_of(teacher, "w3").copy()
    short(student, teacher, 3)
    np.testing.assert_array_equal(weight_of(student, "w3"), weights[0])
    np.testing.assert_array_equal(weight_of(teacher, "w3"), weights[1])


def test_the_result_never_scores_below_what_came_in(teacher: ir.Model) -> None:
    """A learning rate that ruins a perfect student: it is given back as it came."""
    found = short(teacher, teacher, 10, learning_rate=1.0, clip=1e9, metric="cosine")
    assert found.start == found.score == 1.0 and found.best_step == 0
    assert min(entry["score"] for entry in found.history) < 0.9
    assert "no state of the training was better than the student as it came, which is given back" in found.notes
    assert_same(found.model, teacher)


def test_a_loss_that_is_no_number_stops_the_run(teacher: ir.Model) -> None:
    calls = 0

    def broken(outputs: Any, feed: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return outputs["scores"].sum() * (math.nan if calls > 12 else 0.0)

    found = short(pruned(teacher), teacher, 40, task_loss=broken, evaluations=20)
    assert found.steps == 12 and found.best_step == 12
    assert any("not a number any more at step 13" in note for note in found.notes)
    assert np.isfinite(weight_of(found.model, "w2")).all()


def test_labels_and_no_teacher(teacher: ir.Model) -> None:
    """A network learns from labels alone, which the feeds bring along; the score is the user's."""
    images, labels = digits()

    def task_loss(outputs: Any, feed: Any) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(outputs["scores"], torch.from_numpy(feed["label"]))

    def evaluate(run: Callable[[dict[str, Array]], list[Array]]) -> float:
        return float(np.mean(run({"image": images[1400:]})[0].argmax(1) == labels[1400:]))

    data = [{"image": images[i : i + 1], "label": labels[i : i + 1]} for i in range(600)]
    found = distill(
        untrained(), None, data, steps=60, labels=["label"], task_loss=task_loss, evaluate=evaluate, learning_rate=5e-3
    )
    assert found.metric == "evaluate" and found.start is not None and found.score is not None
    assert found.start < 0.4 and found.score > 0.75
    assert found.score == pytest.approx(accuracy(found.model))
    assert set(found.history[0]["parts"]) == {"task"} and not found.terms
    with pytest.raises(DataError, match="label 'label' is missing"):
        distill(untrained(), None, feeds(20), steps=1, labels=["label"], task_loss=task_loss, evaluate=evaluate)


def test_batches_that_the_graph_cannot_take(teacher: ir.Model) -> None:
    """A graph for one row at a time: gradients are added up, which comes to the same."""
    signature, body = "(float[{0}, 4] x) => (float[{0}, 3] y)", "f = Reshape (x, {0}) m = MatMul (f, w) y = Add (m, b)"

    def make(open_: bool, seed: int) -> ir.Model:
        model = graph(
            signature.format("N" if open_ else 1), body.format("open" if open_ else "one"), seed, w=(4, 3), b=(3,)
        )
        return with_initializers(model, {"open": np.array([-1, 4]), "one": np.array([1, 4])})

    rng = np.random.default_rng(0)
    data = [{"x": rng.normal(size=(1, 4)).astype(np.float32)} for _ in range(64)]
    results = [
        distill(make(open_, 1), make(open_, 0), data, steps=8, batch=8, losses={"kl": 1.0}, metric="cosine",
                learning_rate=0.05)
        for open_ in (True, False)
    ]  # fmt: skip
    note = "the graph takes feeds one at a time: the gradients of a batch are added up"
    assert note not in results[0].notes and note not in results[1].notes  # the declared inputs say so
    for name in ("w", "b"):
        one, other = (weight_of(found.model, name) for found in results)
        np.testing.assert_allclose(one, other, atol=1e-5)
        assert not np.allclose(one, weight_of(make(True, 1), name), atol=1e-3)


def test_a_graph_that_breaks_with_more_rows_is_found_out(teacher: ir.Model) -> None:
    """Its input is open, but a Reshape fixes one row: joined feeds would come out wrong."""

    def make(seed: int) -> ir.Model:
        model = graph("(float[N, 4] x) => (float[M, 3] y)", "f = Reshape (x, one) y = MatMul (f, w)", seed, w=(4, 3))
        return with_initializers(model, {"one": np.array([1, 4])})

    data = [{"x": np.ones((1, 4), np.float32) * i} for i in range(1, 30)]
    found = distill(make(1), make(0), data, steps=2, batch=4, metric="cosine")
    assert "the graph takes feeds one at a time: the gradients of a batch are added up" in found.notes


def test_quantized_students_learn_weights_and_scales(teacher: ir.Model) -> None:
    student = quantize(teacher, data=feeds(32), method="minmax", portable=True).model
    quantizers = [node for node in student.graph if node.op_type == "QuantizeLinear"]
    scales = {str(node.inputs[1].name) for node in quantizers if node.inputs[1] is not None}
    assert scales <= set(OnnxModule(student, learn_scales=True).scale_names)
    for name in scales:  # ranges that are 24 times too wide, so that there is something to learn
        array = weight_of(student, name)
        student.graph.initializers[name].const_value = ir.tensor(array * np.float32(24), name=name)
    fixed, learned = (
        short(student, teacher, 30, learn_scales=learn, metric="snr", learning_rate=3e-4) for learn in (False, True)
    )
    for found, changes in ((fixed, False), (learned, True)):
        assert found.best_step > 0
        assert [node.op_type for node in found.model.graph] == [node.op_type for node in student.graph]
        changed = [not np.array_equal(weight_of(found.model, n), weight_of(student, n)) for n in scales]
        assert any(changed) is changes
        integers = [n for n, v in student.graph.initializers.items() if v.dtype == ir.DataType.INT8]
        assert integers and all(weight_of(found.model, n).dtype == np.int8 for n in integers)
        assert any(not np.array_equal(weight_of(found.model, n), weight_of(student, n)) for n in integers)
    assert learned.score is not None and fixed.score is not None and fixed.start is not None
    assert learned.score > fixed.score > fixed.start


def test_a_batch_in_parts_teaches_the_same(teacher: ir.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the gradients of a whole batch would need more memory than they may."""
    parts: list[int] = []

    def counted(outputs: Any, feed: Any) -> torch.Tensor:
        parts.append(len(feed["image"]))
        return outputs["scores"].sum() * 0

    whole = short(pruned(teacher), teacher, 10, task_loss=counted, learning_rate=1e-3)
    assert set(parts[:7]) == {32}
    parts.clear()
    monkeypatch.setattr(session, "PART_BYTES", 500_000)
    found = short(pruned(teacher), teacher, 10, task_loss=counted, learning_rate=1e-3)
    assert max(parts) < 20
    for name in ("w1", "w2", "w3", "w4"):
        np.testing.assert_allclose(weight_of(found.model, name), weight_of(whole.model, name), atol=2e-4)


def test_a_reconstruction_comes_first_where_it_is_asked_for(teacher: ir.Model, tmp_path: Path) -> None:
    student = pruned(teacher, 0.85)
    plain, poor, fitted = (distill(student, teacher, feeds(300), steps=3, reconstruct=n) for n in (0, 30, 300))
    assert plain.start is not None and fitted.start is not None and fitted.start > plain.start + 0.2
    assert poor.start == plain.start and any("the reconstruction is left out" in note for note in poor.notes)
    for name in ("w2", "w3", "w4"):  # zeros stay
        assert not np.any(weight_of(fitted.model, name)[weight_of(student, name) == 0])
    # Cut off and taken up again, it ends where it would have.
    whole = short(student, teacher, 12, reconstruct=10, task_loss=no_loss)
    options: dict[str, Any] = {
        "reconstruct": 10,
        "resume": tmp_path,
        "task_loss": cut_off_at(8),
        "checkpoint_seconds": 0.0,
    }
    with pytest.raises(RuntimeError, match="killed"):
        short(student, teacher, 12, **options)
    found = short(student, teacher, 12, **options)
    assert_same(found.model, whole.model)
    with pytest.raises(ValueError, match="reconstruction needs a teacher"):
        short(student, None, 2, reconstruct=1, task_loss=no_loss, evaluate=lambda run: 0.0)


def test_a_signal_ends_a_reconstruction(teacher: ir.Model, tmp_path: Path) -> None:
    """With what is fitted by then; and the run that is started again ends as if nothing had been."""
    told: list[str] = []

    def send(stage: str, done: int, total: int | None) -> None:
        told.append(stage)
        if stage.startswith("reconstructing") and done == 1:
            signal.raise_signal(signal.SIGINT)

    student = pruned(teacher, 0.85)
    found = short(student, teacher, 12, reconstruct=20, resume=tmp_path, progress=send)
    assert found.interrupted and found.steps == 0
    assert len([stage for stage in told if stage.startswith("reconstructing")]) == 2
    again, whole = (short(student, teacher, 12, reconstruct=20, **more) for more in ({"resume": tmp_path}, {}))
    assert_same(again.model, whole.model)


def test_gradual_pruning_ends_at_its_last_masks(teacher: ir.Model) -> None:
    def masks_at(step: int, weight: Callable[[str], Array]) -> dict[str, Array] | None:
        if step % 4:
            return None
        size = np.abs(weight("w3"))
        return {"w3": size > np.quantile(size, 0.7 * min(step, 12) / 12)}

    found = short(teacher, teacher, 20, gradual=Gradual(masks_at, 12))
    assert np.mean(weight_of(found.model, "w3") == 0) == pytest.approx(0.7, abs=0.01)
    assert found.best_step > 12
    scored = [entry["step"] for entry in found.history if entry["score"] is not None]
    assert scored == [14, 16, 18, 20]
    for until, steps in ((20, 20), (5, None)):
        with pytest.raises(ValueError, match="gradual pruning needs steps"):
            distill(teacher, teacher, feeds(20), steps=steps, gradual=Gradual(masks_at, until))


def test_a_budget_ends_in_time(teacher: ir.Model) -> None:
    found = distill(pruned(teacher), teacher, feeds(200), budget=3.0)
    assert 1.0 < found.seconds < 3.5
    assert found.steps > 5 and found.history[-1]["rate"] < 0.2 * max(entry["rate"] for entry in found.history)


def test_interruption_gives_the_best_so_far(teacher: ir.Model) -> None:
    def stop(stage: str, done: int, total: int | None) -> None:
        if stage.startswith("distilling") and done == 12:
            raise KeyboardInterrupt

    student = pruned(teacher)
    found = short(student, teacher, 40, progress=stop)
    assert found.interrupted and found.steps == 12
    assert "interrupted: this is the best state until then" in found.notes
    assert found.score is not None and found.start is not None and found.score >= found.start

    def at_once(stage: str, done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        short(student, teacher, 40, progress=at_once)


@pytest.mark.parametrize("signals", [1, 2])
def test_one_signal_ends_the_training_a_second_one_everything(signals: int, teacher: ir.Model) -> None:
    sent = 0

    def send(stage: str, done: int, total: int | None) -> None:
        nonlocal sent
        while stage.startswith("distilling") and done >= 5 and sent < signals:
            sent += 1
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    if signals == 2:
        with pytest.raises(KeyboardInterrupt):
            short(pruned(teacher), teacher, 40, progress=send)
    else:
        found = short(pruned(teacher), teacher, 40, progress=send)
        assert found.interrupted and found.steps == 5 == found.history[-1]["step"]
    assert signal.getsignal(signal.SIGINT) is before


def test_the_budget_counts_across_runs(teacher: ir.Model, tmp_path: Path) -> None:
    """A run whose time is up is over, however often it is started again, and whatever its clock says then."""
    student = pruned(teacher)
    first = distill(student, teacher, feeds(100), budget=2.0, resume=tmp_path)
    again = distill(student, teacher, feeds(100), budget=2.0, resume=tmp_path)
    assert again.seconds > 0.5 * first.seconds
    state = torch.load(tmp_path / FILE, weights_only=True)
    state["run"]["seconds"] = 0.0
    torch.save(state, tmp_path / FILE)
    for other in (again, distill(student, teacher, feeds(100), budget=2.0, resume=tmp_path)):
        assert without_times(other) == without_times(first)
        assert_same(first.model, other.model)


def test_a_budget_that_is_not_spent_goes_on(teacher: ir.Model, tmp_path: Path) -> None:
    """Interrupted, a run has the rest of its time."""
    sent = 0

    def send(stage: str, done: int, total: int | None) -> None:
        nonlocal sent
        if stage.startswith("distilling: loss") and not sent:
            sent += 1
            signal.raise_signal(signal.SIGINT)

    student = pruned(teacher)
    first = distill(student, teacher, feeds(100), budget=2.0, resume=tmp_path, progress=send)
    again = distill(student, teacher, feeds(100), budget=2.0, resume=tmp_path)
    assert first.interrupted and not again.interrupted
    assert 0 < first.steps < again.steps


def test_progress_tells_loss_metric_and_time_left(teacher: ir.Model) -> None:
    told: list[tuple[str, int, int | None]] = []
    short(pruned(teacher), teacher, 4, progress=lambda *what: told.append(what))
    stages = [stage for stage, done, total in told if (done, total) == (3, 4)]
    assert any(
        stage.startswith("distilling: loss ") and ", best top1 of scores 0." in stage and stage.endswith(" left")
        for stage in stages
    )


def test_the_same_run_gives_the_same_model(teacher: ir.Model) -> None:
    one, other, third = (short(pruned(teacher), teacher, 6, seed=seed) for seed in (0, 0, 1))
    assert_same(one.model, other.model)
    assert without_times(one) == without_times(other) != without_times(third)


@pytest.mark.parametrize(
    "stop_at", [pytest.param(1, marks=pytest.mark.slow), 7, pytest.param(10, marks=pytest.mark.slow)]
)
def test_a_run_that_was_cut_off_ends_where_it_would_have(teacher: ir.Model, tmp_path: Path, stop_at: int) -> None:
    """The data fails in the middle of a run: between two checkpoints, or right after one."""
    student, calls = pruned(teacher), 0

    def cut_off(outputs: Any, feed: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == stop_at + 1:
            raise RuntimeError("killed")
        return outputs["scores"].sum() * 0

    whole = short(student, teacher, 15, evaluations=4, task_loss=lambda outputs, feed: outputs["scores"].sum() * 0)
    options: dict[str, Any] = {"evaluations": 4, "resume": tmp_path, "task_loss": cut_off, "checkpoint_seconds": 0.0}
    with pytest.raises(RuntimeError, match="killed"):
        short(student, teacher, 15, **options)
    found = short(student, teacher, 15, **options)
    assert_same(found.model, whole.model)
    assert without_times(found) == without_times(whole)
    assert (found.start, found.score, found.best_step) == (whole.start, whole.score, whole.best_step)
    assert [path.name for path in tmp_path.iterdir()] == ["distillation.pt"]
    # Once more: it is over, and nothing is trained.
    calls = -10000
    again = short(student, teacher, 15, **options)
    assert calls == -10000 and again.steps == 15
    assert_same(again.model, whole.model)


def test_a_folder_of_another_run_is_refused(teacher: ir.Model, tmp_path: Path) -> None:
    short(pruned(teacher), teacher, 2, resume=tmp_path)
    for options in ({"seed": 1}, {"temperature": 2.0}, {"data": feeds(301)[1:]}):
        with pytest.raises(CompressError, match="holds a run of another student, teacher, data or options"):
            short(pruned(teacher), teacher, 2, resume=tmp_path, **options)
    (tmp_path / "distillation.pt").write_bytes(b"damaged")
    with pytest.raises(CompressError, match=r"distillation\.pt cannot be read; give an empty folder"):
        short(pruned(teacher), teacher, 2, resume=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(CompressError, match="cannot be made"):
        short(pruned(teacher), teacher, 2, resume=tmp_path / "file")


FACTORY = """
import torch
class Student(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(1, 8, 3, 2, 1), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Flatten(),
            torch.nn.Linear(128, 10),
        )
    def forward(self, image):
        return self.body(image)
"""


def test_a_torch_module_as_student(teacher: ir.Model, tmp_path: Path) -> None:
    (tmp_path / "student.py").write_text(FACTORY)
    found = distill(f"{tmp_path}/student.py:Student", teacher, feeds(400), steps=120, learning_rate=1e-2)
    assert found.start is not None and found.start < 0.4
    assert accuracy(found.model) > 0.6
    assert [str(d) for d in found.model.graph.inputs[0].shape or ()][1:] == ["1", "8", "8"]
    with pytest.raises(ModelError, match="needs a teacher"):
        distill(f"{tmp_path}/student.py:Student", None, feeds(20), task_loss=lambda o, f: o, evaluate=lambda run: 0.0)


def test_errors(teacher: ir.Model, tmp_path: Path) -> None:
    student = pruned(teacher)
    with pytest.raises(ValueError, match="distill needs a teacher, or a task_loss"):
        short(student, None)
    with pytest.raises(ValueError, match="without a teacher, evaluate must say"):
        short(student, None, task_loss=lambda outputs, feed: outputs["scores"].sum())
    with pytest.raises(DataError, match="no feeds to train on"):
        short(student, teacher, data=[])
    with pytest.raises(EvaluationError, match="evaluate gave None"):
        short(student, teacher, evaluate=_none)
    with pytest.raises(ModelError, match="no such file"):
        distill(tmp_path / "none.onnx", teacher, feeds(20), steps=1)
    plain = graph("(float[N, 1, 8, 8] image) => (float[N, 1, 8, 8] scores)", "scores = Relu (image)")
    with pytest.raises(ModelError, match="the student has no weights that could be trained"):
        short(plain, plain)
    with pytest.raises(ModelError, match=r"output scores is \(1, 1, 8, 8\) of the student and \(1, 10\)"):
        short(
            graph("(float[N, 1, 8, 8] image) => (float[N, 1, 8, 8] scores)", "scores = Mul (image, w)", w=(8,)), teacher
        )


def _none(run: Any) -> Any:
    return None


_none.__name__ = "evaluate"


def test_few_feeds_train_and_measure(teacher: ir.Model) -> None:
    found = short(pruned(teacher), teacher, 2, data=feeds(10))
    assert "only 10 feeds: the same ones are used to train and to measure" in found.notes


def test_paths_and_data_that_is_drawn_anew(teacher: ir.Model, tmp_path: Path) -> None:
    """Models as paths, data from a function that augments: every pass calls it again."""
    passes = itertools.count()
    counted: list[int] = []

    def augmented() -> Iterator[dict[str, Array]]:
        counted.append(next(passes))
        rng = np.random.default_rng(counted[-1] if len(counted) > 99 else 0)
        for image in digits()[0][:60]:
            yield {"image": np.roll(image, int(rng.integers(2)), -1)[None]}

    for name, model in (("s", pruned(teacher)), ("t", teacher)):
        save_model(model, tmp_path / f"{name}.onnx")
    found = distill(tmp_path / "s.onnx", str(tmp_path / "t.onnx"), augmented, steps=6, batch=16)
    assert found.steps == 6
    assert len(counted) >= 4


def test_minilm_with_half_its_layers(zoo: Callable[[str], ZooModel]) -> None:
    """A few steps on real text of many lengths bring the embeddings nearer to the teacher's."""
    data = zoo("minilm").feeds(64)[1::2]  # single sentences
    found = distill(
        zoo("minilm").path(), zoo("minilm").path(), data, steps=6, batch=4, drop_layers=[1, 3, 5], evaluations=1,
        learning_rate=3e-4,
    )  # fmt: skip
    assert found.metric == "cosine of sentence_embedding"
    assert found.start is not None and found.score is not None and found.score > found.start + 0.01
    assert any(line.split()[0] == "similarity" for line in found.terms)
    assert any("embeddings.word_embeddings.weight" in note for note in found.notes)
    layers = sum(node.op_type == "Softmax" for node in found.model.graph)
    assert layers == 3
