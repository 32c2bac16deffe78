"""Blocks behind a residual, and transformer layers: found, left out, refused."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

from onnxcompress.passes.prune.channels import DropBlocks, find_blocks, find_transformer_layers
from tests.passes.prune.channels.networks import build, execute, feed_of, relative


def without(model: ir.Model, names: list[str]) -> ir.Model:
    result = model.clone()
    assert DropBlocks(names)(result).modified
    onnx.checker.check_model(ir.to_proto(result), full_check=True)
    return result


RESNET = """(float[N, 3, 8, 8] x) => (float[N, M, H, W] y) {
    [stem] a = Conv (x, w0)
    [b1] b = Conv <pads = [1, 1, 1, 1]> (a, w1)
    r = Relu (b)
    [b2] c = Conv <pads = [1, 1, 1, 1]> (r, w2)
    [add1] d = Add (c, a)
    e = Relu (d)
    [b3] f = Conv (e, w3)
    [add2] g = Add (e, f)
    [narrow] h = Conv (g, w4)
    p = GlobalAveragePool (g)
    [side] i = Conv (p, w5)
    [add3] j = Add (h, i)
    [add4] k = Add (j, x8)
    [head] y = Conv (k, w6)
}"""
WEIGHTS = {
    "w0": (8, 3, 1, 1), "w1": (8, 8, 3, 3), "w2": (8, 8, 3, 3), "w3": (8, 8, 1, 1), "w4": (5, 8, 1, 1),
    "w5": (5, 8, 1, 1), "x8": (1, 5, 1, 1), "w6": (4, 5, 1, 1),
}  # fmt: skip


def test_residual_blocks_are_found() -> None:
    """Not the projection shortcut (add3: neither side comes from the other), not the constant (add4)."""
    blocks = find_blocks(build(RESNET, WEIGHTS))
    assert [(block.name, block.kind, block.input, block.output, block.parameters) for block in blocks] == [
        ("add1", "residual", "a", "d", 2 * 8 * 8 * 9),
        ("add2", "residual", "e", "g", 64),
    ]
    assert set(blocks[0].nodes) >= {"b1", "b2", "add1"} and len(blocks[0].nodes) == 4
    assert str(blocks[1]) == "add2: 2 nodes, 64 parameters, from e to g"


@pytest.mark.parametrize("names", [["add1"], ["add2"], ["add2", "add1"]])
def test_a_block_that_goes_gives_its_input(names: list[str]) -> None:
    """The reference: a branch whose last weight is 0 adds nothing."""
    model = build(RESNET, WEIGHTS)
    reference, feed = model.clone(), feed_of(model)
    for name, weight in (("add1", "w2"), ("add2", "w3")):
        if name in names:
            value = reference.graph.initializers[weight]
            value.const_value = ir.tensor(value.const_value.numpy() * 0, name=weight)  # type: ignore[union-attr]
    result = without(model, names)
    assert relative(execute(result, feed)[0], execute(reference, feed)[0]) < 1e-6
    assert not set(result.graph.initializers) & ({"w1", "w2"} if "add1" in names else {"w3"})


def test_blocks_within_blocks_go_with_them() -> None:
    text = """(float[N, 8] x) => (float[N, K] y) {
        [in] a = MatMul (x, w0)
        [up] b = MatMul (a, w1)
        [mid] c = MatMul (b, w2)
        [inner] d = Add (b, c)
        [down] e = MatMul (d, w3)
        [outer] f = Add (a, e)
        [out] y = MatMul (f, w4)
    }"""
    model = build(text, {"w0": (8, 6), "w1": (6, 5), "w2": (5, 5), "w3": (5, 6), "w4": (6, 8)})
    assert [block.name for block in find_blocks(model)] == ["inner", "outer"]
    one, both = without(model, ["outer"]), without(model, ["inner", "outer"])
    assert [node.name for node in one.graph] == [node.name for node in both.graph] == ["in", "out"]


def test_what_is_read_from_outside_is_no_block() -> None:
    text = """(float[N, 8] x) => (float[N, K] y) {
        [up] a = MatMul (x, w0)
        [mid] b = MatMul (a, w1)
        [add] c = Add (a, b)
        s = Sigmoid (b)
        m = Mul (c, s)
        [out] y = MatMul (m, w2)
    }"""
    model = build(text, {"w0": (8, 6), "w1": (6, 6), "w2": (6, 8)})
    assert find_blocks(model) == []


def test_a_branch_that_is_broadcast_is_a_block_and_a_shortcut_that_is_one_is_not() -> None:
    text = """(float[N, 8, 4, 4] x) => (float[N, M, H, W] y) {
        [c1] a = Conv (x, w1)
        p = GlobalAveragePool (a)
        [c2] b = Conv (p, w2)
        [wide] c = Add (a, b)
        q = GlobalAveragePool (c)
        u = Expand (q, shape)
        [c3] d = Conv (u, w3)
        [narrow] e = Add (q, d)
        y = Conv (e, w4)
    }"""
    weights = {"w1": (6, 8, 1, 1), "w2": (6, 6, 1, 1), "w3": (6, 6, 1, 1), "w4": (4, 6, 1, 1)}
    model = build(text, weights, {"shape": [1, 1, 4, 4]})
    assert [block.name for block in find_blocks(model)] == ["wide"]


def layer(i: int, source: str, *, post: bool) -> str:
    """A transformer layer of width 8 and 2 heads, from `source` to `h{i}`."""
    read = source if post else f"n{i}"
    norm = "" if post else f"n{i} = LayerNormalization ({source}, gamma)\n"
    middle = f"m{i} = LayerNormalization (s{i}, gamma)" if post else f"m{i} = Identity (s{i})"
    inner = f"m{i}" if post else f"o{i}"
    second = "" if post else f"o{i} = LayerNormalization (m{i}, gamma)\n"
    last = f"h{i} = LayerNormalization (t{i}, gamma)" if post else f"h{i} = Identity (t{i})"
    return f"""{norm}
        [q{i}] q{i} = MatMul ({read}, wq{i})
        [k{i}] k{i} = MatMul ({read}, wk{i})
        [v{i}] v{i} = MatMul ({read}, wv{i})
        qr{i} = Reshape (q{i}, apart)
        kr{i} = Reshape (k{i}, apart)
        vr{i} = Reshape (v{i}, apart)
        qt{i} = Transpose <perm = [0, 2, 1, 3]> (qr{i})
        kt{i} = Transpose <perm = [0, 2, 3, 1]> (kr{i})
        vt{i} = Transpose <perm = [0, 2, 1, 3]> (vr{i})
        a{i} = MatMul (qt{i}, kt{i})
        b{i} = Add (a{i}, mask)
        p{i} = Softmax (b{i})
        c{i} = MatMul (p{i}, vt{i})
        d{i} = Transpose <perm = [0, 2, 1, 3]> (c{i})
        e{i} = Reshape (d{i}, together)
        [o{i}] f{i} = MatMul (e{i}, wo{i})
        [attention{i}] s{i} = Add (f{i}, {source})
        {middle}
        {second}
        [up{i}] u{i} = MatMul ({inner}, w1{i})
        g{i} = Gelu (u{i})
        [down{i}] w{i} = MatMul (g{i}, w2{i})
        [mlp{i}] t{i} = Add (w{i}, m{i})
        {last}
    """


def encoder(layers: int, *, post: bool) -> ir.Model:
    body = "".join(layer(i, "start" if i == 0 else f"h{i - 1}", post=post) for i in range(layers))
    text = f"""(float[B, S, 8] x, float[B, 1, 1, S] mask) => (float[B, S, K] y) {{
        {"l = MatMul (x, w) start = LayerNormalization (l, gamma)" if post else "start = MatMul (x, w)"}
        {body}
        {f"final = Identity (h{layers - 1})" if post else f"final = LayerNormalization (h{layers - 1}, gamma)"}
        [head] y = MatMul (final, wy)
    }}"""
    if not post:  # an Identity would stand between the residual steps
        for i in range(layers):
            for name, other in ((f"m{i}", f"s{i}"), (f"h{i}", f"t{i}")):
                text = text.replace(f"{name} = Identity ({other})\n", "\n")
                text = text.replace(f"({name},", f"({other},").replace(f", {name})", f", {other})")
    weights = {"gamma": (8,), "w": (8, 8), "wy": (8, 4)}
    for i in range(layers):
        weights |= {f"w{part}{i}": (8, 8) for part in "qkvo"} | {f"w1{i}": (8, 16), f"w2{i}": (16, 8)}
    return build(text, weights, {"apart": [0, 0, 2, 4], "together": [0, 0, 8]})


@pytest.mark.parametrize("post", [True, False])
def test_transformer_layers_are_found_and_left_out(post: bool) -> None:
    """Dropping the layers from the end gives the shorter encoder itself."""
    model = encoder(3, post=post)
    layers = find_transformer_layers(model)
    assert [block.name for block in layers] == ["layer.0", "layer.1", "layer.2"]
    assert {block.parameters for block in layers} == {4 * 64 + 2 * 128}
    assert layers[0].input == "start" and layers[1].input == layers[0].output
    short = encoder(1, post=post)
    for name, value in short.graph.initializers.items():
        value.const_value = model.graph.initializers[name].const_value
    feed = feed_of(model, sizes={"B": 2, "S": 5})
    result = without(model, ["layer.2", "layer.1"])
    assert relative(execute(result, feed)[0], execute(short, feed)[0]) < 1e-6
    assert [block.name for block in find_transformer_layers(result)] == ["layer.0"]
    # From the middle: the layers around it meet.
    middle = without(model, ["layer.1"])
    assert [block.input for block in find_transformer_layers(middle)] == [layers[0].input, layers[0].output]


def test_steps_of_attention_alone_are_blocks_too() -> None:
    names = [block.name for block in find_blocks(encoder(2, post=False))]
    assert names == ["attention0", "mlp0", "attention1", "mlp1"]


def test_a_block_that_is_not_there_is_an_error() -> None:
    model = build(RESNET, WEIGHTS)
    with pytest.raises(ValueError, match="the model has no block 'add9'; it has add1, add2"):
        DropBlocks(["add9"])(model)
    assert not DropBlocks([])(model).modified


def test_a_model_that_is_one_block_cannot_lose_it() -> None:
    model = build("(float[N, 8] x) => (float[N, 8] y) { b = MatMul (x, w) [add] y = Add (x, b) }", {"w": (8, 8)})
    with pytest.raises(ValueError, match="block 'add' leads from input to output of the model"):
        DropBlocks(["add"])(model)
