"""`reconstruct`: parts of a student fitted one after another."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from onnxcompress.distillation.rounding import SoftRounding, find_rounded, with_float_weights
from onnxcompress.distillation.units import Unit, find_units
from onnxcompress.distiller import reconstruct
from onnxcompress.errors import ModelError
from onnxcompress.runtime.session import open_session
from onnxcompress.torch import OnnxModule
from tests.distillation.graphs import graph, outputs_of, post_norm_encoder
from tests.distillation.networks import accuracy, digits, feeds, pruned, untrained, weight_of
from tests.models import with_initializers

Array = np.ndarray[Any, Any]


def noise(student: ir.Model, teacher: ir.Model) -> float:
    """Squared error of the scores over their power, on digits that nothing was fitted to."""
    images = {"image": digits()[0][1400:]}
    one, other = (np.asarray(open_session(model).run(None, images)[0]) for model in (student, teacher))
    return float(((one - other) ** 2).sum() / (other**2).sum())


@pytest.mark.parametrize("granularity", ["block", "layer"])
def test_a_pruned_student_comes_nearer(granularity: Any, teacher: ir.Model) -> None:
    student = pruned(teacher, 0.7)
    found = reconstruct(student, teacher, feeds(512), granularity=granularity, steps=60)
    ends = ["r", "s", "t", "scores"] if granularity == "block" else ["a", "b", "c", "scores"]
    assert [unit.name for unit in found.units] == [unit.target for unit in found.units] == ends
    assert found.units[0].before == found.units[0].after == 0 == found.units[0].weights  # it was not pruned
    assert all(unit.after < 0.9 * unit.before and unit.weights == 2 for unit in found.units[1:])
    assert noise(found.model, teacher) < 0.6 * noise(student, teacher)
    for name in ("w2", "w3", "w4"):
        np.testing.assert_array_equal(weight_of(found.model, name) == 0, weight_of(student, name) == 0)
    np.testing.assert_array_equal(weight_of(found.model, "w1"), weight_of(student, "w1"))


def test_a_unit_that_would_get_worse_stays_as_it_was(teacher: ir.Model) -> None:
    student = pruned(teacher, 0.3)
    found = reconstruct(student, teacher, feeds(64), steps=3, learning_rate=10.0)
    assert all(unit.after == unit.before for unit in found.units)
    np.testing.assert_array_equal(weight_of(found.model, "w3"), weight_of(student, "w3"))


def test_a_linear_layer_reaches_least_squares(teacher: ir.Model) -> None:
    """One layer with a mask: the best weights are known exactly."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(256, 6)) @ rng.normal(size=(6, 6))).astype(np.float32)
    wanted = graph("(float[N, 6] x) => (float[N, 4] y)", "[fc] y = MatMul (x, w)", w=(6, 4))
    student = wanted.clone()
    mask = rng.random((6, 4)) < 0.6
    weight = weight_of(wanted, "w")
    student.graph.initializers["w"].const_value = ir.tensor(weight * mask, name="w")
    found = reconstruct(student, wanted, [{"x": row[None]} for row in x], steps=800, batch=256, learning_rate=3e-3)
    y = x @ weight
    best = sum(np.linalg.lstsq(x[:, mask[:, j]], y[:, j], rcond=None)[1].sum() for j in range(4)) / (y**2).sum()
    assert found.units[0].after == pytest.approx(best, rel=0.02)
    assert found.units[0].before > 1.5 * best


def test_units_read_what_earlier_ones_give() -> None:
    model = post_norm_encoder(3)
    shapes = {"h1": (1, 5, 8), "h2": (1, 5, 8), "h3": (1, 5, 8), "y": (1, 8)}
    units = find_units(model, model.clone(), "block", shapes, shapes)
    assert units == [
        Unit("h1", "h1", ("x",)), Unit("h2", "h2", ("h1",)), Unit("h3", "h3", ("h2",)), Unit("y", "y", ("h3",)),
    ]  # fmt: skip
    cut = units[1].cut(model)
    x = np.random.default_rng(0).normal(size=(2, 5, 8)).astype(np.float32)
    inner = OnnxModule(model).values({"x": x}, ["h1", "h2"])
    np.testing.assert_allclose(
        outputs_of(cut, h1=inner["h1"].detach().numpy())["h2"], inner["h2"].detach().numpy(), atol=1e-5
    )


def test_values_of_other_shapes_end_no_unit() -> None:
    model = post_norm_encoder(3)
    own = {"h1": (1, 5, 8), "h2": (1, 5, 8), "h3": (1, 5, 8), "y": (1, 8)}
    units = find_units(model, model.clone(), "block", own, own | {"h2": (1, 5, 9)})
    assert [(unit.end, unit.starts) for unit in units] == [("h1", ("x",)), ("h3", ("h1",)), ("y", ("h3",))]
    with pytest.raises(ModelError, match="no values of the same shape that units could end at"):
        find_units(model, model.clone(), "block", own, {})


