"""Which units go: saliency of groups, costs, the greedy choice and its rounding."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxcompress import inspect
from onnxcompress.passes.prune.channels import choose_units, explain, find_groups, rounding, unit_saliency
from onnxcompress.passes.prune.channels.costs import cost_terms, total_macs
from onnxcompress.passes.prune.channels.groups import Group, trace_groups
from tests.passes.prune.channels.cases import NETWORKS
from tests.passes.prune.channels.networks import Array, Network, build, cut, feed_of, random_keep

WIDE = """(float[N, 3, 16, 16] x) => (float[N, M, H, W] y) {
    [c1] a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
    r = Relu (a)
    [c2] b = Conv <pads = [1, 1, 1, 1]> (r, w2)
    s = Relu (b)
    [c3] y = Conv (s, w3)
}"""
WIDTHS = {"w1": (64, 3, 3, 3), "b1": (64,), "w2": (32, 64, 3, 3), "w3": (8, 32, 1, 1)}


def magnitudes(model: ir.Model) -> dict[str, Array]:
    return {
        name: np.abs(value.const_value.numpy())
        for name, value in model.graph.initializers.items()
        if value.const_value is not None and value.dtype == ir.DataType.FLOAT
    }


def scores_of(model: ir.Model) -> dict[str, Array]:
    return {group.name: unit_saliency(group, magnitudes(model)) for group in find_groups(model)[0]}


def test_a_units_saliency_is_that_of_what_makes_and_reads_it() -> None:
    model = build(WIDE, WIDTHS)
    saliency = magnitudes(model)
    first, second = find_groups(model)[0]
    expected = saliency["w1"].sum((1, 2, 3)) + saliency["b1"] + saliency["w2"].sum((0, 2, 3))
    np.testing.assert_allclose(unit_saliency(first, saliency), expected, rtol=1e-5)
    del saliency["w3"]
    np.testing.assert_allclose(unit_saliency(second, saliency), saliency["w2"].sum((1, 2, 3)), rtol=1e-5)


def test_a_heads_saliency_is_that_of_its_four_projections() -> None:
    model = NETWORKS["heads"].model()
    saliency = magnitudes(model)
    (group,) = find_groups(model)[0]
    made = saliency["wq"].sum(0) + saliency["bq"] + saliency["wk"].sum(0)
    expected = made.reshape(4, 3).sum(1) + saliency["wv"].sum(0).reshape(4, 5).sum(1)
    expected = expected + saliency["wo"].sum(1).reshape(4, 5).sum(1)
    np.testing.assert_allclose(unit_saliency(group, saliency), expected, rtol=1e-5)


def test_a_saliency_of_another_shape_is_an_error() -> None:
    model = build(WIDE, WIDTHS)
    with pytest.raises(ValueError, match="the saliency of 'w1' has shape"):
        unit_saliency(find_groups(model)[0][0], {"w1": np.ones((63, 3, 3, 3))})


# `inspect` knows no shape behind a GroupNormalization.
COUNTED = {name: network for name, network in NETWORKS.items() if "GroupNormalization" not in network.text}


@pytest.mark.parametrize("network", COUNTED.values(), ids=list(COUNTED))
def test_counted_costs_are_those_of_the_cut_model(network: Network) -> None:
    """Against `inspect`, which counts from the shapes of the result."""
    model = network.model()
    groups, _ = find_groups(model)
    keep = random_keep(groups, 3)
    shapes = {name: list(array.shape) for name, array in feed_of(model).items()}
    traced = trace_groups(model)
    terms = cost_terms(model, traced.trace, shapes)
    counts = {traced.leaf_of(name): len(units) for name, units in keep.items()}
    assert total_macs(terms, {}) == inspect(model, shapes=shapes).macs
    assert total_macs(terms, counts) == pytest.approx(inspect(cut(model, keep), shapes=shapes).macs, rel=1e-9)


def test_recurrent_layers_count_though_they_are_never_cut() -> None:
    text = """(float[S, N, 8] x) => (float[S, N, K] y) {
        [lstm] b = LSTM <hidden_size = 5> (x, w, r)
        c = Squeeze (b, one)
        [up] d = MatMul (c, w1)
        [down] y = MatMul (d, w2)
    }"""
    weights = {"w": (1, 20, 8), "r": (1, 20, 5), "w1": (5, 16), "w2": (16, 8)}
    model = build(text, weights, {"one": [1]})
    terms = cost_terms(model, trace_groups(model).trace, {"x": [7, 2, 8]})
    assert total_macs(terms, {}) == inspect(model, shapes={"x": [7, 2, 8]}).macs == 14 * (20 * 13 + 5 * 16 + 16 * 8)
    # Open dimensions: the first is one, the others are sequences.
    assert total_macs(cost_terms(model, trace_groups(model).trace), {}) == 128 * (20 * 13 + 5 * 16 + 16 * 8)


@pytest.mark.parametrize("share", [0.9, 0.7, 0.5, 0.2])
def test_the_share_is_reached_and_not_overshot(share: float) -> None:
    model = build(WIDE, WIDTHS)
    groups, _ = find_groups(model)
    keep = choose_units(model, groups, scores_of(model), share)
    shapes = {"x": [1, 3, 16, 16]}
    before, after = inspect(model, shapes=shapes).macs, inspect(cut(model, keep), shapes=shapes).macs
    assert before is not None and after is not None
    # One step more or less: 16 of 64 channels, 8 of 32.
    assert share - 0.25 < after / before <= share
    assert all(len(units) % rounding(g) == 0 for g in groups for units in [keep.get(g.name, range(g.size))])


def test_the_least_units_go() -> None:
    model = build(WIDE, WIDTHS)
    groups, _ = find_groups(model)
    scores = scores_of(model)
    keep = choose_units(model, groups, scores, 0.5)
    for name, units in keep.items():
        gone = np.setdiff1d(np.arange(len(scores[name])), units)
        assert scores[name][gone].max() <= scores[name][list(units)].min()


@pytest.mark.parametrize("seed", range(4))
def test_the_choice_is_the_greedy_one(seed: int) -> None:
    """Against the formula of this network, with every price computed anew at every step."""
    model = build(WIDE, WIDTHS)
    rng = np.random.default_rng(seed)
    scores = {"c1": rng.exponential(1, 64), "c2": rng.exponential(1, 32)}

    def macs(first: int, second: int) -> int:
        return 256 * (27 * first + 9 * first * second + 8 * second)

    order = {name: np.sort(array) for name, array in scores.items()}
    scale = {name: macs(64, 32) - macs(*((0, 32) if name == "c1" else (64, 0))) for name in order}
    order = {name: array / array.sum() * scale[name] for name, array in order.items()}
    first, second = 64, 32
    while macs(first, second) > 0.4 * macs(64, 32):
        lost = order["c1"][64 - first : 80 - first].sum(), order["c2"][32 - second : 40 - second].sum()
        saved = macs(first, second) - macs(first - 16, second), macs(first, second) - macs(first, second - 8)
        if second == 8 or (first > 16 and lost[0] / saved[0] < lost[1] / saved[1]):
            first -= 16
        else:
            second -= 8
    keep = choose_units(model, find_groups(model)[0], scores, 0.4)
    assert (len(keep.get("c1", range(64))), len(keep.get("c2", range(32)))) == (first, second)


def test_a_group_with_useless_units_pays_first() -> None:
    model = build(WIDE, WIDTHS)
    groups, _ = find_groups(model)
    scores = {"c1": np.ones(64), "c2": np.array([1.0] * 16 + [0.0] * 16)}
    keep = choose_units(model, groups, scores, 0.6)
    assert keep == {"c2": tuple(range(16))}


def test_scores_that_compare_are_taken_as_they_are() -> None:
    """A group whose loss is smaller throughout goes first, though normalizing would make both alike."""
    model = build(WIDE, WIDTHS)
    groups, _ = find_groups(model)
    scores = {"c1": np.full(64, 1e-3), "c2": np.full(32, 1e3)}
    assert set(choose_units(model, groups, scores, 0.6, normalize=False)) == {"c1"}
    scores = {"c1": np.full(64, 1e3), "c2": np.full(32, 1e-3)}
    assert set(choose_units(model, groups, scores, 0.6, normalize=False)) == {"c2"}


def test_multiples_and_minimum_can_be_given() -> None:
    model = build(WIDE, WIDTHS)
    groups, _ = find_groups(model)
    keep = choose_units(model, groups, scores_of(model), 0.35, multiple=1, minimum=0.5)
    assert all(len(units) >= group.size / 2 for group in groups for units in [keep.get(group.name, range(group.size))])
    assert any(len(units) % 8 for units in keep.values())
    with pytest.raises(ValueError, match=r"leaves 2\d\.\d% of the multiply-accumulates: ask for more"):
        choose_units(model, groups, scores_of(model), 0.1, minimum=0.5)


@pytest.mark.parametrize(
    ("macs", "change", "message"),
    [
        (0.0, {}, "the share of multiply-accumulates"),
        (1.5, {}, "the share of multiply-accumulates"),
        (0.5, {"c1": np.ones(3)}, "the scores of group 'c1' must be 64 finite numbers"),
        (0.5, {"c1": -np.ones(64)}, "none negative"),
        (0.5, {"c1": None}, "group 'c1' has no scores"),
    ],
)
def test_bad_arguments_are_errors(macs: float, change: dict[str, Array | None], message: str) -> None:
    model = build(WIDE, WIDTHS)
    scores = {name: array for name, array in (scores_of(model) | change).items() if array is not None}
    with pytest.raises(ValueError, match=message):
        choose_units(model, find_groups(model)[0], scores, macs)


@pytest.mark.parametrize(
    ("shapes", "message"), [({"z": [1]}, "the model has no input 'z'"), ({"x": [1, 3]}, "input 'x' has 4 axes, not 2")]
)
def test_bad_shapes_are_errors(shapes: dict[str, list[int]], message: str) -> None:
    model = build(WIDE, WIDTHS)
    with pytest.raises(ValueError, match=message):
        choose_units(model, find_groups(model)[0], scores_of(model), 0.5, shapes=shapes)


@pytest.mark.parametrize(
    ("kind", "size", "multiple"),
    [("channels", 512, 16), ("channels", 64, 16), ("neurons", 40, 8), ("channels", 16, 4), ("channels", 3, 1),
     ("heads", 12, 1)],
)  # fmt: skip
def test_counts_are_rounded_as_kernels_like(kind: str, size: int, multiple: int) -> None:
    assert rounding(Group("g", kind, size, 1, ())) == multiple  # type: ignore[arg-type]


def test_the_explanation_has_a_line_for_each_group_and_refusal() -> None:
    model = NETWORKS["depthwise, with squeeze and excite"].model()
    groups, refused = find_groups(model)
    assert explain(groups, refused, {"up": [0, 1]}) == [
        "up: 8 channels; made by up, se2; read by se1, down; along with deep [keeps 2 of 8]",
        "se1: 4 channels; made by se1; read by se2 [all stay]",
        "down (Conv): its 4 channels stay: the model's output 'y'",
    ]
    assert explain(groups, [])[1] == "se1: 4 channels; made by se1; read by se2"
    (heads,), _ = find_groups(NETWORKS["heads"].model())
    assert str(heads).startswith("q: 4 heads of 3 channels; made by q, k, v; read by out; along with ")
