"""What outputs are, told from graph and values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from onnxcompress.distillation.outputs import Output, describe_outputs
from onnxcompress.optimizer import optimize
from tests.distillation.graphs import graph, outputs_of
from tests.models import with_initializers
from tests.zoo import ZooModel

X = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
IMAGE = np.random.default_rng(1).normal(size=(2, 3, 6, 6)).astype(np.float32)


def only(
    signature: str, body: str, feed: np.ndarray[tuple[int, ...], np.dtype[np.float32]], **shapes: tuple[int, ...]
) -> Output:
    model = graph(signature, body, **shapes)
    (found,) = describe_outputs(model, outputs_of(model, x=feed))
    return found


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("l = Gemm (x, w, b) y = Softmax (l)", Output("y", "classes", "l", "logits", -1, "probabilities")),
        ("l = Gemm (x, w, b) y = LogSoftmax (l)", Output("y", "classes", "l", "logits", -1, "logits")),
        (
            "l = Gemm (x, w, b) s = Softmax (l) y = Identity (s)",
            Output("y", "classes", "l", "logits", -1, "probabilities"),
        ),
        (
            "l = Gemm (x, w, b) e = Exp (l) t = ReduceSum (e, axis) y = Div (e, t)",
            Output("y", "classes", "y", "probabilities", -1, "probabilities"),
        ),
        ("y = Gemm (x, w, b)", Output("y", "classes", "y")),
        ("m = MatMul (x, w) y = Add (m, b)", Output("y", "classes", "y")),
        ("m = MatMul (x, w) y = Tanh (m)", Output("y", "embedding", "y")),
        ("m = MatMul (x, w) y = Sigmoid (m)", Output("y", "binary", "m", "logits", -1, "probabilities")),
        ("m = MatMul (x, w) n = LpNormalization (m) y = Identity (n)", Output("y", "embedding", "y")),
    ],
)  # fmt: skip
def test_of_two_axes(body: str, wanted: Output) -> None:
    model = graph("(float[N, 4] x) => (float[N, 6] y)", body, w=(4, 6), b=(6,))
    model = with_initializers(model, {"axis": np.array([1], np.int64)})
    assert describe_outputs(model, outputs_of(model, x=X)) == [wanted]


def test_the_softmax_of_a_map_keeps_its_axis() -> None:
    wanted = Output("y", "classes", "l", "logits", -3, "probabilities")
    body = "l = Conv (x, w) y = Softmax <axis = 1> (l)"
    assert only("(float[N, 3, 6, 6] x) => (float[N, 5, 6, 6] y)", body, IMAGE, w=(5, 3, 1, 1)) == wanted


def test_behind_a_reshape_the_probabilities_themselves_are_compared() -> None:
    body = "l = Conv (x, w) s = Softmax <axis = 1> (l) y = Flatten (s)"
    found = only("(float[N, 3, 6, 6] x) => (float[N, 180] y)", body, IMAGE, w=(5, 3, 1, 1))
    assert (found.kind, found.scores, found.form) == ("classes", "y", "probabilities")


def test_maps_and_normalized_tokens() -> None:
    signature = "(float[N, 3, 6, 6] x) => (float[N, 1, 6, 6] y)"
    wanted = Output("y", "binary", "l", "logits", -1, "probabilities")
    assert only(signature, "l = Conv (x, w) y = Sigmoid (l)", IMAGE, w=(1, 3, 1, 1)) == wanted
    assert only(signature, "y = Conv (x, w)", IMAGE, w=(1, 3, 1, 1)).kind == "dense"
    tokens = X[None]
    body = "y = LayerNormalization (x, g, b)"
    assert only("(float[N, 3, 4] x) => (float[N, 3, 4] y)", body, tokens, g=(4,), b=(4,)).kind == "embedding"


def test_logits_that_an_argmax_reads() -> None:
    model = graph(
        "(float[N, 3, 6, 6] x) => (float[N, 5, 6, 6] y, int64[N, 1, 6, 6] best)",
        "y = Conv (x, w) best = ArgMax <axis = 1> (y)", w=(5, 3, 1, 1),
    )  # fmt: skip
    assert describe_outputs(model, outputs_of(model, x=IMAGE)) == [Output("y", "classes", "y", "logits", -3)]


@pytest.mark.parametrize(
    ("name", "kind", "form"),
    [("minilm", "embedding", "logits"), ("ppocr-cls", "classes", "logits"), ("magika", "classes", "probabilities")],
)
def test_real_models(name: str, kind: str, form: str, zoo: Callable[[str], ZooModel]) -> None:
    model = optimize(zoo(name).path(), portable=True)
    (found,) = describe_outputs(model, outputs_of(model, **zoo(name).feeds(1)[0]))
    assert (found.kind, found.form) == (kind, form)
