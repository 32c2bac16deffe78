"""Which entry of a module's state_dict each initializer comes from.

The map rides in the model's metadata, so it is there after saving and loading.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from onnx_ir.tensor_adapters import TorchTensor

from onnxcompress.errors import ModelError

if TYPE_CHECKING:
    import torch

METADATA_KEY = "onnxcompress.provenance"


@dataclass(frozen=True)
class Source:
    """Where an initializer's values come from.

    Attributes:
        keys: of the state_dict; several where modules share one parameter.
        transform: "none", or "transpose" where the initializer is the entry's transpose.
    """

    keys: tuple[str, ...]
    transform: str = "none"


def provenance(model: ir.Model) -> dict[str, Source]:
    """By name of initializer, the state_dict entry it came from; empty for models that `export` did not make.

    The map tells of the model as it was exported: a pass that changes an initializer's values keeps its name,
    so whoever writes back compares values first.

    Raises:
        ModelError: the metadata is there and is not such a map.
    """
    text = model.metadata_props.get(METADATA_KEY)
    if text is None:
        return {}
    try:
        return {
            name: Source(tuple(entry["keys"]), entry["transform"])
            for name, entry in json.loads(text).items()
        }  # fmt: skip
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"the model's metadata {METADATA_KEY!r} is not a provenance map: {error}") from error


def record_provenance(model: ir.Model, state: Mapping[str, Any]) -> None:
    """Find the source of every initializer among the entries of a state_dict and keep the map in the metadata."""
    sources = trace(model.graph.initializers.values(), state)
    entries = {name: asdict(source) for name, source in sources.items()}
    model.metadata_props[METADATA_KEY] = json.dumps(entries, separators=(",", ":"))


def trace(initializers: Iterable[ir.Value], state: Mapping[str, Any]) -> dict[str, Source]:
    """Match initializers with state_dict entries, always by value.

    1. The entry of the same name, if the values agree.
    2. Otherwise the only entry that agrees, straight or transposed. Values that are all equal identify nothing.
    """
    entries = [group for group in _shared(state) if group]
    by_key = {key: group for group in entries for key in group}
    by_shape: dict[tuple[int, ...], list[tuple[str, ...]]] = {}
    for group in entries:
        by_shape.setdefault(tuple(state[group[0]].shape), []).append(group)
    sources: dict[str, Source] = {}
    for value in initializers:
        if value.name is None or value.const_value is None:
            continue
        tensor = value.const_value
        named = by_key.get(value.name)
        if named is not None and _same(tensor, state[named[0]]):
            sources[value.name] = Source(named)
        elif (found := _only_match(tensor, by_shape, state)) is not None:
            sources[value.name] = found
    return sources


def _only_match(
    tensor: ir.TensorProtocol,
    by_shape: Mapping[tuple[int, ...], list[tuple[str, ...]]],
    state: Mapping[str, Any],
) -> Source | None:
    array = tensor.numpy()
    shape, values = array.shape, array.reshape(-1)
    if values.size < 2 or np.all(values == values[0]):
        return None
    found = [Source(group) for group in by_shape.get(shape, []) if _same(tensor, state[group[0]])]
    if len(shape) == 2:
        flipped = by_shape.get(shape[::-1], [])
        found += [Source(g, "transpose") for g in flipped if _same(tensor, state[g[0]].detach().T)]
    return found[0] if len(found) == 1 else None


def _shared(state: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The tensor entries, those that are one and the same memory together."""
    groups: dict[Any, list[str]] = {}
    for key, tensor in state.items():
        if not hasattr(tensor, "data_ptr"):  # a module's extra state may be anything
            continue
        place = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()) if tensor.numel() else key
        groups.setdefault(place, []).append(key)
    return [tuple(keys) for keys in groups.values()]


def _same(tensor: ir.TensorProtocol, entry: torch.Tensor) -> bool:
    """Equal type, shape and bits."""
    other = TorchTensor(entry.detach())
    if tensor.dtype != other.dtype or tuple(tensor.shape) != tuple(other.shape):
        return False
    a, b = (np.ascontiguousarray(t.numpy()).reshape(-1).view(np.uint8) for t in (tensor, other))
    return bool(np.array_equal(a, b))