def rounded_model(levels: float = 3.0) -> tuple[ir.Model, ir.Model, list[dict[str, Array]]]:
    """A float MatMul, the same with coarse integers rounded to the nearest, and correlated data."""
    rng = np.random.default_rng(3)
    signature = "(float[N, 16] x) => (float[N, 8] y)"
    teacher = graph(signature, "[fc] y = MatMul (x, w)", w=(16, 8))
    weight = weight_of(teacher, "w")
    scale = (np.abs(weight).max(0) / levels).astype(np.float32)
    student = graph(signature, "v = DequantizeLinear <axis = 1> (q, s) [fc] y = MatMul (x, v)")
    student = with_initializers(student, {"q": np.rint(weight / scale).astype(np.int8), "s": scale})
    x = (rng.normal(size=(400, 3)) @ rng.normal(size=(3, 16)) + 0.1 * rng.normal(size=(400, 16))).astype(np.float32)
    return teacher, student, [{"x": row[None]} for row in x]


def test_learned_rounding_beats_rounding_to_the_nearest() -> None:
    teacher, student, data = rounded_model()
    found = reconstruct(student, teacher, data[:300], steps=400, batch=64, rounding=True)
    (unit,) = found.units
    assert unit.after < 0.4 * unit.before
    before, after = weight_of(student, "q"), weight_of(found.model, "q")
    assert after.dtype == np.int8
    ratio = weight_of(teacher, "w") / weight_of(student, "s")
    # Up or down, nothing else; and some are not the nearest.
    assert ((after == np.floor(ratio)) | (after == np.ceil(ratio))).all() and (after != before).any()
    x = np.concatenate([feed["x"] for feed in data[300:]])
    wanted, old, new = (outputs_of(model, x=x)["y"] for model in (teacher, student, found.model))
    assert ((new - wanted) ** 2).sum() < 0.5 * ((old - wanted) ** 2).sum()


def test_integers_that_stand_for_another_weight_are_trained_as_they_are() -> None:
    """A smoothed or equalized weight is not the teacher's: which way it was rounded is not known."""
    teacher, student, data = rounded_model()
    assert [rounded.name for rounded in find_rounded(student, teacher)] == ["q"]
    student.graph.initializers["q"].const_value = ir.tensor(weight_of(student, "q")[::-1].copy(), name="q")
    assert find_rounded(student, teacher) == []
    found = reconstruct(student, teacher, data, steps=40, batch=64, rounding=True, learning_rate=0.05)
    assert found.units[0].after < found.units[0].before


def test_soft_rounding_starts_at_the_weight_and_ends_on_the_grid() -> None:
    teacher, student, _ = rounded_model()
    (rounded,) = find_rounded(student, teacher)
    soft = SoftRounding(rounded)
    fraction = (rounded.target / rounded.scale) % 1
    inner = (fraction > 0.01) & (fraction < 0.99)
    torch.testing.assert_close(soft(rounded.target)[inner], rounded.target[inner], atol=1e-5, rtol=0)
    assert 0.9 < soft.undecided(0.0).item() <= 1
    with torch.no_grad():
        soft.choice.copy_(torch.where(fraction > 0.5, 10.0, -10.0))
    assert soft.undecided(1.0).item() == pytest.approx(0)
    nearest = torch.round(rounded.target / rounded.scale) * rounded.scale
    torch.testing.assert_close(soft(rounded.target), nearest)
    torch.testing.assert_close(soft.decided(), nearest)


def test_float_weights_take_the_place_of_integers() -> None:
    teacher, student, data = rounded_model()
    x = np.concatenate([feed["x"] for feed in data[:4]])
    model = with_float_weights(student, find_rounded(student, teacher))
    assert [node.op_type for node in model.graph] == ["MatMul"]
    assert "q" in student.graph.initializers and student.graph.initializers["q"].dtype == ir.DataType.INT8
    np.testing.assert_allclose(outputs_of(model, x=x)["y"], outputs_of(teacher, x=x)["y"], rtol=1e-6)


def test_nothing_in_common() -> None:
    with pytest.raises(ModelError, match=r"one must take all inputs of the other"):
        reconstruct(untrained(), post_norm_encoder(2), feeds(4), steps=1)


def test_scores_after_reconstruction_help_distillation(teacher: ir.Model) -> None:
    student = pruned(teacher, 0.8)
    found = reconstruct(student, teacher, feeds(512), steps=60)
    assert accuracy(found.model) > accuracy(student)
