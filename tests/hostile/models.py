"""Model files: not ONNX at all, cut off, tensors that lie, graphs that cannot run, external data that climbs out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
from onnx import TensorProto, helper, numpy_helper

from tests.hostile import Bad, content

UNREADABLE = "not a readable ONNX model"
UNSOUND = "not a sound ONNX model"
EITHER = rf"{UNREADABLE}|{UNSOUND}"

GRAPH = """
<ir_version: 10, opset_import: ["" : 21]>
g (float[1, 3, 8, 8] x) => (float[1, 4] y) <float[4, 3, 3, 3] w, float[4, 256] v> {
    c = Conv <pads = [1, 1, 1, 1]> (x, w)
    r = Relu (c)
    f = Flatten (r)
    m = Transpose (v)
    y = MatMul (f, m)
}
"""


def sound() -> onnx.ModelProto:
    """A small network with two weights."""
    model = onnx.parser.parse_model(GRAPH)
    rng = np.random.default_rng(0)
    for name, shape in (("w", (4, 3, 3, 3)), ("v", (4, 256))):
        model.graph.initializer.append(numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name))
    return model


def altered(name: str, change: Callable[[onnx.ModelProto], object], error: str) -> Bad:
    """The sound network with one change."""

    def write(folder: Path) -> Path:
        model = sound()
        change(model)
        path = folder / "m.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return Bad(name, write, error)


def not_models() -> Iterator[Bad]:
    """Files of other kinds, and files cut off."""
    kinds: dict[str, bytes] = {
        "empty": b"",
        "zeros": bytes(1000),
        "ones": b"\xff" * 1000,
        "png": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "zip": b"PK\x03\x04" + bytes(100),
        "elf": b"\x7fELF\x02\x01\x01" + bytes(100),
        "gzip": b"\x1f\x8b\x08" + bytes(99),
        "pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00]\x94(K\x01K\x02e.",
        "html": b"<!DOCTYPE html><html>",
        "json": b'{"graph": {}}',
        "git lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "text": b"hello\n" * 50,
        "safetensors": b"\x40\0\0\0\0\0\0\0{}" + bytes(60),
        "tflite": b"\x1c\0\0\0TFL3" + bytes(60),
        "utf-16": "a model".encode("utf-16"),
        "a long varint": b"\x08" + b"\xff" * 30,
        "a length of 2^63": b"\x3a" + b"\xff" * 9 + b"\x01",
        "an open group": b"\x3b" * 500,
    }
    for name, data in kinds.items():
        yield content(f"not a model: {name}", "m.onnx", data, EITHER)
    whole = sound().SerializeToString()
    for share in range(1, 60):
        cut = len(whole) * share // 60
        yield content(f"cut after {cut} bytes", "m.onnx", whole[:cut], EITHER)
    for depth in (200, 10_000):
        yield content(f"{depth} graphs in one another", "m.onnx", nested(depth), EITHER)
    for suffix in (".onnxtxt", ".json", ".textproto"):
        yield content(f"nonsense as {suffix}", f"m{suffix}", "((((" * 5000, EITHER)
    yield content("deep JSON", "m.json", '{"graph":' * 5000, EITHER)
    yield content("deep textproto", "m.textproto", "graph { node { attribute { g { " * 3000, EITHER)


def nested(depth: int) -> bytes:
    """A model whose graphs lie in one another, written without a protobuf library, which would refuse it."""
    graph = b""
    for _ in range(depth):
        attribute = field(6, graph)
        graph = field(1, field(5, attribute))
    return field(7, graph)


def field(number: int, data: bytes) -> bytes:
    """A length-delimited field of protobuf."""
    return bytes([number << 3 | 2]) + varint(len(data)) + data


def varint(value: int) -> bytes:
    digits = []
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])


def tensors() -> Iterator[Bad]:
    """Initializers that do not hold what their shapes say."""

    def weight(change: Callable[[TensorProto], None]) -> Callable[[onnx.ModelProto], None]:
        return lambda model: change(model.graph.initializer[0])

    def reshaped(*dims: int) -> Callable[[onnx.ModelProto], None]:
        def change(tensor: TensorProto) -> None:
            del tensor.dims[:]
            tensor.dims.extend(dims)

        return weight(change)

    for dims in (
        (2**62,),
        (2**62, 2**62),
        (2**31, 2**31),
        (-1,),
        (4, 3, 3, -3),
        (-4, -3, 3, 3),
        (2**63 - 1,),
        (-(2**63),),
        (108,) * 9,
        (4, 3, 3, 4),
        (4, 3, 3),
        (107,),
        (109,),
        (0,),
        (4, 0, 3, 3),
        (1,) * 100,
        (2**32, 2**32, 0),
        (),
    ):
        yield altered(f"a weight of shape {dims!s:.40}", reshaped(*dims), UNSOUND)
    for code in [*range(2, 26), 31, 100, -1, 2**31 - 1]:
        if code not in (6, 12):  # int32 and uint32 are as wide as float

            def retyped(tensor: TensorProto, code: int = code) -> None:
                tensor.data_type = code

            yield altered(f"a weight of type {code}", weight(retyped), UNSOUND)
    for size in (0, 1, 3, 431, 433, 864):

        def resized(tensor: TensorProto, size: int = size) -> None:
            tensor.raw_data = bytes(size)

        yield altered(f"a weight of {size} bytes", weight(resized), UNSOUND)
    for kind in ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data"):

        def retold(tensor: TensorProto, kind: str = kind) -> None:
            tensor.ClearField("raw_data")
            getattr(tensor, kind).extend([b"1" if kind == "string_data" else 1] * 7)

        yield altered(f"a weight of 7 {kind}", weight(retold), UNSOUND)
    for where in ("value", "values of"):

        def in_attribute(model: onnx.ModelProto, where: str = where) -> None:
            tensor = helper.make_tensor("t", TensorProto.FLOAT, [2], [1.0, 2.0])
            tensor.dims[0] = 2**40
            node = model.graph.node.add(op_type="Constant", output=["k"])
            if where == "value":
                node.attribute.append(helper.make_attribute("value", tensor))
            else:
                indices = helper.make_tensor("i", TensorProto.INT64, [2], [0, 1])
                sparse = helper.make_sparse_tensor(tensor, indices, [4])
                node.attribute.append(helper.make_attribute("sparse_value", sparse))

        yield altered(f"a lie in the {where} a Constant", in_attribute, UNSOUND)

    def sparse(model: onnx.ModelProto) -> None:
        values = helper.make_tensor("s", TensorProto.FLOAT, [2], [1.0, 2.0])
        indices = helper.make_tensor("i", TensorProto.INT64, [2], [0, 1])
        model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4, -4]))

    yield altered("a sparse weight of negative shape", sparse, UNSOUND)


def external() -> Iterator[Bad]:
    """External data out of the folder, missing, or shorter than it should be."""

    def moved(name: str, error: str, prepare: Callable[[Path], object] = lambda folder: None, **entries: str) -> Bad:
        def write(folder: Path) -> Path:
            model = sound()
            tensor = model.graph.initializer[0]
            data = tensor.raw_data
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            inner = folder / "inner"
            inner.mkdir(exist_ok=True)
            (folder / "outside.bin").write_bytes(data)
            (inner / "w.bin").write_bytes(data)
            for key, value in entries.items():
                tensor.external_data.add(key=key, value=value.replace("FOLDER", str(folder)))
            prepare(inner)
            (inner / "m.onnx").write_bytes(model.SerializeToString())
            return inner / "m.onnx"

        return Bad(f"external data: {name}", write, error)

    def link(target: str, name: str) -> Callable[[Path], None]:
        return lambda inner: os.symlink(target.replace("FOLDER", str(inner.parent)), inner / name)

    climbs, absolute, symbolic = "climbs out of the model's folder", "at the absolute path", "through a symbolic link"
    missing = "is missing from"
    for location in (
        "../outside.bin",
        "a/../../outside.bin",
        "./../outside.bin",
        "..",
        "inner/../..",
        "..\\outside.bin",
        "w.bin/..",
    ):
        yield moved(location, climbs, location=location)
    for location in (
        "FOLDER/outside.bin",
        "/etc/passwd",
        "//host/share",
        "C:\\w.bin",
        "C:w.bin",
        "\\\\host\\share",
        "\\w.bin",
        "/",
    ):
        yield moved(location, absolute, location=location)
    for target in ("../outside.bin", "FOLDER/outside.bin", "w.bin", "/dev/zero", "link.bin"):
        yield moved(f"a link to {target}", symbolic, link(target, "link.bin"), location="link.bin")
    yield moved("a link on the way", symbolic, link("..", "up"), location="up/outside.bin")
    for location in ("absent.bin", "w.bin/x", "a" * 300, "w.bin ", "inner", ".", "sub/w.bin"):
        yield moved(location[:20], missing, location=location)
    yield moved("a folder", missing, lambda inner: (inner / "d").mkdir(), location="d")
    yield moved("a pipe", missing, lambda inner: os.mkfifo(inner / "p"), location="p")
    yield moved("no location", "has no location", offset="0")
    yield moved("an empty location", "has no location", location="")
    yield moved("a NUL", "has no location", location="w.bin\0.txt")
    for offset in ("1", "432", "9999999999999", str(2**63), str(2**64)):
        yield moved(f"offset {offset}", "its external data ends at", location="w.bin", offset=offset)
    for offset in ("-1", str(-(2**63))):
        yield moved(f"offset {offset}", "of external data at", location="w.bin", offset=offset)
    for length in ("0", "1", "-1", "431", "433", str(2**62)):
        yield moved(f"length {length}", "where its shape takes 432", location="w.bin", length=length)
    for text in ("x", "1e3", "", "0x10", "9" * 5000):
        yield moved(f"offset {text[:9]!r}", "is no number|digits", location="w.bin", offset=text)
    yield moved(
        "a short file", "its external data ends at", lambda inner: (inner / "w.bin").write_bytes(b""), location="w.bin"
    )


def graphs() -> Iterator[Bad]:
    """Graphs that cannot run."""

    def node(model: onnx.ModelProto, op: str, inputs: list[str], outputs: list[str]) -> onnx.NodeProto:
        model.graph.node.append(helper.make_node(op, inputs, outputs, name=f"new {op}"))
        made: onnx.NodeProto = model.graph.node[-1]
        return made

    def cycle(length: int) -> Callable[[onnx.ModelProto], None]:
        def change(model: onnx.ModelProto) -> None:
            for index in range(length):
                node(model, "Relu", [f"cycle{index}"], [f"cycle{(index + 1) % length}"])

        return change

    for length in (1, 2, 3, 1000, 100_000):
        yield altered(f"a cycle of {length}", cycle(length), "the graph has a cycle")

    def through_branch(model: onnx.ModelProto) -> None:
        value = helper.make_tensor_value_info("b", TensorProto.FLOAT, None)
        branch = helper.make_graph([helper.make_node("Relu", ["late"], ["b"])], "branch", [], [value])
        node(model, "Constant", [], ["condition"]).attribute.append(helper.make_attribute("value_int", 1))
        chosen = node(model, "If", ["condition"], ["late"])
        chosen.attribute.extend(helper.make_attribute(name, branch) for name in ("then_branch", "else_branch"))

    yield altered("a cycle through a branch", through_branch, "the graph has a cycle")
    for position in range(5):

        def undefined(model: onnx.ModelProto, position: int = position) -> None:
            model.graph.node[position].input[0] = "nowhere"

        yield altered(f"node {position} reads nothing", undefined, "reads 'nowhere', which nothing gives")

        def twice(model: onnx.ModelProto, position: int = position) -> None:
            node(model, "Relu", ["x"], [model.graph.node[position].output[0]])

        yield altered(f"the value of node {position} twice", twice, "is given twice")
    for name in ("x", "w", "v"):
        yield altered(
            f"{name} given by a node", partial(node, op="Relu", inputs=["c"], outputs=[name]), "is given twice"
        )
    yield altered("an input twice", lambda m: m.graph.input.append(m.graph.input[0]), "input 'x' is given twice")
    yield altered("a weight twice", lambda m: m.graph.initializer.append(m.graph.initializer[0]), "'w' is given twice")
    yield altered("one node gives a value twice", lambda m: node(m, "Split", ["x"], ["s", "s"]), "is given twice")
    yield altered("a weight without a name", lambda m: m.graph.initializer[0].ClearField("name"), "has no name")
    yield altered("an input without a name", lambda m: m.graph.input[0].ClearField("name"), "has no name")
    yield altered("an output of nothing", lambda m: setattr(m.graph.output[0], "name", "none"), "given by nothing")
    yield altered("no outputs", lambda m: m.graph.ClearField("output"), "no outputs")
    yield altered("no graph", lambda m: m.ClearField("graph"), "no outputs")
    yield altered("no nodes", lambda m: m.graph.ClearField("node"), "given by nothing")

    def missing_body(model: onnx.ModelProto) -> None:
        inner = helper.make_graph([helper.make_node("Relu", ["gone"], ["b"])], "body", [], [])
        node(model, "If", ["x"], ["z"]).attribute.append(helper.make_attribute("then_branch", inner))

    yield altered("a branch reads nothing", missing_body, "reads 'gone', which nothing gives")


def functions() -> Iterator[Bad]:
    """Functions without end."""

    def calls(*edges: tuple[str, tuple[str, ...]], use: str = "f0") -> Callable[[onnx.ModelProto], None]:
        def change(model: onnx.ModelProto) -> None:
            model.opset_import.append(helper.make_opsetid("own", 1))
            for name, called in edges:
                nodes = [helper.make_node(c, ["a"], [f"{name}{i}"], domain="own") for i, c in enumerate(called)]
                nodes.append(helper.make_node("Relu", ["a"], ["b"]))
                imports = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
                model.functions.append(helper.make_function("own", name, ["a"], ["b"], nodes, imports))
            model.graph.node.append(helper.make_node(use, ["x"], ["z"], domain="own"))

        return change

    itself = "calls itself"
    yield altered("a function calls itself", calls(("f0", ("f0",))), itself)
    yield altered("two functions call each other", calls(("f0", ("f1",)), ("f1", ("f0",))), itself)
    ring = [(f"f{i}", (f"f{(i + 1) % 500}",)) for i in range(500)]
    yield altered("a ring of 500 functions", calls(*ring), itself)
    yield altered("an unused function calls itself", calls(("f0", ()), ("f1", ("f1",))), itself)
    for width, depth in ((2, 40), (10, 10), (100, 5)):
        laughs = [(f"f{i}", (f"f{i + 1}",) * width) for i in range(depth)]
        error = "inlined, have more than"
        yield altered(f"{width}^{depth} laughs", calls(*laughs, (f"f{depth}", ())), error)
    yield altered("a function twice", calls(("f0", ()), ("f0", ())), "is there twice")

    def bad_body(model: onnx.ModelProto) -> None:
        calls(("f0", ()))(model)
        model.functions[0].node[0].input[0] = "nowhere"

    yield altered("a function reads nothing", bad_body, "reads 'nowhere', which nothing gives")

    def no_result(model: onnx.ModelProto) -> None:
        calls(("f0", ()))(model)
        model.functions[0].output[0] = "nowhere"

    yield altered("a function gives nothing", no_result, "given by nothing")

    def doubled(model: onnx.ModelProto) -> None:
        calls(("f0", ()))(model)
        model.functions[0].input.append("a")

    yield altered("a function takes an input twice", doubled, "an input twice")


def places() -> Iterator[Bad]:
    """Paths that are no files."""
    yield Bad("no such file", lambda folder: folder / "absent.onnx", "no such file")
    yield Bad("a device", lambda folder: Path("/dev/zero"), "not a plain file")

    def pipe(folder: Path) -> Path:
        os.mkfifo(folder / "p.onnx")
        return folder / "p.onnx"

    yield Bad("a pipe", pipe, "not a plain file")

    def dangling(folder: Path) -> Path:
        (folder / "l.onnx").symlink_to("absent")
        return folder / "l.onnx"

    yield Bad("a link to nothing", dangling, "no such file")

    def loop(folder: Path) -> Path:
        (folder / "l.onnx").symlink_to("l.onnx")
        return folder / "l.onnx"

    yield Bad("a link to itself", loop, "no such file")
    yield Bad("too long a name", lambda folder: folder / ("a" * 300), "no such file|not the name of a file")


UNSOUND_MODELS = [*not_models(), *tensors(), *external(), *graphs(), *functions(), *places()]
