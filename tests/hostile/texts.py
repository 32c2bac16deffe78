"""Recipes and ranges: not TOML, not JSON, keys and values that are none, numbers and nesting without measure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.hostile import Bad, content

NOT_A_RECIPE = "not a recipe"


def recipes() -> Iterator[Bad]:
    syntax: dict[str, bytes | str] = {
        "empty": "",
        "binary": bytes(range(256)),
        "NULs": bytes(100),
        "JSON": '{"schema": 1}',
        "no value": "schema =",
        "open string": 'schema = 1\nmethod = "',
        "open table": "schema = 1\n[ranges",
        "a key twice": "schema = 1\nschema = 1",
        "a table twice": "schema = 1\n[ranges]\n[ranges]",
        "deep lists": "schema = 1\nwide = " + "[" * 50_000,
        "deep tables": "schema = 1\nranges = " + "{a=" * 50_000,
        "a long number": "schema = " + "9" * 10_000,
        "UTF-16": "schema = 1".encode("utf-16"),
        "a bare word": "schema",
        "a date": "schema = 1979-05-27",
        "inf": "schema = inf",
        "another schema": "schema = 2",
        "no schema": "optimize = true",
        "schema as text": 'schema = "1"',
        "dots": "...=1",
    }
    for name, text in syntax.items():
        yield content(f"recipe: {name}", "r.toml", text, rf"{NOT_A_RECIPE}")
    for key in ("Optimize", "optimise", "steps", "__class__", "schema2", "source_", "a.b", '""', "é" * 2):
        text = f"schema = 1\n{key if key.isascii() else json.dumps(key, ensure_ascii=False)} = true"
        yield content(f"recipe: the key {key}", "r.toml", text, "unknown key")
    values: dict[str, list[str]] = {
        "mode": ['"magic"', "1", "true", "[]", '""'],
        "activations": ['"u4"', "8", "[]"],
        "source": ["1", "true", "[]"],
        "method": ["1", "{}"],
        "optimize": ["1", '"yes"', "[]", "{}"],
        "portable": ["0", '"no"'],
        "native": ["1"],
        "elementwise": ['"x"'],
        "smooth": ["2.0", "-0.1", "nan", "inf", "true", '"half"', "[]"],
        "wide": ["1", '"a"', "[1]", "[[]]"],
        "exclude": ["1", "[]", "{a = 1}", "{a = []}"],
        "standard": ["{a = true}", '"a"'],
        "dense": ["{a = true}", '"a"'],
        "ranges": [
            "1",
            "[]",
            "{a = 1}",
            "{a = [1]}",
            "{a = [1, 2, 3]}",
            '{a = ["0", "1"]}',
            "{a = [nan, 1]}",
            "{a = [0, inf]}",
            "{a = [true, 1]}",
            "{a = {}}",
        ],
        "channels": ["1", "{a = 1}", '{a = ["x"]}', "{a = [nan]}", "{a = [[]]}"],
        "heads": ["[]", "{a = [inf]}"],
        "slim": ["1", "[]", "{unheard = 1}", "{pattern = 1}", "{pattern = 'magic'}", "{steps = -1}", "{macs = 'half'}"],
        "residual_sum": ["1"],
        "tables": ['"x"'],
        "equalize": ["[]"],
        "reduced_range": ["1.0"],
    }
    for key, found in values.items():
        for value in found:
            yield content(
                f"recipe: {key} = {value}", "r.toml", f"schema = 1\n{key} = {value}", "is not what a recipe holds"
            )
    yield Bad("recipe: absent", lambda folder: folder / "r.toml", "no such file|does not exist")
    yield Bad("recipe: a device", lambda folder: Path("/dev/zero"), "not a plain file|not a recipe")


def ranges() -> Iterator[Bad]:
    right: dict[str, Any] = {
        "format": "onnxcompress ranges",
        "schema": 1,
        "method": "minmax",
        "percentile": None,
        "samples": 1,
        "model": "0",
        "tensors": {},
        "left_out": {},
    }
    wrong = "not a file of ranges|damaged ranges|ranges of schema|from another model|calibrate"
    syntax: dict[str, bytes | str] = {
        "empty": "",
        "binary": bytes(range(256)),
        "cut": json.dumps(right)[:-9],
        "a list": "[]",
        "a number": "1",
        "null": "null",
        "deep": "[" * 100_000,
        "deep objects": '{"a":' * 100_000,
        "a long number": '{"schema": ' + "9" * 10_000 + "}",
        "NaN": "NaN",
        "UTF-16": json.dumps(right).encode("utf-16"),
        "a report": '{"schema": 1, "original": {}}',
    }
    for name, text in syntax.items():
        yield content(f"ranges: {name}", "r.json", text, wrong)
    observer = {"low": 0, "high": 1}
    values: dict[str, list[Any]] = {
        "format": [None, 1, "", "other"],
        "schema": [None, 0, 2, "1", 1e300],
        "method": [None, 1, "magic", [], {}],
        "percentile": ["x", [], -5, 1e9],
        "samples": [None, -1, "many", 1.5, []],
        "model": [None, 1, [], "0"],
        "tensors": [
            None,
            1,
            [],
            "x",
            {"a": None},
            {"a": 1},
            {"a": []},
            {"a": {}},
            {"a": observer},
            {"a": {"low": "x"}},
            {"a": {"counts": [1] * 9}},
        ],
        "left_out": [None, 1, [1], "x"],
    }
    for key, found in values.items():
        for value in found:
            text = json.dumps(right | {key: value})
            yield content(f"ranges: {key} = {json.dumps(value):.40}", "r.json", text, wrong)
        text = json.dumps({name: value for name, value in right.items() if name != key})
        yield content(f"ranges: no {key}", "r.json", text, wrong)
    yield Bad(
        "ranges: a device", lambda folder: Path("/dev/zero"), "not a plain file|cannot be read|not a file of ranges"
    )


def scores() -> Iterator[Bad]:
    """Of `compress --resume`."""

    def kept(name: str, text: str | bytes) -> Bad:
        def write(folder: Path) -> Path:
            (folder / "resume").mkdir()
            (folder / "resume" / "scores.json").write_bytes(text.encode() if isinstance(text, str) else text)
            return folder / "resume"

        return Bad(f"scores: {name}", write, "cannot be used .*; give an empty folder")

    broken: dict[str, bytes | str] = {
        "empty": "",
        "binary": bytes(range(256)),
        "a list": "[]",
        "deep": "[" * 100_000,
        "numbers": '{"a": 1}',
        "texts": '{"a": {"b": 1}}',
        "triples": '{"a": {"b": [1, 2, 3]}}',
        "words": '{"a": {"b": ["x", "y"]}}',
        "null": "null",
        "a long number": '{"a": {"b": [' + "9" * 10_000 + ', "x"]}}',
    }
    for name, text in broken.items():
        yield kept(name, text)


BAD_RECIPES, BAD_RANGES, BAD_SCORES = list(recipes()), list(ranges()), list(scores())
