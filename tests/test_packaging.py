"""What is built from a checkout is whole, and works where the checkout is not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path, PurePosixPath

import onnx
import onnx.parser
import pytest

import onnxcompress

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
LEFT_OUT = shutil.ignore_patterns(".*_cache", ".hypothesis", ".venv", ".git", "__pycache__", "build", "dist", "*.onnx")
BUILD_PRODUCTS = (".cmake", "CMakeFiles", "CMakeCache.txt", "cmake_install.cmake", "CMakeInit.txt", "build.ninja")
MODEL = """<ir_version: 10, opset_import: ["": 21]> g (float[N,2] x) => (float[N,2] y)
<float[2,2] w = {1,2,3,4}> { h = MatMul(x, w) y = Relu(h) }"""


def call(*arguments: object, cwd: Path, **variables: str) -> str:
    """Run a program that must succeed; its output."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(
        [str(argument) for argument in arguments], cwd=cwd, capture_output=True, text=True, timeout=900, check=False,
        env={**environment, **variables},
    )  # fmt: skip
    assert result.returncode == 0, f"{arguments}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def pip(*arguments: object, cwd: Path) -> str:
    return call(sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments, cwd=cwd)


def build_wheel(source: Path, folder: Path) -> Path:
    # Without CUDA: nvcc would take minutes, and adds nothing to what is looked at here.
    pip("wheel", "--quiet", "--no-deps", "-C", "cmake.define.cuda=OFF", "--wheel-dir", folder, source, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


def sources_of(folder: str) -> set[str]:
    """Files of a source folder that are part of the product."""
    found = (ROOT / folder).rglob("*.py")
    return {path.relative_to(ROOT).as_posix() for path in found if "passes" not in path.relative_to(ROOT).parts[1:]}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout in which an editable install, which builds in place, has left its products."""
    folder = tmp_path_factory.mktemp("checkout") / "onnxcompress"
    shutil.copytree(ROOT, folder, symlinks=True, ignore=LEFT_OUT)
    source = folder / "onnxcompress" / "csrc"
    for name in BUILD_PRODUCTS:
        path = source / name
        if name in (".cmake", "CMakeFiles"):
            path.mkdir(exist_ok=True)
            path = path / "left.txt"
        path.write_text("left by a build", "utf-8")
    return folder


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(checkout, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by the backend itself: pip builds no sdist."""
    folder = tmp_path_factory.mktemp("sdist")
    pip("install", "--quiet", "--target", folder / "backend", "scikit-build-core>=0.11", cwd=folder)
    code = f"from scikit_build_core.build import build_sdist; build_sdist({str(folder)!r})"
    call(sys.executable, "-c", code, cwd=checkout, PYTHONPATH=str(folder / "backend"))
    (archive,) = folder.glob("*.tar.gz")
    return archive


def check_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        assert all(entry.external_attr >> 28 != 0o12 for entry in archive.infolist())
        metadata = archive.read(f"onnxcompress-{onnxcompress.__version__}.dist-info/METADATA").decode()
    assert {name.partition("/")[0] for name in names} == {
        "onnxcompress", f"onnxcompress-{onnxcompress.__version__}.dist-info"
    }  # fmt: skip
    modules = {name for name in names if name.endswith(".py")}
    assert modules == sources_of("onnxcompress") | {f"onnxcompress/{name}" for name in sources_of("passes")}
    assert "onnxcompress/py.typed" in names
    assert f"onnxcompress-{onnxcompress.__version__}.dist-info/licenses/LICENSE" in names
    assert not [name for name in names if set(PurePosixPath(name).parts) & {*BUILD_PRODUCTS, "tests", "__pycache__"}]
    assert f"Version: {onnxcompress.__version__}\n" in metadata and "Requires-Python: >=3.11" in metadata


def test_wheel_holds_the_product_and_nothing_else(wheel: Path) -> None:
    check_wheel(wheel)


def test_sdist_holds_what_a_wheel_is_built_from(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        top = f"onnxcompress-{onnxcompress.__version__}"
        names = {name.removeprefix(f"{top}/") for name in archive.getnames()}
        assert all(not member.issym() or not member.linkname.startswith("/") for member in archive.getmembers())
    assert sources_of("passes") | sources_of("onnxcompress") <= names
    assert {"pyproject.toml", "README.md", "LICENSE", "onnxcompress/csrc/CMakeLists.txt"} <= names
    assert not [name for name in names if set(PurePosixPath(name).parts) & {*BUILD_PRODUCTS, "__pycache__"}]


def test_a_wheel_built_from_the_sdist_is_the_same(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    built = build_wheel(sdist, tmp_path)
    check_wheel(built)
    with zipfile.ZipFile(built) as a, zipfile.ZipFile(wheel) as b:
        records = {name: a.read(name) for name in a.namelist() if name.endswith(".py")}
        assert records == {name: b.read(name) for name in b.namelist() if name.endswith(".py")}


def test_installed_wheel_works_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """In a new environment that sees the packages of this one, but not its editable installs."""
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
    site = Path(call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    pip("--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    # A folder that a .pth adds is searched last, and has its own .pth files left alone.
    paths = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    (site / "packages.pth").write_text("\n".join(paths), "utf-8")
    work = tmp_path / "elsewhere"
    work.mkdir()
    onnx.save(onnx.parser.parse_model(MODEL), work / "m.onnx")
    command = python.with_name("onnxcompress")
    assert call(command, "--version", cwd=work) == f"onnxcompress, version {onnxcompress.__version__}\n"
    home = call(python, "-c", "import onnxcompress.passes as p; print(p.__file__)", cwd=work).strip()
    assert Path(home).is_relative_to(site)
    found = json.loads(call(command, "inspect", "m.onnx", "--shape", "x=8,2", "--json", cwd=work))
    assert (found["macs"], found["parameters"]) == (32, 4)
    call(command, "optimize", "m.onnx", "-o", "o.onnx", cwd=work)
    assert (work / "o.onnx").is_file()
    absent = "import importlib.util; print(importlib.util.find_spec('passes'))"
    assert call(python, "-c", absent, cwd=work).strip() == "None"
