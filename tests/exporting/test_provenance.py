"""The provenance map goes by value, never by name alone."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch

from onnxcompress.errors import ModelError
from onnxcompress.exporting.provenance import METADATA_KEY, Source, provenance, trace

WEIGHT = torch.arange(6.0).reshape(2, 3)


def initializer(name: str, array: np.ndarray) -> ir.Value:
    return ir.Value(name=name, const_value=ir.tensor(array, name=name))


def test_same_name_and_value() -> None:
    assert trace([initializer("w", WEIGHT.numpy())], {"w": WEIGHT}) == {"w": Source(("w",))}


def test_same_name_with_other_values_is_not_mapped() -> None:
    assert trace([initializer("w", WEIGHT.numpy() + 1)], {"w": WEIGHT}) == {}
    assert trace([initializer("w", WEIGHT.numpy().astype(np.float64))], {"w": WEIGHT}) == {}


def test_renamed_and_transposed_are_found_by_value() -> None:
    found = trace([initializer("val_1", WEIGHT.numpy()), initializer("val_2", WEIGHT.numpy().T)], {"w": WEIGHT})
    assert found == {"val_1": Source(("w",)), "val_2": Source(("w",), "transpose")}


def test_ambiguous_and_constant_values_are_not_mapped() -> None:
    state = {"a": WEIGHT, "b": WEIGHT.clone(), "zeros": torch.zeros(4)}
    assert trace([initializer("x", WEIGHT.numpy()), initializer("y", np.zeros(4, np.float32))], state) == {}
    assert trace([initializer("b", WEIGHT.numpy())], state) == {"b": Source(("b",))}


def test_shared_memory_maps_to_every_key() -> None:
    state = {"a": WEIGHT, "b": WEIGHT, "view": WEIGHT[:1], "extra": "not a tensor"}
    assert trace([initializer("b", WEIGHT.numpy())], state) == {"b": Source(("a", "b"))}


def test_nan_and_bfloat16_compare_by_bits() -> None:
    nan = torch.tensor([1.0, float("nan")])
    half = WEIGHT.to(torch.bfloat16)
    values = [initializer("nan", nan.numpy())]
    values.append(ir.Value(name="h", const_value=ir.tensor_adapters.TorchTensor(half, name="h")))
    assert set(trace(values, {"nan": nan, "h": half})) == {"nan", "h"}


def test_damaged_metadata() -> None:
    model = ir.Model(ir.Graph([], [], nodes=[], opset_imports={"": 21}), ir_version=10)
    assert provenance(model) == {}
    for text in ("{", "[]", '{"w": 3}', '{"w": {"keys": ["w"]}}'):
        model.metadata_props[METADATA_KEY] = text
        with pytest.raises(ModelError, match="not a provenance map"):
            provenance(model)
