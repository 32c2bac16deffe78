"""Which inner values are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import onnx_ir as ir
import pytest

from onnxcompress.distillation.matching import MOST_ENDS, block_ends, match
from onnxcompress.distillation.students import drop_layers
from onnxcompress.errors import ModelError
from onnxcompress.optimizer import optimize
from tests.distillation.graphs import graph, post_norm_encoder
from tests.distillation.networks import untrained
from tests.models import small_cnn
from tests.zoo import ZooModel

SHAPE = (1, 5, 8)


def pairs(student: ir.Model, teacher: ir.Model, most: int | None = MOST_ENDS) -> list[tuple[str, str]]:
    """All block ends of one shape."""
    own, others = (dict.fromkeys(block_ends(model), SHAPE) for model in (student, teacher))
    return match(student, teacher, own, others, most)


def same(names: Iterable[str]) -> list[tuple[str, str]]:
    return [(name, name) for name in names]


def test_residual_sums_end_blocks() -> None:
    """One sum is too few: activations are added."""
    assert block_ends(small_cnn()) == ["r", "h"]
    body = """
        a = Conv <pads = [1, 1, 1, 1]> (x, w1) b = Relu (a) c = Conv <pads = [1, 1, 1, 1]> (b, w2) d = Add (b, c)
        e = Conv <pads = [1, 1, 1, 1]> (d, w3) f = Add (d, e) y = Relu (f)
    """
    shapes = {"w1": (3, 3, 3, 3), "w2": (3, 3, 3, 3), "w3": (3, 3, 3, 3)}
    assert block_ends(graph("(float[N, 3, 6, 6] x) => (float[N, 3, 6, 6] y)", body, **shapes)) == ["d", "f"]


def test_a_norm_that_alone_reads_the_sum_ends_the_block() -> None:
    assert block_ends(post_norm_encoder(3)) == ["h1", "h2", "h3"]


def test_sums_that_are_no_residuals() -> None:
    """A bias, a polynomial of one value, and a mask on scores end no block; the activations do."""
    body = """
        m = MatMul (x, w) n = Add (m, b) q = Mul (n, n) p = Add (n, q) r = Relu (n)
        k = MatMul (r, v) s = Add (k, mask) t = Sigmoid (k) u = Add (s, t) y = Add (u, p)
    """
    model = graph("(float[N, 4] x, float[N, 4] mask) => (float[N, 4] y)", body, w=(4, 4), v=(4, 4), b=(4,))
    assert block_ends(model) == ["r", "t"]


def test_activations_of_plain_networks() -> None:
    assert block_ends(untrained()) == ["r", "s", "t"]


def test_the_same_graph_pairs_every_value_with_itself() -> None:
    assert pairs(post_norm_encoder(3), post_norm_encoder(3)) == same(["h1", "h2", "h3"])


def test_dropped_layers_leave_their_work_to_the_one_before() -> None:
    """Layers 1, 3 and 5 go: what layer 0 gives now stands for what layer 1 gave."""
    teacher = post_norm_encoder(6)
    student = teacher.clone()
    for layer in (1, 3, 5):
        values = {v.name: v for node in student.graph for v in node.outputs}
        ir.convenience.replace_all_uses_with(values[f"h{layer + 1}"], values[f"h{layer}"])
    student = optimize(student, portable=True)
    assert pairs(student, teacher) == [("h1", "h2"), ("h3", "h4"), ("h5", "h6")]


def test_a_student_of_its_own_is_matched_by_position() -> None:
    """Its nodes have the teacher's names by chance: the last of them would stand for a middle layer."""
    assert pairs(post_norm_encoder(3, 1), post_norm_encoder(6)) == [("h1", "h2"), ("h2", "h4"), ("h3", "h6")]
    assert pairs(post_norm_encoder(4, 1), post_norm_encoder(5)) == [
        ("h1", "h1"),
        ("h2", "h3"),
        ("h3", "h4"),
        ("h4", "h5"),
    ]


def test_a_student_that_was_cut_off_after_three_layers() -> None:
    """Its weights are the teacher's: its last layer learns to do the work of all that are missing."""
    teacher = post_norm_encoder(6)
    student = teacher.clone()
    values = {v.name: v for node in student.graph for v in node.outputs}
    ir.convenience.replace_all_uses_with(values["h6"], values["h3"])
    assert pairs(optimize(student, portable=True), teacher) == [("h1", "h1"), ("h2", "h2"), ("h3", "h6")]


def test_only_equal_shapes_are_paired() -> None:
    student, teacher = untrained(), untrained()
    own = {"r": (1, 16, 8, 8), "s": (1, 20, 4, 4), "t": (1, 24, 4, 4)}
    others = {"r": (1, 16, 8, 8), "s": (1, 24, 4, 4), "t": (1, 24, 4, 4)}
    assert match(student, teacher, own, others) == same(["r", "t"])
    assert match(student, teacher, {"r": (1,), "s": (2,), "t": (3,)}, others) == []


def test_few_of_many_are_kept_the_last_among_them() -> None:
    model = post_norm_encoder(40)
    found = pairs(model, model.clone())
    assert len(found) == MOST_ENDS and found[-1] == ("h40", "h40")
    assert len(pairs(model, model.clone(), None)) == 40


def test_three_of_minilms_six_layers(zoo: Callable[[str], ZooModel]) -> None:
    teacher = optimize(zoo("minilm").path(), portable=True)
    ends = [f"layer_norm_{i}" for i in range(1, 13)]
    assert block_ends(teacher) == ends
    student = drop_layers(teacher, [1, 3, 5])
    kept = [f"layer_norm_{i}" for i in (1, 2, 5, 6, 9, 10)]
    assert block_ends(student) == kept
    assert pairs(student, teacher) == list(zip(kept, [f"layer_norm_{i}" for i in (1, 4, 5, 8, 9, 12)], strict=True))
    for layers, message in (([6], "there is no layer 6 to drop: the model has 6"), (list(range(6)), "all 6 layers")):
        with pytest.raises(ModelError, match=message):
            drop_layers(teacher, layers)
    with pytest.raises(ModelError, match="no blocks behind a residual"):
        drop_layers(untrained(), [0])
