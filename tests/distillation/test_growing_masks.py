"""Pruning while training: `distill` with a pattern."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from onnxcompress.data import open_data
from onnxcompress.distillation.masks import Gradual
from onnxcompress.distiller import Distilled, distill
from onnxcompress.errors import CompressError, ModelError
from onnxcompress.passes.prune import find_layers, grid_of, layer_nodes, sparsity_at, to_matrix
from onnxcompress.passes.prune.patterns import follows
from onnxcompress.pruning.gradual import GrowingMasks, Schedule
from onnxcompress.torch import OnnxModule
from tests.distillation.graphs import graph
from tests.distillation.networks import accuracy, cut_off_at, feeds, no_loss, weight_of

Array = np.ndarray[Any, Any]


def short(student: ir.Model, teacher: ir.Model, steps: int = 20, **options: Any) -> Distilled:
    """A run on 300 digits."""
    return distill(student, teacher, feeds(300), steps=steps, **options)


def matrices(model: ir.Model) -> dict[str, Array]:
    """Weights of layers that take 1 x 4 blocks, as [N, K]."""
    layers = [layer for layer in find_layers(model)[0] if layer.outputs * layer.inputs >= 1024]
    return {layer.weight: to_matrix(weight_of(model, layer.weight), node) for layer, node in layer_nodes(model, layers)}


@pytest.mark.parametrize(("pattern", "sparsity", "share"), [("block1x4", 0.6, 0.6), ("2:4", None, 0.5)])
def test_weights_end_in_the_pattern_and_accuracy_stays(
    teacher: ir.Model, pattern: Any, sparsity: float | None, share: float
) -> None:
    found = distill(teacher, teacher, feeds(), steps=100, pattern=pattern, sparsity=sparsity)
    pruned = matrices(found.model)
    assert len(pruned) == 3
    for weight in pruned.values():
        assert follows(weight != 0, grid_of(pattern))
        assert np.mean(weight == 0) == pytest.approx(share, abs=0.01)
    assert accuracy(found.model) > accuracy(teacher) - 0.03
    assert found.best_step > Schedule(pattern, sparsity, 100).until
    scored = [entry["step"] for entry in found.history if entry["score"] is not None]
    assert scored == [70, 80, 90, 100]


@pytest.mark.parametrize("pattern", ["unstructured", "block4x4", "2:4"])
def test_masks_grow_by_the_schedule_and_what_went_stays_away(teacher: ir.Model, pattern: Any) -> None:
    schedule = Schedule(pattern, None if pattern == "2:4" else 0.7, 50)
    final = 0.5 if pattern == "2:4" else 0.7
    masks_at = GrowingMasks(teacher, open_data(feeds(20), teacher), schedule)
    module, rng = OnnxModule(teacher), np.random.default_rng(0)

    def weight(name: str) -> Array:
        array: Array = module.weight(name).detach().numpy()
        return array

    before: dict[str, Array] = {}
    for step in range(schedule.until + 1):
        masks = masks_at(step, weight)
        assert masks is not None  # fewer steps than there are renewals
        for name, mask in masks.items():
            module.set_mask(name, torch.from_numpy(mask))
            padding = 0.1 if name == "w4" else 0.01  # blocks of 10 outputs reach beyond them
            assert 1 - mask.mean() == pytest.approx(sparsity_at(step, schedule.until, final), abs=padding)
            assert not np.any(mask & ~before.get(name, mask))
        before = masks
        for name in masks:  # training moves weights about
            parameter = module.parameter_of(name)
            with torch.no_grad():
                parameter += torch.from_numpy(rng.normal(0, 0.05, parameter.shape).astype(np.float32))
    assert masks_at(schedule.until + 1, weight) is None


def test_the_weights_of_least_effect_go_first() -> None:
    """Of two equal halves of a weight, the one that reads a tenth as much."""
    model = graph("(float[N, 64] x) => (float[N, 32] y)", "y = MatMul (x, w)", 0, w=(64, 32))
    rng = np.random.default_rng(1)
    quiet = np.where(np.arange(64) < 32, np.float32(0.1), np.float32(1))
    data = open_data([{"x": rng.normal(size=(1, 64)).astype(np.float32) * quiet} for _ in range(64)], model)
    masks = GrowingMasks(model, data, Schedule("unstructured", 0.4, 10))(6, lambda name: weight_of(model, name))
    assert masks is not None
    assert masks["w"][:32].mean() < 0.3 and masks["w"][32:].mean() > 0.9


def test_a_run_that_was_cut_off_ends_where_it_would_have(teacher: ir.Model, tmp_path: Path) -> None:
    pruning: dict[str, Any] = {"pattern": "block4x4", "sparsity": 0.5, "evaluations": 4}
    whole = short(teacher, teacher, 15, task_loss=no_loss, **pruning)
    options = {**pruning, "resume": tmp_path, "task_loss": cut_off_at(8), "checkpoint_seconds": 0.0}
    with pytest.raises(RuntimeError, match="killed"):
        short(teacher, teacher, 15, **options)
    found = short(teacher, teacher, 15, **options)
    for name in whole.model.graph.initializers:
        np.testing.assert_array_equal(weight_of(found.model, name), weight_of(whole.model, name), err_msg=name)
    with pytest.raises(CompressError, match="holds a run of another student"):
        short(teacher, teacher, 15, **{**options, "sparsity": 0.6})


def test_an_end_before_the_last_masks_gives_no_model(teacher: ir.Model) -> None:
    """The student as it came is not pruned, so it is no result."""

    def stop(stage: str, done: int, total: int | None) -> None:
        if stage.startswith("distilling") and done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        short(teacher, teacher, 20, pattern="2:4", progress=stop)
    with pytest.raises(CompressError, match="before all of the model was pruned: the loss is not a number"):
        short(teacher, teacher, 20, pattern="2:4", task_loss=lambda outputs, feed: outputs["scores"].sum() * np.nan)


def test_what_does_not_go_together_is_refused(teacher: ir.Model) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"pattern": "block4x4", "sparsity": 0.5, "steps": None, "budget": 2.0}, "needs steps"),
        ({"pattern": "block4x4"}, "needs a sparsity"),
        ({"pattern": "2:4", "sparsity": 0.7}, "has a sparsity of 0.5"),
        ({"pattern": "channels", "sparsity": 0.5}, "prune them first"),
        ({"sparsity": 0.5}, "needs a pattern"),
        ({"pattern": "2:4", "steps": 1}, "takes more than 1 steps"),
        ({"pattern": "2:4", "gradual": Gradual(lambda step, weight: None, 3)}, "not both"),
    ]
    for options, message in wrong:
        with pytest.raises(ValueError, match=message):
            distill(teacher, teacher, feeds(20), **{"steps": 20, **options})
    small = graph("(float[N, 8] x) => (float[N, 4] y)", "y = MatMul (x, w)", 0, w=(8, 4))
    data = [{"x": np.ones((1, 8), np.float32)}]
    with pytest.raises(ModelError, match="no layer of the student takes the pattern 2:4"):
        distill(small, small, data, steps=10, pattern="2:4", metric="snr")
