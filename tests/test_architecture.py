"""The rules that the design sets on imports, names and sizes, held on the source and in fresh interpreters."""

from __future__ import annotations

import ast
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import onnxcompress
from onnxcompress.cli import COMMANDS

ROOT = Path(__file__).parents[1]
PACKAGE, PASSES = ROOT / "onnxcompress", ROOT / "passes"

OPS_MAY_IMPORT = ("numpy", "onnx", "onnx_ir", "onnxcompress.ops", *sys.stdlib_module_names)
PASSES_MAY_IMPORT = ("ml_dtypes", "onnxscript", "onnxcompress.passes", *OPS_MAY_IMPORT)
TORCH_MAY_BE_IN = ("exporter.py", "exporting", "demonstration.py", "torch", "distillation")
HEAVY = {"numpy", "ml_dtypes", "onnx", "onnx_ir", "onnxscript", "onnxruntime", "torch", "rich", "PIL", "sklearn"}
LONGEST_FILE, LONGEST_FUNCTION = 400, 80


def sources(*folders: Path) -> list[Path]:
    """Python files, each once: `onnxcompress/passes` is a link to `passes`."""
    files = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
    return [path for path in files if PACKAGE / "passes" not in path.parents]


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def package_of(path: Path) -> list[str]:
    """The package that a file's relative imports start from; `passes` is imported as `onnxcompress.passes`."""
    parts = list(path.relative_to(ROOT).parent.parts)
    return ["onnxcompress", *parts] if parts[0] == "passes" else parts


def imports(tree: ast.Module, package: list[str]) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that is imported, wherever the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield node.lineno, ast.literal_eval(node.args[0]) if isinstance(node.args[0], ast.Constant) else "?"


def is_within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def offences(files: list[Path], is_allowed: Callable[[str], bool]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in files
        for line, name in imports(tree_of(path), package_of(path))
        if not is_allowed(name)
    ]


def fresh(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a new interpreter, in the root of the checkout."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip


def loaded_after(code: str) -> dict[str, set[str]]:
    """Packages (first parts of names) that had been loaded at each `note(NAME)` of the code."""
    result = fresh(
        "import json, sys\nseen = {}\n"
        "def note(name): seen[name] = sorted({module.partition('.')[0] for module in sys.modules})\n"
        f"{code}\nprint(json.dumps(seen), file=sys.stderr)"
    )
    assert result.returncode == 0, result.stderr
    seen: dict[str, list[str]] = json.loads(result.stderr.splitlines()[-1])
    return {name: set(packages) for name, packages in seen.items()}


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("import a.b, torch", ["a.b", "torch"]),
        ("def f():\n    if 1:\n        from torch import nn", ["torch.nn"]),
        ("from ..runtime import session", ["onnxcompress.runtime.session"]),
        ("from . import chains", ["onnxcompress.passes.chains"]),
        ("import importlib\nimportlib.import_module('torch.nn')", ["importlib", "torch.nn"]),
        ("import_module(name)", ["?"]),
    ],
)
def test_imports_are_seen_wherever_they_stand(code: str, names: list[str]) -> None:
    assert [name for _, name in imports(ast.parse(code), ["onnxcompress", "passes"])] == names


def test_passes_import_no_more_than_they_may() -> None:
    files = sources(PASSES)
    assert len(files) > 30
    assert not offences(files, lambda name: is_within(name, *PASSES_MAY_IMPORT))


def test_operators_import_no_more_than_they_may() -> None:
    files = sources(PACKAGE / "ops")
    assert len(files) > 20
    assert not offences(files, lambda name: is_within(name, *OPS_MAY_IMPORT))


def test_torch_is_imported_in_its_own_places_only() -> None:
    free = [PACKAGE / place for place in TORCH_MAY_BE_IN]
    files = [path for path in sources(PACKAGE) if not any(path == place or place in path.parents for place in free)]
    assert len(files) > 50
    assert not offences(files, lambda name: not is_within(name, "torch"))
    # The rule is not empty: where torch may be, it is.
    assert offences(sources(PACKAGE / "exporting"), lambda name: not is_within(name, "torch"))


def test_the_root_loads_no_framework() -> None:
    seen = loaded_after("import onnxcompress\nnote('root')")["root"]
    assert "onnxcompress" in seen
    assert not seen & HEAVY


