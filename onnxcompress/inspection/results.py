"""What `inspect` finds, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from onnxcompress.inspection.facts import Shape


@dataclass(frozen=True)
class ValueReport:
    """An input or output; `shape` None: unknown rank; a dimension None or a str: open."""

    name: str
    dtype: str | None
    shape: Shape | None
    constant: bool = False


@dataclass(frozen=True)
class Quantization:
    """How a compute node runs.

    Attributes:
        state: `quantized` (integer weights and activations), `weight-only` or `float`.
        weights: element type of its quantized weight; None if it is float.
        activations: element type and `static` or `dynamic`; None if they are float.
        reason: why it does not run quantized; empty where it does.
    """

    state: str
    weights: str | None = None
    activations: str | None = None
    reason: str = ""


@dataclass(frozen=True)
class NodeReport:
    """One node at one place where it is run.

    Attributes:
        name: its own name, or its operator and index in its graph.
        op: operator, with its domain unless that is the standard one.
        scope: nodes around it, outermost first: If.then, Loop, Scan, function calls.
        macs: multiply-accumulates in one run of the model; None where shapes are unknown.
        parameters: elements of the weights it takes, directly or through constant nodes.
        weights: the names of those, and of constants that are no parameters.
        activation_bytes: bytes of its outputs in one run; 0 for constant ones, None where unknown.
        executions: times it is run in one run of the model, as far as known.
        counted: False in branches of an If that are not taken (or are the cheaper ones).
        quantization: None for a node that is no compute node.
        replaces: names of the nodes of the model before lowering that it does the work of.
    """

    name: str
    op: str
    scope: tuple[str, ...]
    inputs: tuple[ValueReport | None, ...]
    outputs: tuple[ValueReport, ...]
    attributes: Mapping[str, str]
    macs: int | None
    parameters: int
    weights: tuple[str, ...]
    activation_bytes: int | None
    executions: int
    counted: bool
    quantization: Quantization | None
    replaces: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class TensorReport:
    """One stored tensor: an initializer, or the value of a Constant node.

    Attributes:
        elements: weights it holds; for packed 4-bit weights, and blocks that stand for a sparse matrix, more than its
            shape says.
        bytes: as stored.
        zeros: elements that are 0, or a quantized weight's zero point; None where that is not one number.
        groups_2_4: share of groups of 4 along the input channels with 2 zeros or more; None if not looked at.
        blocks_4x4: share of 4x4 blocks (outputs x inputs) that are all zero; None if not looked at.
        file: external data file; None if it is in the model.
        parameter: False for what is no weight: int64, booleans and strings (shapes, indices), scales, zero points.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    elements: int
    bytes: int
    zeros: int | None
    groups_2_4: float | None
    blocks_4x4: float | None
    file: str | None
    parameter: bool

    @property
    def sparsity(self) -> float | None:
        """Share of zeros; None if unknown or the tensor is empty."""
        return None if self.zeros is None or not self.elements else self.zeros / self.elements


@dataclass(frozen=True)
class WeightStatistics:
    """Of a stored tensor's elements as they are stored; non-finite ones are counted and left out."""

    name: str
    minimum: float
    maximum: float
    mean: float
    std: float
    nonfinite: int


@dataclass(frozen=True)
class Coverage:
    """Quantization coverage: compute nodes, and the share of multiply-accumulates run in integers."""

    compute_nodes: int
    quantized: int
    weight_only: int
    floating: int
    macs_share: float | None
    reasons: Mapping[str, int]


@dataclass(frozen=True)
class Inspection:
    """All that `inspect` finds.

    Attributes:
        macs: multiply-accumulates of one run, nodes with unknown shapes left out.
        unknown_macs: compute nodes left out of `macs`.
        activation_bytes: bytes written by all nodes in one run, unknown ones left out.
        unknown_activations: nodes left out of `activation_bytes`.
        parameters: elements of all weights, each counted once.
        sparsity: share of zeros in the weights of two and more dimensions; None if there are none.
        operators: count by operator, nodes of functions once for each function.
        external_files: bytes on disk by file name.
    """

    ir_version: int
    producer: str
    opsets: Mapping[str, int]
    metadata: Mapping[str, str]
    functions: Mapping[str, int]
    inputs: tuple[ValueReport, ...]
    outputs: tuple[ValueReport, ...]
    parameters: int
    weight_bytes: int
    bytes_by_dtype: Mapping[str, int]
    macs: int
    unknown_macs: int
    activation_bytes: int
    unknown_activations: int
    operators: Mapping[str, int]
    sparsity: float | None
    coverage: Coverage
    external_files: Mapping[str, int]
    tensors: tuple[TensorReport, ...]
    nodes: tuple[NodeReport, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON; every tensor with its `sparsity`."""
        document = asdict(self)
        for tensor, values in zip(self.tensors, document["tensors"], strict=True):
            values["sparsity"] = tensor.sparsity
        return document
