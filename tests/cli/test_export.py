"""The export command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from click.testing import CliRunner, Result

from onnxcompress.cli import main
from onnxcompress.exporting.target import InputSpec, make_args, parse_dynamic, parse_input

SOURCE = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(2, 4)
        self.linear = torch.nn.Linear(4, 3)

    def forward(self, ids, weight):
        return self.linear(self.embedding(ids) * weight)

net = Net()

def stack():
    return torch.nn.Sequential(torch.nn.Linear(4, 3))

def number():
    return 3

def broken():
    raise ValueError("no such thing")
"""

INPUTS = ["--input", "weight=f32[2,5,1]", "--input", "ids=i64[2,5]"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(SOURCE)
    return tmp_path


def export(folder: Path, factory: str, *options: str) -> Result:
    return CliRunner().invoke(main, ["export", f"{folder}/net.py:{factory}", "-o", f"{folder}/m.onnx", *options])


def test_export_of_a_class(folder: Path) -> None:
    dynamic = [f"--dynamic={name}:{dim}={symbol}" for name in ("ids", "weight") for dim, symbol in ((0, "n"), (1, "t"))]
    result = export(folder, "Net", *INPUTS, *dynamic)
    assert result.exit_code == 0, result.output
    assert "23 parameters" in result.output
    assert "INT64[n, t]" in result.output
    assert "against torch" in result.output
    session = ort.InferenceSession(folder / "m.onnx", providers=["CPUExecutionProvider"])
    feeds = {"ids": np.ones((3, 7), np.int64), "weight": np.ones((3, 7, 1), np.float32)}
    assert session.run(None, feeds)[0].shape == (3, 7, 3)
    assert [path.name for path in folder.iterdir() if path.suffix == ".onnx"] == ["m.onnx"]


def test_weights_and_json(folder: Path) -> None:
    linear = torch.nn.Sequential(torch.nn.Linear(4, 3))
    for state in (linear.state_dict(), {"state_dict": linear.state_dict(), "epoch": 3}):
        torch.save(state, folder / "w.pt")
        result = export(folder, "stack", "--input", "rows=f32[2,4]", f"--weights={folder}/w.pt", "--json")
        assert result.exit_code == 0, result.output
        document = json.loads(result.output)
        assert document["inputs"] == [{"name": "rows", "dtype": "FLOAT", "shape": [2, 4]}]
        assert document["parameters"] == 15
        assert document["verified"]
        assert document["bytes"] == (folder / "m.onnx").stat().st_size
        assert 0 <= document["outputs"][0]["error"] < 1e-5
        session = ort.InferenceSession(folder / "m.onnx", providers=["CPUExecutionProvider"])
        x = torch.randn(2, 4)
        expected = linear(x).detach().numpy()
        np.testing.assert_allclose(session.run(None, {"rows": x.numpy()})[0], expected, atol=1e-5)


def test_seed_makes_it_reproducible_and_no_verify_is_said(folder: Path) -> None:
    written = []
    for seed in ("7", "7", "8"):
        result = export(folder, "Net", *INPUTS, "--seed", seed, "--no-verify")
        assert "not verified" in result.output
        written.append((folder / "m.onnx").read_bytes())
    assert written[0] == written[1] != written[2]


def test_a_module_itself_is_a_target(folder: Path) -> None:
    assert export(folder, "net", *INPUTS).exit_code == 0


@pytest.mark.parametrize(("factory", "options", "message"), [
    ("number", INPUTS, "gives a int, not a torch.nn.Module"),
    ("broken", INPUTS, "fails: ValueError: no such thing"),
    ("absent", INPUTS, "has no function 'absent'"),
    ("Net", [*INPUTS, "--weights=absent.pt"], "absent.pt: no such file"),
    ("Net", ["--input", "ids=f32[2,5]", "--input", "weight=f32[2,5,1]"], "the module fails on ids float32[2, 5]"),
    ("Net", [*INPUTS, *INPUTS], "is given twice"),
    ("Net", [*INPUTS, "--dynamic", "x:0=n"], "dynamic names 'x'"),
])  # fmt: skip
def test_failures(folder: Path, factory: str, options: list[str], message: str) -> None:
    result = export(folder, factory, *options)
    assert result.exit_code == 1
    assert message in result.output
    own, _, line = result.output.rstrip("\n").rpartition("\n")
    assert line.startswith("error: ")
    assert own.startswith("raised in your code:\n") if "fails" in message else own == ""
    assert not (folder / "m.onnx").exists()


@pytest.mark.parametrize(("state", "message"), [
    ({"0.weight": torch.ones(3, 4)}, "has no '0.bias'"),
    ({"0.weight": torch.ones(3, 4), "0.bias": torch.ones(3), "a": torch.ones(1), "b": torch.ones(1)},
     "has what the module lacks: 'a' (and 1 more)"),
    ({"0.weight": torch.ones(3, 5), "0.bias": torch.ones(3)}, "does not fit the module: size mismatch"),
    ([1], "holds a list, not a state_dict"),
    (torch.nn.Linear(1, 1), "not a file of torch tensors alone"),
])  # fmt: skip
def test_weights_that_do_not_fit(folder: Path, state: object, message: str) -> None:
    torch.save(state, folder / "w.pt")
    result = export(folder, "stack", "--input", "x=f32[2,4]", f"--weights={folder}/w.pt")
    assert result.exit_code == 1
    assert message in result.output


def test_safetensors(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "w.safetensors"
    path.write_bytes(b"nothing")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "safetensors", None)
        result = export(folder, "stack", "--input", "x=f32[2,4]", f"--weights={path}")
        assert "pip install safetensors" in result.output
    safetensors = pytest.importorskip("safetensors.torch")
    assert "not a safetensors file" in export(folder, "stack", "--input", "x=f32[2,4]", f"--weights={path}").output
    safetensors.save_file(torch.nn.Sequential(torch.nn.Linear(4, 3)).state_dict(), path)
    assert export(folder, "stack", "--input", "x=f32[2,4]", f"--weights={path}").exit_code == 0


@pytest.mark.parametrize("options", [
    [],
    ["--input", "x"],
    ["--input", "x=f31[2]"],
    ["--input", "x=f32[2,-1]"],
    [*INPUTS, "--dynamic", "ids=batch"],
    [*INPUTS, "--dynamic", "ids:0=3"],
    [*INPUTS, "--opset", "26"],
])  # fmt: skip
def test_usage_errors(folder: Path, options: list[str]) -> None:
    assert export(folder, "Net", *options).exit_code == 2


def test_parsing() -> None:
    assert parse_input("a:b=f32[1, 3,224]") == InputSpec("a:b", "f32", (1, 3, 224))
    assert parse_input("s=bool[]") == InputSpec("s", "bool", ())
    assert parse_dynamic("a:b:-1=time") == ("a:b", -1, "time")


def test_examples_are_small_and_mixed() -> None:
    specs = [InputSpec("input", kind, (50,)) for kind in ("i64", "i32", "u8", "bool", "f16", "f64")]
    for spec in specs:
        args, names = make_args(torch.nn.Linear(1, 1), [InputSpec("other", spec.dtype, spec.shape)])
        assert isinstance(args, list)
        (tensor,) = args
        assert names == ["other"]
        if not tensor.is_floating_point():
            assert set(tensor.int().tolist()) == {0, 1}
    named, names = make_args(torch.nn.Linear(1, 1), specs[:1])
    assert isinstance(named, dict)
    assert names is None


def test_help_does_not_import_torch() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from onnxcompress.cli import main;"
        "r = CliRunner().invoke(main, ['export', '--help']); assert r.exit_code == 0, r.output;"
        "assert 'torch' not in sys.modules and 'onnxruntime' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