def test_passes_load_without_torch_and_sessions() -> None:
    modules = [".".join([*package_of(path), path.stem]).removesuffix(".__init__") for path in sources(PASSES)]
    code = f"import importlib\nfor name in {modules}: importlib.import_module(name)\nnote('passes')"
    seen = loaded_after(code)["passes"]
    assert "onnx_ir" in seen
    assert not seen & {"torch", "onnxruntime"}


def test_help_loads_nothing_that_is_slow() -> None:
    code = "from onnxcompress.cli import main\nmain(['--help'], standalone_mode=False)\nnote('help')"
    seen = loaded_after(code)["help"]
    assert "click" in seen
    assert not seen & HEAVY


def test_help_of_every_command_loads_neither_torch_nor_sessions() -> None:
    """One interpreter for all: a package that a command loads is still there after the next one, which is enough."""
    seen = loaded_after(
        f"from onnxcompress.cli import main\nfor name in {list(COMMANDS)}:\n"
        "    main([name, '--help'], standalone_mode=False)\n    note(name)"
    )
    assert set(seen) == set(COMMANDS)
    assert not [name for name, packages in seen.items() if packages & {"torch", "onnxruntime"}]


def test_the_source_folder_of_the_passes_is_refused() -> None:
    result = fresh("import passes")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        "ImportError: import onnxcompress.passes: the top-level folder 'passes' is its source"
    )
    assert fresh("import onnxcompress.passes").returncode == 0


def test_every_public_name_resolves() -> None:
    assert len(set(onnxcompress.__all__)) == len(onnxcompress.__all__)
    for name in onnxcompress.__all__:
        value = getattr(onnxcompress, name)
        assert callable(value) or name == "__version__"
        assert value.__doc__
    assert set(dir(onnxcompress)) >= set(onnxcompress.__all__)
    with pytest.raises(AttributeError, match="'onnxcompress' has no attribute 'absent'"):
        _ = onnxcompress.absent


def test_every_command_but_the_helpers_is_a_function_too() -> None:
    assert set(COMMANDS) - {"demo", "doctor"} <= set(onnxcompress.__all__)


def test_no_module_bears_the_name_of_a_verb() -> None:
    """`onnxcompress.bench` is a function: a module of that name would take its place once imported."""
    verbs = {name for name in onnxcompress.__all__ if name.islower() and name.isalpha()} | set(COMMANDS)
    modules = [path for path in sources(PACKAGE) if path.parent != PACKAGE / "cli"]
    names = {path.parent.name if path.name == "__init__.py" else path.stem for path in modules}
    assert "inspection" in names and "benching" in names
    assert not names & verbs
    assert not {path.name for path in PACKAGE.iterdir() if path.is_dir()} & verbs
    for name in verbs - {"demo", "doctor"}:
        assert not isinstance(getattr(importlib.import_module("onnxcompress"), name), type(importlib))


def test_files_are_not_too_long() -> None:
    lengths = {path: len(path.read_text("utf-8").splitlines()) for path in sources(PACKAGE, PASSES)}
    assert not [f"{path.relative_to(ROOT)}: {n} lines" for path, n in lengths.items() if n > LONGEST_FILE]


def test_files_of_the_library_are_not_too_long() -> None:
    names = ("cpu", "cuda", "ops", "ops/cuda", "ort")  # an editable build leaves others beside them
    files = [path for name in names for path in sorted((PACKAGE / "csrc" / name).iterdir())]
    files = [path for path in files if path.suffix in (".cpp", ".hpp", ".cu")]
    assert len(files) > 100
    lengths = {path: len(path.read_text("utf-8").splitlines()) for path in files}
    assert not [f"{path.relative_to(ROOT)}: {n} lines" for path, n in lengths.items() if n > LONGEST_FILE]


def test_functions_are_not_too_long() -> None:
    """From `def` to the last line, docstring included."""
    lengths = [
        (path, node, (node.end_lineno or 0) - node.lineno + 1)
        for path in sources(PACKAGE, PASSES)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert len(lengths) > 500
    long = [(path, node, n) for path, node, n in lengths if n > LONGEST_FUNCTION]
    assert not [f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {n} lines" for path, node, n in long]
