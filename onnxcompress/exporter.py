"""torch.nn.Module to ONNX, verified against torch before it is given back."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from onnxcompress.errors import ExportError
from onnxcompress.exporting.examples import Dynamic, Example, make_example
from onnxcompress.exporting.framework import (
    evaluation_mode,
    forget_recurrent_kernels,
    import_torch,
    quiet,
    reason,
    unchanged_buffers,
)
from onnxcompress.exporting.provenance import Source, provenance, record_provenance
from onnxcompress.exporting.verification import Check, check, forward_of

if TYPE_CHECKING:
    import torch

__all__ = ["Check", "Exported", "Source", "export", "export_checked", "provenance"]

NAME_SCOPES = "pkg.torch.onnx.name_scopes"
"""Node metadata that holds the path of the module a node came from; the only torch metadata that is kept."""


@dataclass(frozen=True)
class Exported:
    """A model, and what its verification found; no checks where it was left out."""

    model: ir.Model
    checks: list[Check]


def export(
    module: torch.nn.Module,
    args: torch.Tensor | Sequence[torch.Tensor] | Mapping[str, torch.Tensor],
    *,
    dynamic: Dynamic | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    opset: int = 21,
    verify: bool = True,
    seed: int = 0,
) -> ir.Model:
    """Export a module and prove that the model computes what the module does.

    The model is compared with the module in ONNX Runtime on fresh inputs (values drawn from the range of the
    example's, other sizes for dynamic dimensions): for each output the norm of the difference over the norm is
    at most 1e-4 (1e-3 if the module holds float16, 1e-2 bfloat16); for integers, a share of 1e-4 may differ.
    The graph is as torch wrote it: initializers keep the names of the state_dict, and `provenance(model)` maps
    them to it. The tensors are copies: training the module on does not change the model.

    Args:
        module: exported in eval mode; its modes and buffers are as before afterwards.
        args: example inputs, passed by position (a sequence) or by name (a mapping).
        dynamic: input name to dimension to the name of its size: `{"x": {0: "batch"}}`.
        input_names: in order; None: the parameters of the forward method.
        output_names: in order; None: the keys of a module that gives a dict, else `output` or `output_0`, ...
        opset: version of the standard operators, 18 to 25.
        verify: False skips the comparison.
        seed: of the fresh inputs.

    Raises:
        ExportError: torch is missing, the inputs do not fit, the module cannot be exported, or the exported
            model does not agree with it.
    """
    return export_checked(
        module, args, dynamic=dynamic, input_names=input_names, output_names=output_names,
        opset=opset, verify=verify, seed=seed,
    ).model  # fmt: skip


def export_checked(
    module: torch.nn.Module,
    args: torch.Tensor | Sequence[torch.Tensor] | Mapping[str, torch.Tensor],
    *,
    dynamic: Dynamic | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    opset: int = 21,
    verify: bool = True,
    seed: int = 0,
) -> Exported:
    """As `export`, with the error that was measured on each output."""
    torch = import_torch()
    if not isinstance(module, torch.nn.Module):
        raise ExportError(f"a {type(module).__name__} cannot be exported, only a torch.nn.Module")
    example = make_example(module.forward, args, dynamic=dynamic, input_names=input_names)
    with evaluation_mode(module):
        names = _output_names(module, example, output_names)
        model = _torch_export(module, example, opset)
        _name_values(model, example.names, names)
        _copy_tensors(model)
        _drop_metadata(model)
        if example.sizes:
            _drop_inner_shapes(model)
        record_provenance(model, module.state_dict(keep_vars=True))
        checks = check(model, module, example, seed) if verify else []
    return Exported(model, checks)


def _torch_export(module: torch.nn.Module, example: Example, opset: int) -> ir.Model:
    torch = import_torch()
    if not 18 <= opset <= 25:
        raise ExportError(f"opset {opset} is not supported; give 18 to 25")
    forget_recurrent_kernels()
    try:
        # Optimizing renames weights and folds others under their old name, so that none could be mapped back.
        with quiet(), unchanged_buffers(module), torch.no_grad():
            program = torch.onnx.export(
                module, example.args, kwargs=example.kwargs, dynamic_shapes=example.dynamic_shapes(),
                dynamo=True, optimize=False, opset_version=opset, verbose=False,
            )  # fmt: skip
    except Exception as error:  # torch raises its own classes, and whatever the module's code does
        raise ExportError(f"torch cannot export the module: {reason(error)}") from error
    model: ir.Model = program.model
    if (given := model.opset_imports.get("")) != opset:
        # Seen with versions that torch does not know: it gives another one without a word.
        raise ExportError(f"torch wrote opset {given} where {opset} was asked for; give 21")
    return model


def _output_names(module: torch.nn.Module, example: Example, wanted: Sequence[str] | None) -> list[str]:
    """The names asked for, else the keys of a module that gives a dict of tensors, else numbered ones."""
    keys: list[str] = []

    def note_keys(_module: Any, _args: Any, result: Any) -> None:
        if isinstance(result, Mapping):
            torch = import_torch()
            keys.extend(str(key) for key, value in result.items() if isinstance(value, torch.Tensor))

    handle = module.register_forward_hook(note_keys)
    try:
        count = len(forward_of(module)(example))
    finally:
        handle.remove()
    if wanted is not None:
        if len(wanted) != count or len({*wanted, *example.names}) != count + len(example.names):
            raise ExportError(f"output_names must be {count} names, different and not those of inputs")
        return list(wanted)
    numbered = ["output"] if count == 1 else [f"output_{i}" for i in range(count)]
    names = keys if len(keys) == count else numbered
    return [f"{name}_out" if name in example.names else name for name in names]


def _name_values(model: ir.Model, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Give inputs and outputs their names, and every output a value of its own."""
    graph = model.graph
    if len(graph.inputs) != len(inputs) or len(graph.outputs) != len(outputs):
        raise ExportError(
            f"torch exported {len(graph.inputs)} inputs and {len(graph.outputs)} outputs, "
            f"the module has {len(inputs)} and {len(outputs)}"
        )
    seen: set[int] = set()
    for index, value in enumerate(graph.outputs):
        # An input, an initializer, or one tensor given twice: renaming it would rename the other one too.
        if value.producer() is None or id(value) in seen:
            node = ir.node("Identity", [value])
            node.outputs[0].shape, node.outputs[0].type = value.shape, value.type
            graph.append(node)
            graph.outputs[index] = node.outputs[0]
        seen.add(id(graph.outputs[index]))
    ends = [*graph.inputs, *graph.outputs]
    names = [*inputs, *outputs]
    taken = {*names, *(str(value.name) for value in _values(graph))}
    for value in _values(graph):
        if value.name in names and not any(value is end for end in ends):
            value.name = next(new for i in itertools.count() if (new := f"{value.name}_{i}") not in taken)
            taken.add(value.name)
    for value, name in zip(ends, names, strict=True):
        value.name = name


def _values(graph: ir.Graph) -> Iterable[ir.Value]:
    produced = (value for node in graph.all_nodes() for value in node.outputs)
    return [*graph.inputs, *graph.initializers.values(), *produced]


def _copy_tensors(model: ir.Model) -> None:
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is not None:
            value.const_value = ir.Tensor(np.array(tensor.numpy()), dtype=tensor.dtype, name=value.name)


def _drop_metadata(model: ir.Model) -> None:
    """Leave out paths of the machine and what only a debugger of torch's exporter reads."""
    model.graph.metadata_props.clear()
    for node in model.graph.all_nodes():
        scopes = node.metadata_props.get(NAME_SCOPES)
        node.metadata_props.clear()
        if scopes is not None:
            node.metadata_props[NAME_SCOPES] = scopes
    for value in _values(model.graph):
        value.metadata_props.clear()


def _drop_inner_shapes(model: ir.Model) -> None:
    """Torch's inner shapes hold sizes of the example where they should be dynamic (an LSTM's): false ones are
    worse than none, and whoever needs them infers them."""
    outputs = {id(value) for value in model.graph.outputs}
    for node in model.graph.all_nodes():
        for value in node.outputs:
            if id(value) not in outputs:
                value.shape = None
