"""The fingerprint changes with what a model computes, and with nothing else."""

from __future__ import annotations

import pytest

from onnxcompress.calibration import fingerprint
from tests.calibration.models import parse

BASE = """
    g (float[N] x, bool flag) => (float[N] y)
    <float[2] w = {1.0, 2.0}> {
        c = Constant <value_floats: floats = [1.0, 2.0]> ()
        t = Constant <value = float[2] {3.0, 4.0}> ()
        a = LeakyRelu <alpha = 0.5> (x)
        b = Add (a, w)
        d = Transpose <perm = [0]> (b)
        y = If (flag) <
            then_branch = p () => (float[N] m) { m = Add (d, c) },
            else_branch = q () => (float[N] n) { n = Add (d, t) }
        >
    }"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("{1.0, 2.0}>", "{1.0, 2.5}>"),
        ("[1.0, 2.0]", "[1.0, 2.5]"),
        ("{3.0, 4.0}", "{3.0, 4.5}"),
        ("alpha = 0.5", "alpha = 0.25"),
        ("b = Add (a, w)", "b = Add (w, a)"),
        ("b = Add (a, w)", "b = Sub (a, w)"),
        ("m = Add (d, c)", "m = Mul (d, c)"),
        ("float[N] x", "float16[N] x"),
        ("perm = [0]", "perm = [-1]"),
        ("d", "renamed"),
    ],
)
def test_what_is_computed_enters(old: str, new: str) -> None:
    changed = BASE.replace(old, new) if old != "d" else BASE.replace("d =", "e =").replace("(d,", "(e,")
    assert changed != BASE
    from onnx import parser
    from onnx_ir import from_proto

    header = '<ir_version: 10, opset_import: ["" : 21]>\n'
    assert fingerprint(from_proto(parser.parse_model(header + changed))) != fingerprint(parse(BASE))


def test_the_opset_enters() -> None:
    model = parse(BASE)
    model.opset_imports[""] = 22
    assert fingerprint(model) != fingerprint(parse(BASE))


def test_words_about_the_model_do_not_enter() -> None:
    model = parse(BASE)
    model.doc_string = "words"
    model.metadata_props["author"] = "someone"
    for node in model.graph:
        node.doc_string = "words"
    assert fingerprint(model) == fingerprint(parse(BASE)) == fingerprint(model.clone())
