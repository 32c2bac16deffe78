"""Random networks, random cuts: the cut network is the masked one."""

from __future__ import annotations

from random import Random

import onnx_ir as ir
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxcompress.passes.prune.channels import find_groups
from tests.passes.prune.channels.networks import build, cut, execute, feed_of, masked, random_keep, relative

TOLERANCE = 1e-4
"""Deeper than the networks of each kind, and some outputs are small differences of large sums."""


class Builder:
    """A convolution network that grows by random parts; values are [N, channels, 6, 6]."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.lines: list[str] = []
        self.weights: dict[str, tuple[int, ...]] = {}
        self.constants: dict[str, list[int]] = {}
        self.values: list[tuple[str, int]] = [("x", 3)]

    def emit(self, op: str, channels: int, *inputs: str, outputs: int = 1) -> str:
        name = f"v{len(self.lines)}"
        results = ", ".join(f"{name}_{i}" for i in range(outputs)) if outputs > 1 else name
        self.lines.append(f"[{name}] {results} = {op} ({', '.join(inputs)})")
        self.values.append((f"{name}_0" if outputs > 1 else name, channels))
        return name

    def weight(self, *shape: int) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = shape
        return name

    def convolution(self, source: tuple[str, int], channels: int, groups: int = 1) -> str:
        value, inputs = source
        size = self.random.choice([1, 3])
        pad = size // 2
        weight, bias = self.weight(channels, inputs // groups, size, size), self.weight(channels)
        return self.emit(f"Conv <group = {groups}, pads = [{pad}, {pad}, {pad}, {pad}]>", channels, value, weight, bias)

    def grow(self) -> None:
        random = self.random
        value, channels = source = random.choice(self.values[-3:])
        match random.choice(
            ["conv", "conv", "depth", "groups", "act", "add", "mul", "concat", "split", "scale", "gate"]
        ):
            case "conv":
                self.convolution(source, random.randint(2, 8))
            case "depth":
                self.convolution(source, channels, channels)
            case "groups" if channels % 2 == 0:
                self.convolution(source, 2 * random.randint(1, 4), 2)
            case "act":
                self.emit(random.choice(["Relu", "HardSwish", "Sigmoid"]), channels, value)
            case "add" | "mul":
                other = random.choice([v for v, c in self.values if c == channels])
                self.emit(random.choice(["Add", "Mul", "Max"]), channels, value, other)
            case "concat":
                other, more = random.choice(self.values)
                self.emit("Concat <axis = 1>", channels + more, value, other)
            case "split" if channels > 1:
                first = random.randint(1, channels - 1)
                sizes = f"s{len(self.constants)}"
                self.constants[sizes] = [first, channels - first]
                name = self.emit("Split <axis = 1>", first, value, sizes, outputs=2)
                self.values.append((f"{name}_1", channels - first))
            case "scale":
                self.emit("Mul", channels, value, self.weight(channels, 1, 1))
            case "gate":
                pooled = self.emit("GlobalAveragePool", channels, value)
                self.values.pop()
                gate = self.convolution((pooled, channels), channels)
                self.values.pop()
                self.emit("Mul", channels, value, gate)

    def model(self) -> ir.Model:
        for _ in range(self.random.randint(3, 12)):
            self.grow()
        joined = [value for value in self.values[1:] if self.random.random() < 0.5] or self.values[-1:]
        channels = sum(count for _, count in joined)
        self.emit("Concat <axis = 1>", channels, *(name for name, _ in joined))
        self.convolution(self.values[-1], 3)
        body = "\n".join(self.lines)
        text = f"(float[1, 3, 6, 6] x) => (float[1, C, H, W] {self.values[-1][0]}) {{ {body} }}"
        return build(text, self.weights, self.constants, seed=self.random.randrange(100))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(st.randoms(use_true_random=False), st.integers(0, 1000))
def test_a_random_cut_of_a_random_network_equals_the_mask(random: Random, seed: int) -> None:
    model = Builder(random).model()
    groups, _ = find_groups(model)
    keep = random_keep(groups, seed)
    if all(len(keep[group.name]) == group.size for group in groups):
        return
    feed = feed_of(model, seed=seed)
    (actual,), (expected,) = execute(cut(model, keep), feed), execute(masked(model, groups, keep), feed)
    assert relative(actual, expected) < TOLERANCE
