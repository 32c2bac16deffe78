"""Files of known types, made from a random generator: text by templates, binary by the standard library.

`TEXT` and `BINARY` map a type's label, as magika spells it, to a function from a generator to the bytes.
"""

# ruff: noqa: E501 (a line of a template is a line of the file it makes)

from __future__ import annotations

import bz2
import csv
import difflib
import gzip
import io
import json
import lzma
import marshal
import pickle
import sqlite3
import struct
import tarfile
import wave
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from .drawing import WORDS

Rng = np.random.Generator
NAMES = sorted(set(WORDS) - {"export", "import", "package", "return", "switch"})
"""Words that are names in every language here."""


def word(rng: Rng) -> str:
    return WORDS[rng.integers(len(WORDS))]


def sentence(rng: Rng) -> str:
    return " ".join(word(rng) for _ in range(rng.integers(5, 14))).capitalize() + "."


def _repeated(header: str, part: str, footer: str = "", least: int = 4, most: int = 12) -> Callable[[Rng], bytes]:
    """Text of a header, some copies of a part, and a footer.

    `@a` to `@d` are words, the same within a part; `@s` is a sentence, `@1` a number, another each time.
    """

    def make(rng: Rng) -> bytes:
        parts = [_filled(header, rng)]
        parts += [_filled(part, rng) for _ in range(rng.integers(least, most))]
        return "".join([*parts, _filled(footer, rng)]).encode()

    return make


def _filled(template: str, rng: Rng) -> str:
    for key, name in zip("abcd", rng.choice(NAMES, 4, replace=False), strict=True):
        template = template.replace(f"@{key}", name)
    while "@s" in template:
        template = template.replace("@s", sentence(rng), 1)
    while "@1" in template:
        template = template.replace("@1", str(rng.integers(1, 1000)), 1)
    return template


