"""Runs an operator in each of its forms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import onnx
import onnx.inliner
import onnx.reference
import onnx.reference.op_run
import onnx_ir as ir
import onnxruntime as ort

from onnxcompress.ops import DOMAIN, OPS
from onnxcompress.passes.lower.functions import AttachFunctions
from onnxcompress.runtime import library
from onnxcompress.runtime.devices import CPU, CUDA
from tests.ops.cases.case import Array, Case

OPSET = 21
Outputs = dict[str, Array]


def reference(case: Case) -> Outputs:
    """The numpy reference."""
    op = OPS[case.op]
    results = op.reference({**op.attributes, **case.attributes}, *_padded(case))
    return _named(case, [r for r in results])


def torch_form(case: Case) -> Outputs:
    """The torch function."""
    import torch

    from onnxcompress.torch.ops import TORCH_OPS

    op = OPS[case.op]
    tensors = [None if x is None else torch.from_numpy(np.array(x)) for x in _padded(case)]
    results = TORCH_OPS[case.op]({**op.attributes, **case.attributes}, *tensors)
    return _named(case, [None if r is None else r.detach().numpy() for r in results])


def kernel(case: Case, instruction_set: str, threads: int = 1) -> Outputs:
    """The native kernel for one instruction set, in ONNX Runtime."""
    with forced(instruction_set):
        options = ort.SessionOptions()
        library.register(options)
        return _run(case, model(case, functions=False), options, threads)


def on_gpu(case: Case) -> Outputs:
    """The native kernel for CUDA, in ONNX Runtime; nothing of the model may run on the CPU."""
    options = ort.SessionOptions()
    library.register(options)
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return _run(case, model(case, functions=False), options, 1, CUDA[0])


def body(case: Case) -> Outputs:
    """The function body in stock ONNX Runtime."""
    options = ort.SessionOptions()
    # Where it makes 4-bit products of its own of a body: with activations in float, not rounded to bytes.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "0")
    return _run(case, model(case), options, 1)


class GatherElements(onnx.reference.op_run.OpRun):
    """The standard operator; the one of onnx takes at most 64 entries along the axis."""

    def _run(self, data: Array, indices: Array, axis: int = 0) -> tuple[Array]:
        return (np.take_along_axis(data, indices, axis),)


def reference_evaluator(case: Case) -> Outputs:
    """The function body, inlined, in onnx's reference evaluator."""
    inlined = onnx.inliner.inline_local_functions(model(case))
    session = onnx.reference.ReferenceEvaluator(inlined, new_ops=[GatherElements])
    feeds = {f"i{i}": x for i, x in enumerate(case.inputs) if x is not None and not _is_constant(case, i)}
    return dict(zip(case.outputs, session.run(None, feeds), strict=True))


@contextmanager
def forced(instruction_set: str) -> Iterator[None]:
    """The kernels of one instruction set."""
    library.force_instruction_set(instruction_set)
    try:
        yield
    finally:
        library.force_instruction_set("")


def instruction_sets() -> list[str]:
    """Those that this processor has."""
    return [name for name in ("scalar", "avx2", "avx512", "avx512vbmi") if library.has_instruction_set(name)]


def model(case: Case, functions: bool = True) -> onnx.ModelProto:
    """A model of one node, constants as initializers."""
    op = OPS[case.op]
    values: list[ir.Value | None] = []
    for i, x in enumerate(case.inputs):
        if x is None:
            values.append(None)
            continue
        value = ir.Value(name=f"i{i}", type=ir.TensorType(ir.DataType.from_numpy(x.dtype)), shape=ir.Shape(x.shape))
        if _is_constant(case, i):
            value.const_value = ir.tensor(x, name=f"i{i}")
        values.append(value)
    while values and values[-1] is None:
        values.pop()
    outputs = [ir.Value(name=port.name if port.name in case.outputs else "") for port in op.outputs]
    while not outputs[-1].name:
        outputs.pop()
    for port, value in zip(op.outputs, outputs, strict=False):
        like = ir.DataType.from_numpy(np.asarray(case.inputs[0]).dtype)  # of several, that of the first input
        value.type = ir.TensorType(ir.DataType[port.types[0].upper()] if len(port.types) == 1 else like)
    node = ir.node(op.name, values, dict(case.attributes), domain=DOMAIN, outputs=outputs)
    graph = ir.Graph(
        [v for v in values if v is not None and v.const_value is None],
        [value for value in outputs if value.name],
        nodes=[node],
        initializers=[v for v in values if v is not None and v.const_value is not None],
        opset_imports={"": OPSET, DOMAIN: 1},
        name="case",
    )
    made = ir.Model(graph, ir_version=10)
    if functions:
        AttachFunctions()(made)
    return ir.to_proto(made)


def _run(
    case: Case, proto: onnx.ModelProto, options: ort.SessionOptions, threads: int, provider: str = CPU[0]
) -> Outputs:
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=[provider])
    feeds = {f"i{i}": x for i, x in enumerate(case.inputs) if x is not None and not _is_constant(case, i)}
    return dict(zip(case.outputs, session.run(list(case.outputs), feeds), strict=True))


def _is_constant(case: Case, index: int) -> bool:
    ports = OPS[case.op].inputs
    port = ports[min(index, len(ports) - 1)]
    return port.constant or port.name in case.constants


def _padded(case: Case) -> list[Array | None]:
    missing = len(OPS[case.op].inputs) - len(case.inputs)
    return [*case.inputs, *[None] * missing]


def _named(case: Case, results: list[Array | None]) -> Outputs:
    named = dict(zip([port.name for port in OPS[case.op].outputs], results, strict=False))
    wanted = {name: named[name] for name in case.outputs}
    assert all(value is not None for value in wanted.values()), "an output that was asked for was not computed"
    return {name: np.asarray(value) for name, value in wanted.items()}


FORMS: dict[str, Callable[[Case], Outputs]] = {
    "torch": torch_form,
    "body": body,
    "reference_evaluator": reference_evaluator,
}
