"""The header of the C ABI holds what the table of released slots, offsets and signatures says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HEADER = Path(__file__).parents[2] / "onnxcompress" / "csrc" / "ort" / "abi.hpp"
TABLE = Path(__file__).with_name("ort_abi.tsv")

# Our names of the runtime's types.
SYNONYMS = {
    "OrtStatusPtr": "OrtStatus*",
    "ONNXTensorElementDataType": "ElementType",
    "OrtCustomOpInputOutputCharacteristic": "Characteristic",
    "OrtMemType": "MemoryType",
}
POINTER = 8


def normal(text: str) -> str:
    """A type in one spelling."""
    text = re.sub(r"\b(struct|enum)\s+", "", text)
    for theirs, ours in SYNONYMS.items():
        text = re.sub(rf"\b{theirs}\b", ours, text)
    return re.sub(r"\s*([*(),])\s*", r"\1", " ".join(text.split()))


def parameters(text: str) -> list[str]:
    """The types of a list of parameters, without their names."""
    parts: list[str] = []
    depth, part = 0, ""
    for character in text:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts, part = [*parts, part], ""
        else:
            part += character
    types = []
    for each in [*parts, part]:
        each = re.sub(r"\(\*\s*\w+\s*\)", "(*)", normal(each))
        types.append(re.sub(r"(?<=[*\s])[a-z_0-9]+$", "", each).strip() if "(*)" not in each else each)
    return [each for each in types if each and each != "void"]


def signature(text: str) -> tuple[str, list[str]]:
    """Result and parameter types of `result(* name)(parameters)`."""
    match = re.fullmatch(r"(.*?)\(\s*\*\s*\w+\s*\)\s*\((.*)\)", " ".join(text.split()))
    assert match is not None, text
    return normal(match[1]), parameters(match[2])


def table(struct: str) -> dict[str, tuple[int, str]]:
    """Member -> slot or offset, signature."""
    lines = [line.split("\t") for line in TABLE.read_text().splitlines() if not line.startswith("#")]
    return {member: (int(place), text) for name, member, place, text in lines if name == struct}


def functions() -> dict[str, tuple[int, str]]:
    """Those of the header, in the same form."""
    text = HEADER.read_text().replace("\\\n", " ")
    pattern = r"F\((\d+),\s*(\w+),\s*([\w* ]+),\s*\((.*?)\)\)\s*(?=F\(|//|\n)"
    return {name: (int(slot), f"{result}(* {name})({args})") for slot, name, result, args in re.findall(pattern, text)}


def members(struct: str) -> list[tuple[str, str]]:
    """Of a structure of the header, in order: name and declaration."""
    body = re.search(rf"struct {struct} {{\n(.*?)\n}};", HEADER.read_text(), re.DOTALL)
    assert body is not None
    declarations = [line.strip().rstrip(";") for line in body[1].splitlines()]
    return [((re.search(r"\(\*\s*(\w+)\)", d) or re.search(r"(\w+)$", d))[1], d) for d in declarations]  # type: ignore[index]


def test_every_function_is_at_its_slot() -> None:
    ours, theirs = functions(), table("OrtApi")
    assert len(ours) > 20
    assert {name: slot for name, (slot, _) in ours.items()} == {name: slot for name, (slot, _) in theirs.items()}


@pytest.mark.parametrize("name", sorted(functions()))
def test_the_function_has_its_signature(name: str) -> None:
    # Codes of errors are an enumeration in both.
    assert signature(functions()[name][1]) == signature(table("OrtApi")[name][1])


@pytest.mark.parametrize("struct", ["OrtApiBase", "OrtCustomOp"])
def test_every_member_is_at_its_place(struct: str) -> None:
    theirs, unit = table(struct), 1 if struct == "OrtApiBase" else POINTER
    ours = members(struct)
    assert [name for name, _ in ours] == list(theirs)
    for index, (name, declaration) in enumerate(ours):
        # All are pointers but the version, a 32-bit number that the pointer behind it pads to 8 bytes.
        assert theirs[name][0] == index * unit
        if name == "version":
            assert declaration == "uint32_t version"
        else:
            assert signature(declaration) == signature(theirs[name][1])


def test_the_version_is_the_one_of_the_table() -> None:
    match = re.search(r"kApiVersion = (\d+)", HEADER.read_text())
    assert match is not None
    assert int(match[1]) == 21


def test_a_wrong_signature_is_seen() -> None:
    assert signature("int(* f)(const char* name)") != signature("int(* f)(const char* name, size_t n)")
    assert signature("void(* f)(int64_t* x)") != signature("void(* f)(const int64_t* x)")