PYTHON = _repeated(
    '"""@s"""\n\nimport os\nimport sys\nfrom collections import defaultdict\n\n',
    "\ndef @a_@b(@c, @d=@1):\n    # @s\n    result = []\n    for item in @c:\n        if item is None:\n"
    '            raise ValueError(f"no {item}")\n        result.append(item + @d)\n    return result\n\n',
    '\nif __name__ == "__main__":\n    sys.exit(@a_@b(sys.argv))\n',
)
C = _repeated(
    "/* @s */\n#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n\n#define @a_MAX @1\n\n",
    "/* @s */\nstatic int @a_@b(const char *@c, size_t @d)\n{\n    size_t i;\n    for (i = 0; i < @d; i++) {\n"
    "        if (@c[i] == '\\0')\n            return -@1;\n    }\n    printf(\"%s\\n\", @c);\n    return 0;\n}\n\n",
    "int main(int argc, char **argv)\n{\n    return argc > 1 ? 0 : EXIT_FAILURE;\n}\n",
)
JAVA = _repeated(
    "package com.@a.@b;\n\nimport java.util.List;\nimport java.util.Map;\n\n/** @s */\npublic class @cService {\n",
    "    private final int @a = @1;\n\n    @Override\n    public String get@b(Map<String, Integer> @c) {\n"
    '        if (@c.isEmpty()) {\n            throw new IllegalStateException("@d");\n        }\n'
    '        return String.valueOf(@c.get("@d"));\n    }\n\n',
    "}\n",
)
JAVASCRIPT = _repeated(
    "'use strict';\n\nconst @a = require('./@a');\n\n",
    "function @b(@c, callback) {\n  // @s\n  const @d = @c.map((x) => x * @1);\n  if (!@d.length) {\n"
    "    console.log('@a');\n    return null;\n  }\n  return callback(undefined, @d);\n}\n\n",
    "module.exports = { @a };\n",
)
GO = _repeated(
    'package main\n\nimport (\n\t"errors"\n\t"fmt"\n)\n\n',
    "// @a@b: @s\nfunc @a@b(@c []int, @d string) (int, error) {\n\tif len(@c) == 0 {\n"
    '\t\treturn 0, errors.New("@d")\n\t}\n\tfor i, v := range @c {\n\t\tfmt.Println(i, v)\n\t}\n\treturn @1, nil\n}\n\n',
    "func main() {\n\tfmt.Println(@1)\n}\n",
)
RUST = _repeated(
    "//! @s\nuse std::collections::HashMap;\n\n#[derive(Debug, Clone)]\npub struct Table { pub @a: u32 }\n\n",
    "/// @s\npub fn @a_@b(@c: &[u32], @d: &mut HashMap<String, u32>) -> Option<u32> {\n    let mut total = @1;\n"
    "    for value in @c.iter() {\n        total += value;\n    }\n    @d.insert(\"@a\".to_string(), total);\n"
    "    Some(total)\n}\n\n",
)  # fmt: skip
SHELL = _repeated(
    "#!/bin/sh\n# @s\nset -eu\n\n@a=\"${1:-@b}\"\n\n",
    'if [ ! -d "$HOME/@a" ]; then\n  mkdir -p "$HOME/@a"\n  echo "@b: @1" >&2\nfi\n'
    'for f in *.@c; do\n  grep -q @d "$f" && rm -f "$f"\ndone\n\n',
    "exit 0\n",
)  # fmt: skip
SQL = _repeated(
    "-- @s\n",
    "CREATE TABLE @a_@b (\n  id INTEGER PRIMARY KEY,\n  @c VARCHAR(@1) NOT NULL,\n  @d INTEGER DEFAULT @1\n);\n"
    "INSERT INTO @a_@b (id, @c, @d) VALUES (@1, '@c', @1);\nSELECT @c, COUNT(*) FROM @a_@b WHERE @d > @1 GROUP BY @c;\n\n",
)
HTML = _repeated(
    '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>@s</title>\n'
    '<link rel="stylesheet" href="@a.css">\n</head>\n<body>\n',
    '<div class="@a" id="@b@1">\n  <h2>@s</h2>\n  <p>@s <a href="/@c/@d.html">@d</a> @s</p>\n</div>\n',
    "</body>\n</html>\n",
)
CSS = _repeated(
    "/* @s */\n",
    ".@a-@b, #@c > a:hover {\n  margin: @1px auto;\n  color: #336699;\n  font-size: 1.2em;\n  display: block;\n}\n\n",
)
XML = _repeated(
    '<?xml version="1.0" encoding="UTF-8"?>\n<@a:catalog xmlns:@a="urn:@b">\n',
    '  <item id="@1" kind="@c">\n    <name>@s</name>\n    <price currency="EUR">@1</price>\n  </item>\n',
    "</catalog>\n",
)
MARKDOWN = _repeated(
    "# @a @b\n\n@s @s\n\n```sh\npip install @a\n```\n\n",
    "## @c @d\n\n@s **@a** and *@b*: @s\n\n- [@c](@c.md): @s\n- `@d`\n\n",
)
YAML = _repeated(
    "---\nversion: @1\nname: @a\n",
    "@a_@1:\n  image: @b:@1\n  ports:\n    - \"@1:@1\"\n  environment:\n    @c: @d\n    debug: false\n",
)  # fmt: skip
INI = _repeated("; @s\n", "[@a.@b]\n@c = @1\n@d = /var/@d/@a\nenabled = yes\n\n")
TOML = _repeated(
    '[package]\nname = "@a"\nversion = "0.@1.@1"\n\n[dependencies]\n@b = "1.@1"\n\n',
    '[[@c]]\nname = "@a"\nvalues = [@1, @1, @1]\nenabled = true\npath = { at = "@d", depth = @1 }\n\n',
)
RST = _repeated(
    "========\n@a\n========\n\n.. contents::\n\n@s\n\n",
    "@a @b\n-----------------\n\n@s See :ref:`@c` and ``@d``.\n\n.. code-block:: python\n\n    import @c\n\n",
)
LATEX = _repeated(
    "\\documentclass{article}\n\\usepackage{amsmath}\n\\title{@a @b}\n\\begin{document}\n\\maketitle\n",
    "\\section{@c}\n@s \\emph{@d}. @s\n\\begin{equation}\n  x_{@1} = \\frac{@1}{y^2}\n\\end{equation}\n",
    "\\end{document}\n",
)
MAKEFILE = _repeated(
    "CC = gcc\nCFLAGS = -O2 -Wall\n\nall: @a\n\n.PHONY: all clean\n\n",
    "@b@1.o: @b.c @c.h\n\t$(CC) $(CFLAGS) -c -o $@ $<\n\n",
    "clean:\n\trm -f *.o\n",
)
SVG = _repeated(
    '<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="@1" height="@1">\n',
    '  <path d="M@1 @1 L@1 @1 C@1 @1 @1 @1 @1 @1 Z" fill="#4a90d9" stroke-width="2"/>\n',
    "</svg>\n",
)


def make_json(rng: Rng) -> bytes:
    def value(depth: int) -> Any:
        if depth == 0 or rng.random() < 0.3:
            return [word(rng), int(rng.integers(1000)), float(rng.random()), None, True][rng.integers(5)]
        if rng.random() < 0.3:
            return [value(depth - 1) for _ in range(3)]
        return {word(rng): value(depth - 1) for _ in range(4)}

    return json.dumps({word(rng): value(3) for _ in range(6)}, indent=2).encode()


def make_csv(rng: Rng) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["id", *(word(rng) for _ in range(5))])
    for index in range(rng.integers(10, 40)):
        writer.writerow([index, word(rng), *rng.integers(0, 1000, 3).tolist(), f"{rng.random():.3f}"])
    return text.getvalue().encode()


