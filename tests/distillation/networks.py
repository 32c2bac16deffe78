"""A small network that reads digits, its data, and what pruning leaves of it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from sklearn.datasets import load_digits

from onnxcompress.data import Feed
from onnxcompress.runtime.session import open_session
from onnxcompress.torch import OnnxModule
from tests.models import with_initializers

Array = np.ndarray[Any, Any]

TRAIN = 1400
"""Of the 1797 digits; the others are held out."""

TEXT = """
<ir_version: 10, opset_import: ["" : 21]>
digits (float[N, 1, 8, 8] image) => (float[N, 10] scores) {
    [c1] a = Conv <pads = [1, 1, 1, 1]> (image, w1, b1)
    r = Relu (a)
    [c2] b = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (r, w2, b2)
    s = Relu (b)
    [c3] c = Conv <pads = [1, 1, 1, 1]> (s, w3, b3)
    t = Relu (c)
    f = Flatten (t)
    [fc] scores = Gemm (f, w4, b4)
}
"""


@functools.cache
def digits() -> tuple[Array, Array]:
    """Images f32 [1797, 1, 8, 8] in 0..1 and labels int64 [1797], in an order of their own."""
    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    images = (found.images[order, None] / 16).astype(np.float32)
    return images, found.target[order].astype(np.int64)


def feeds(count: int = TRAIN) -> list[Feed]:
    """Training images without labels, one each."""
    return [{"image": image[None]} for image in digits()[0][:count]]


def untrained(seed: int = 0) -> ir.Model:
    """The network with random weights."""
    rng = np.random.default_rng(seed)
    shapes = {"w1": (16, 1, 3, 3), "w2": (24, 16, 3, 3), "w3": (24, 24, 3, 3), "w4": (384, 10)}
    fans = {"w1": 9, "w2": 144, "w3": 216, "w4": 384}
    arrays = {name: rng.normal(0, (2 / fans[name]) ** 0.5, shape) for name, shape in shapes.items()}
    arrays |= {f"b{i}": np.zeros(size) for i, size in ((1, 16), (2, 24), (3, 24), (4, 10))}
    return with_initializers(ir.from_onnx_text(TEXT), {name: a.astype(np.float32) for name, a in arrays.items()})


def trained() -> ir.Model:
    """The network after six epochs on labelled digits."""
    images, labels = (torch.from_numpy(array[:TRAIN]) for array in digits())
    module = OnnxModule(untrained())
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    order = np.random.default_rng(1)
    for _ in range(6):
        for batch in torch.from_numpy(order.permutation(TRAIN)).split(64):
            (scores,) = module({"image": images[batch]})
            loss = torch.nn.functional.cross_entropy(scores, labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return module.write_back()


def accuracy(model: ir.Model) -> float:
    """Share of held-out digits read right, in ONNX Runtime."""
    images, labels = digits()
    (scores,) = open_session(model).run(None, {"image": images[TRAIN:]})
    return float(np.mean(np.asarray(scores).argmax(1) == labels[TRAIN:]))


def pruned(model: ir.Model, share: float = 0.8) -> ir.Model:
    """The model without the smallest weights of each layer but the first."""
    result = model.clone()
    for name in ("w2", "w3", "w4"):
        weight = weight_of(result, name).copy()
        weight[np.abs(weight) <= np.quantile(np.abs(weight), share)] = 0
        result.graph.initializers[name].const_value = ir.tensor(weight, name=name)
    return result


def weight_of(model: ir.Model, name: str) -> Array:
    """An initializer as an array."""
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None
    array: Array = tensor.numpy()
    return array


def no_loss(outputs: Any, feed: Any) -> torch.Tensor:
    """A task loss that teaches nothing."""
    loss: torch.Tensor = outputs["scores"].sum() * 0
    return loss


def cut_off_at(call: int) -> Callable[[Any, Any], torch.Tensor]:
    """`no_loss` that fails once, when it is called for the `call`th time: the middle of a run."""
    calls = 0

    def task_loss(outputs: Any, feed: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == call:
            raise RuntimeError("killed")
        return no_loss(outputs, feed)

    return task_loss
