"""The terms of the loss that fit a pair of graphs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import pytest
import torch

from onnxcompress.distillation.objective import Objective, Part, padding_mask
from onnxcompress.distillation.plan import DEFAULTS, Plan, Term, make_plan, wanted_values
from onnxcompress.errors import ModelError
from onnxcompress.torch import OnnxModule
from tests.distillation.graphs import graph, post_norm_encoder
from tests.distillation.networks import digits, untrained
from tests.models import with_initializers

IMAGES = digits()[0][:2]


def plan_of(
    student: ir.Model,
    teacher: ir.Model,
    losses: Mapping[str, float],
    **feed: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
) -> Plan:
    values = []
    for model in (student, teacher):
        found = OnnxModule(model).values(feed, wanted_values(model))
        values.append({name: tensor.detach().numpy() for name, tensor in found.items()})
    return make_plan(student, teacher, losses, *values)


def test_a_classifier() -> None:
    found = plan_of(untrained(), untrained(1), {}, image=IMAGES)
    hidden = [Term("hidden", name, name, 1 / 3) for name in ("r", "s", "t")]
    assert found == Plan((Term("kl", "scores", "scores"), *hidden), (), frozenset({"classes"}))
    assert str(found.terms[0]).split() == ["kl", "x", "1", "scores"]


def test_an_encoder() -> None:
    x = np.random.default_rng(0).normal(size=(2, 5, 8)).astype(np.float32)
    found = plan_of(post_norm_encoder(2, 1), post_norm_encoder(4), {}, x=x)
    assert [(t.loss, t.student, t.teacher, t.weight) for t in found.terms] == [
        ("cosine", "y", "y", 2.0), ("similarity", "y", "y", 5.0),
        ("hidden", "h1", "h2", 0.5), ("hidden", "h2", "h4", 0.5),
    ]  # fmt: skip


def test_losses_that_are_asked_for() -> None:
    found = plan_of(untrained(), untrained(1), {"mse": 2.0, "cosine": 1.0}, image=IMAGES)
    # No output is a map or an embedding: the losses are taken of the output that there is.
    assert found.terms == (Term("mse", "scores", "scores", 2.0), Term("cosine", "scores", "scores"))
    plain = graph("(float[N, 4] x) => (float[N, 4] y)", "y = Gemm (x, w)", w=(4, 4))
    with pytest.raises(ModelError, match="no inner values of student and teacher match"):
        plan_of(plain, plain, {"hidden": 1.0}, x=np.ones((1, 4), np.float32))


def loss_of(objective: Objective, *parts: Part) -> tuple[torch.Tensor, dict[str, float]]:
    """Of a batch."""
    return objective(parts, objective.whole([part.feed for part in parts], [part.teacher for part in parts]))


def test_logits_against_probabilities() -> None:
    """The student ends in a Softmax in parts, the teacher in one: its logits are compared with logarithms."""
    signature = "(float[N, 4] x) => (float[N, 6] y)"
    teacher = graph(signature, "l = Gemm (x, w, b) y = Softmax (l)", w=(4, 6), b=(6,))
    student = graph(signature, "l = Gemm (x, w, b) n = LogSoftmax (l) y = Exp (n)", w=(4, 6), b=(6,))
    (term,) = plan_of(student, teacher, {"kl": 1.0}, x=np.ones((2, 4), np.float32)).terms
    assert term == Term("kl", "y", "l", 1.0, -1, "probabilities", "logits")
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    part = Part({"x": x}, OnnxModule(student).values({"x": x}, ["y"]), OnnxModule(teacher).values({"x": x}, ["l"]))
    loss, told = loss_of(Objective((term,), 2.0), part)
    assert loss.item() == pytest.approx(0, abs=1e-6) == told["kl"]


def test_outputs_of_other_shapes_are_left_out() -> None:
    signature = "(float[N, 4] x) => (float[N, {0}] y, float[N, 4] z)"
    bodies = ("y = Gemm (x, w) z = Tanh (x)", "y = Gemm (x, w) z = Tanh (x)")
    student, teacher = (graph(signature.format(n), body, w=(4, n)) for n, body in zip((5, 6), bodies, strict=True))
    found = plan_of(student, teacher, {}, x=np.ones((2, 4), np.float32))
    assert {term.student for term in found.terms} == {"z"}
    assert "output y is (2, 5) of the student and (2, 6) of the teacher: left out" in found.notes


def test_nothing_to_compare() -> None:
    student, teacher = (graph(f"(float[N, 4] x) => (float[N, {n}] y)", "y = Gemm (x, w)", w=(4, n)) for n in (5, 6))
    with pytest.raises(ModelError, match="left out"):
        plan_of(student, teacher, {}, x=np.ones((2, 4), np.float32))


def test_the_defaults_are_of_every_kind() -> None:
    assert set(DEFAULTS) == {"classes", "binary", "embedding", "dense"}


def test_probabilities_of_their_own() -> None:
    """Of a Sigmoid the logits are compared; of one in parts the probabilities."""
    signature = "(float[N, 4] x) => (float[N, 6] y)"
    teacher = graph(signature, "l = Gemm (x, w) y = Sigmoid (l)", w=(4, 6))
    student = graph(signature, "l = Gemm (x, w) e = Tanh (l) h = Add (e, one) y = Mul (h, half)", w=(4, 6))
    student = with_initializers(student, {"one": np.ones(1, np.float32), "half": np.full(1, 0.5, np.float32)})
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    (term,) = plan_of(teacher, teacher, {"kl": 1.0}, x=x).terms
    assert term == Term("kl", "l", "l", 1.0, None)
    (term,) = plan_of(student, teacher, {"kl": 1.0}, x=x).terms
    assert term == Term("kl", "y", "y", 1.0, None, "probabilities", "probabilities")
    part = Part({"x": x}, OnnxModule(student).values({"x": x}, ["y"]), OnnxModule(teacher).values({"x": x}, ["y"]))
    assert loss_of(Objective((term,), 1.0), part)[0].item() > 1e-3


def test_parts_of_a_batch_count_by_their_rows() -> None:
    """A batch in two parts has the loss of the whole."""
    student, teacher = (torch.from_numpy(np.random.default_rng(i).normal(size=(6, 3))) for i in (0, 1))
    terms = [Term(loss, "y", "y") for loss in ("kl", "mse", "cosine", "similarity", "hidden")]
    objective = Objective(terms, 2.0)

    def part(rows: slice) -> Part:
        return Part({"x": student[rows].numpy()}, {"y": student[rows]}, {"y": teacher[rows]})

    whole, told = loss_of(objective, part(slice(0, 6)))
    halves, _ = loss_of(objective, part(slice(0, 2)), part(slice(2, 6)))
    assert float(whole) == pytest.approx(float(halves), rel=1e-9) == pytest.approx(sum(told.values()))


def test_parts_that_are_taken_one_by_one_add_up() -> None:
    student, teacher = (torch.from_numpy(np.random.default_rng(i).normal(size=(6, 3))) for i in (0, 1))
    terms = [Term(loss, "y", "y") for loss in ("kl", "mse", "cosine", "hidden")]
    objective = Objective(terms, 2.0, lambda outputs, feed: outputs["y"].square().mean(), ("y",))
    assert objective.is_separable and not Objective([Term("similarity", "y", "y")], 2.0).is_separable
    parts = [
        Part({"x": student[rows].numpy()}, {"y": student[rows]}, {"y": teacher[rows]})
        for rows in (slice(0, 1), slice(1, 3), slice(3, 6))
    ]
    together, told = loss_of(objective, *parts)
    whole = objective.whole([part.feed for part in parts], [part.teacher for part in parts])
    shares = [objective([part], whole) for part in parts]
    assert float(together) == pytest.approx(sum(float(share) for share, _ in shares), rel=1e-9)
    for name, value in told.items():
        assert value == pytest.approx(sum(values[name] for _, values in shares), rel=1e-9)


def test_a_task_loss_is_the_mean_over_rows() -> None:
    objective = Objective(
        (), 1.0, lambda outputs, feed: (outputs["y"] - torch.from_numpy(feed["label"])).mean(), ("y",)
    )
    parts = [
        Part({"x": np.zeros((n, 1)), "label": np.full((n, 1), n, np.float32)}, {"y": torch.zeros(n, 1)}, {})
        for n in (1, 3)
    ]
    loss, told = loss_of(objective, *parts)
    assert float(loss) == -(1 * 1 + 3 * 3) / 4 == told["task"]


def test_padding_is_told_by_an_input_of_that_name() -> None:
    mask = np.array([[1, 1, 0]])
    feed = {"ids": np.array([[5, 6, 0]]), "attention_mask": mask}
    found = padding_mask(feed, torch.zeros(1, 3, 4))
    assert found is not None and found.tolist() == [[True, True, False]]
    assert padding_mask(feed, torch.zeros(1, 4)) is None
    assert padding_mask(feed, torch.zeros(1, 2, 4)) is None
    assert padding_mask({"ids": mask}, torch.zeros(1, 3, 4)) is None