def make_diff(rng: Rng) -> bytes:
    before = PYTHON(rng).decode().splitlines(keepends=True)
    after = [line if rng.random() > 0.1 else f"    {word(rng)} = {word(rng)}\n" for line in before]
    name = f"{word(rng)}.py"
    return "".join(difflib.unified_diff(before, after, f"a/{name}", f"b/{name}")).encode()


def _image(form: str) -> Callable[[Rng], bytes]:
    def make(rng: Rng) -> bytes:
        width, height = (int(v) for v in rng.integers(40, 160, 2))
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        image = coarse.resize((width, height), Image.Resampling.BICUBIC)
        ImageDraw.Draw(image).text((4, 4), word(rng))
        stream = io.BytesIO()
        image.save(stream, form)
        return stream.getvalue()

    return make


def _text(rng: Rng) -> bytes:
    return " ".join(sentence(rng) for _ in range(80)).encode()


def make_zip(rng: Rng) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for _ in range(4):
            entry = zipfile.ZipInfo(f"{word(rng)}/{word(rng)}{rng.integers(1000)}.txt", (2024, 1, 2, 3, 4, 6))
            archive.writestr(entry, _text(rng))
    return stream.getvalue()


def make_tar(rng: Rng) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for _ in range(3):
            data = _text(rng)
            entry = tarfile.TarInfo(f"{word(rng)}/{word(rng)}.txt")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


def make_wav(rng: Rng) -> bytes:
    stream = io.BytesIO()
    with wave.open(stream, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16000)
        time = np.arange(4000) / 16000
        tone = 8000 * np.sin(2 * np.pi * rng.uniform(100, 900) * time) + rng.normal(0, 100, 4000)
        sound.writeframes(tone.astype("<i2").tobytes())
    return stream.getvalue()


def make_sqlite(rng: Rng) -> bytes:
    with sqlite3.connect(":memory:") as base:
        base.execute(f"CREATE TABLE t_{word(rng)} (id INTEGER, name TEXT)")
        name = base.execute("SELECT name FROM sqlite_master").fetchone()[0]
        base.executemany(f"INSERT INTO {name} VALUES (?, ?)", [(i, sentence(rng)) for i in range(60)])
        base.commit()
        return bytes(base.serialize())


def make_pickle(rng: Rng) -> bytes:
    value = {word(rng): [word(rng), int(rng.integers(1 << 30)), {"at": float(rng.random())}] for _ in range(30)}
    return pickle.dumps(value, protocol=4)


def make_bytecode(rng: Rng) -> bytes:
    """A .pyc file: a magic number, flags, time, size, marshalled code."""
    import importlib.util

    source = PYTHON(rng)
    code = marshal.dumps(compile(source, f"{word(rng)}.py", "exec"))
    return importlib.util.MAGIC_NUMBER + struct.pack("<III", 0, 1700000000, len(source)) + code


def make_npy(rng: Rng) -> bytes:
    stream = io.BytesIO()
    np.save(stream, rng.standard_normal((int(rng.integers(5, 40)), 16)).astype(np.float32))
    return stream.getvalue()


def excerpt(rng: Rng, content: bytes) -> bytes:
    """A few whole lines of a text, 100 to 500 bytes: what makes its type hard to tell."""
    lines = content.splitlines(keepends=True)
    start = int(rng.integers(0, max(1, len(lines) - 4)))
    length = int(rng.integers(100, 500))
    stop = start + 1
    while stop < len(lines) and sum(map(len, lines[start:stop])) < length:
        stop += 1
    return b"".join(lines[start:stop])


TEXT: dict[str, Callable[[Rng], bytes]] = {
    "python": PYTHON, "c": C, "java": JAVA, "javascript": JAVASCRIPT, "go": GO, "rust": RUST, "shell": SHELL,
    "sql": SQL, "html": HTML, "css": CSS, "xml": XML, "markdown": MARKDOWN, "yaml": YAML, "ini": INI, "toml": TOML,
    "rst": RST, "latex": LATEX, "makefile": MAKEFILE, "svg": SVG, "json": make_json, "csv": make_csv,
    "diff": make_diff, "txt": _text,
}  # fmt: skip
BINARY: dict[str, Callable[[Rng], bytes]] = {
    "png": _image("PNG"), "jpeg": _image("JPEG"), "gif": _image("GIF"),
    "bmp": _image("BMP"), "tiff": _image("TIFF"), "zip": make_zip, "tar": make_tar, "wav": make_wav,
    "sqlite": make_sqlite, "pickle": make_pickle, "pythonbytecode": make_bytecode, "npy": make_npy,
    "gzip": lambda rng: gzip.compress(_text(rng), mtime=1700000000),
    "bzip": lambda rng: bz2.compress(_text(rng)), "xz": lambda rng: lzma.compress(_text(rng)),
    "zlibstream": lambda rng: zlib.compress(_text(rng)),
}  # fmt: skip
