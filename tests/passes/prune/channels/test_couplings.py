"""What is coupled is cut together, and the cut model is the masked one."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxcompress.passes.prune.channels import find_groups
from tests.passes.prune.channels.cases import NETWORKS
from tests.passes.prune.channels.networks import (
    TOLERANCE,
    Network,
    cut,
    execute,
    feed_of,
    masked,
    parameters,
    random_keep,
    relative,
)

EACH = pytest.mark.parametrize("network", NETWORKS.values(), ids=list(NETWORKS))


@EACH
def test_groups_are_those_expected(network: Network) -> None:
    groups, _ = find_groups(network.model(), widths=network.widths)
    assert {group.name: (group.kind, group.size, group.unit) for group in groups} == dict(network.groups)


@EACH
@pytest.mark.parametrize("seed", range(3))
def test_a_cut_model_equals_the_masked_one(network: Network, seed: int) -> None:
    model = network.model(seed)
    groups, _ = find_groups(model, widths=network.widths)
    keep = random_keep(groups, seed)
    keep[groups[0].name] = keep[groups[0].name][: groups[0].size - 1]  # something goes in any case
    result, feed = cut(model, keep, widths=network.widths), feed_of(model, seed=seed)
    assert parameters(result) < parameters(model)
    (expected,) = execute(masked(model, groups, keep), feed)
    (actual,) = execute(result, feed)
    assert relative(actual, expected) < TOLERANCE
    # The mask does something: the reference is not the model as it was.
    assert relative(execute(model, feed)[0], expected) > 1e-3


@EACH
def test_what_is_cut_can_be_cut_again(network: Network) -> None:
    """The result is a model like any other: the same groups, smaller, and shapes that are true."""
    model = network.model()
    groups, _ = find_groups(model)
    keep = {group.name: range(group.size - 1) for group in groups}
    result = cut(model, keep)
    again, _ = find_groups(result)
    # One unit that is left is no group any more, and then the numbers of the node's other groups shift.
    assert [group.size for group in again] == [group.size - 1 for group in groups if group.size > 2]
    second = {group.name: range(group.size - 1) for group in again}
    if second:
        expected = execute(masked(result, again, second), feed_of(model))
        assert relative(execute(cut(result, second), feed_of(model))[0], expected[0]) < TOLERANCE


def test_the_weights_that_stay_are_those_asked_for() -> None:
    """An independent look: the arrays of the result are the slices that a person would take."""
    model = NETWORKS["residual"].model()
    before = {name: value.const_value.numpy() for name, value in model.graph.initializers.items() if value.const_value}
    result = cut(model, {"c1": [0, 3, 7], "c2": [1, 2]})
    after = {name: value.const_value.numpy() for name, value in result.graph.initializers.items() if value.const_value}
    one, two = [0, 3, 7], [1, 2]
    expected = {
        "w1": before["w1"][one], "b1": before["b1"][one], "w2": before["w2"][two][:, one],
        "w3": before["w3"][one][:, two], "w4": before["w4"][:, one],
    }  # fmt: skip
    assert set(after) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(after[name], array)


@pytest.mark.parametrize("sizes", [{"B": 1, "S": 3}, {"B": 3, "S": 1}, {"B": 2, "S": 7}])
@pytest.mark.parametrize("name", ["heads", "packed heads, shapes computed"])
def test_open_dimensions_stay_open(name: str, sizes: dict[str, int]) -> None:
    model = NETWORKS[name].model()
    groups, _ = find_groups(model)
    keep = {groups[0].name: [1, 2]}
    feed = feed_of(model, sizes=sizes)
    actual, expected = execute(cut(model, keep), feed)[0], execute(masked(model, groups, keep), feed)[0]
    assert relative(actual, expected) < TOLERANCE


def test_recorded_shapes_are_those_of_the_result() -> None:
    network = NETWORKS["split"]
    model = network.model()
    next(node for node in model.graph if node.name == "c1").outputs[0].shape = ir.Shape(["N", 14, 6, 6])
    model.graph.node("c1").outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    result = cut(model, {"c1": [0], "c1#2": [0, 1]})
    shape = result.graph.node("c1").outputs[0].shape
    assert shape is not None and shape[1] == 5
    # What was not recorded is not recorded now.
    assert result.graph.node("c2").outputs[0].shape is None
