"""Example inputs of a module: their names, their dynamic dimensions, and fresh values like theirs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from onnxcompress.errors import ExportError
from onnxcompress.exporting.framework import import_torch

if TYPE_CHECKING:
    import torch

Dynamic = Mapping[str, Mapping[int, str]]


@dataclass(frozen=True)
class Example:
    """Inputs of one call of a module.

    Attributes:
        tensors: every input tensor, in the order of the graph's inputs.
        keywords: of the last `len(keywords)` tensors: the parameter each is passed as; the others go by position.
        names: of the graph's inputs.
        dynamic: by input, dimension to symbol.
        signature: of the module's forward method.
    """

    tensors: tuple[torch.Tensor, ...]
    keywords: tuple[str, ...]
    names: tuple[str, ...]
    dynamic: tuple[Mapping[int, str], ...]
    signature: inspect.Signature

    @property
    def args(self) -> tuple[torch.Tensor, ...]:
        return self.tensors[: len(self.tensors) - len(self.keywords)]

    @property
    def kwargs(self) -> dict[str, torch.Tensor]:
        return dict(zip(self.keywords, self.tensors[len(self.args) :], strict=True))

    @property
    def sizes(self) -> dict[str, int]:
        """Size of every dynamic symbol in this example."""
        pairs = zip(self.tensors, self.dynamic, strict=True)
        return {symbol: tensor.shape[dim] for tensor, dims in pairs for dim, symbol in dims.items()}

    def dynamic_shapes(self) -> dict[str, Any] | None:
        """The dynamic dimensions in the nesting that torch.export wants: by parameter of the forward method."""
        if not any(self.dynamic):
            return None
        specs = [dict(dims) or None for dims in self.dynamic]
        by_position, by_keyword = specs[: len(self.args)], specs[len(self.args) :]
        bound = self.signature.bind(*by_position, **dict(zip(self.keywords, by_keyword, strict=True)))
        return dict(bound.arguments)

    def fresh(self, sizes: Mapping[str, int], generator: torch.Generator) -> Example:
        """Other values, within the range of the example's own, with dynamic dimensions of the sizes given."""
        tensors = []
        for tensor, dims in zip(self.tensors, self.dynamic, strict=True):
            shape = list(tensor.shape)
            for dim, symbol in dims.items():
                shape[dim] = sizes[symbol]
            tensors.append(_fresh_values(tensor, shape, generator))
        return replace(self, tensors=tuple(tensors))


def make_example(
    forward: Callable[..., Any],
    args: Any,
    *,
    dynamic: Dynamic | None = None,
    input_names: Sequence[str] | None = None,
) -> Example:
    """Bind example tensors to a forward method.

    Args:
        forward: the method they are for.
        args: a tensor, a sequence of tensors passed by position, or a mapping of tensors passed by name.
        dynamic: by input name, dimension (negative: from the end) to the symbol that names its size.
        input_names: names of the inputs, in order; the forward method's own when None.

    Raises:
        ExportError: something else than tensors, arguments that forward does not take, names or dimensions that
            do not exist, or one symbol for two sizes.
    """
    torch = import_torch()
    if isinstance(args, torch.Tensor):
        args = (args,)
    by_name = isinstance(args, Mapping)
    if not by_name and not isinstance(args, Sequence):
        raise ExportError(f"example inputs are a {type(args).__name__}; give a tuple or a dict of tensors")
    for key, value in args.items() if by_name else enumerate(args):
        if not isinstance(value, torch.Tensor):
            raise ExportError(f"example input {key!r} is a {type(value).__name__}, not a tensor")
    signature = inspect.signature(forward)
    try:
        bound = signature.bind(**args) if by_name else signature.bind(*args)
    except TypeError as error:
        raise ExportError(f"the example inputs do not fit the module's forward{signature}: {error}") from error
    own = _own_names(bound)
    tensors = tuple(args[name] for name in own) if by_name else tuple(args)
    names = tuple(own if input_names is None else input_names)
    if len(names) != len(tensors) or len(set(names)) != len(names):
        raise ExportError(f"input_names must be {len(tensors)} different names, not {', '.join(names) or 'none'}")
    dims = _dynamic_dims(names, tensors, dynamic or {})
    return Example(tensors, tuple(own) if by_name else (), names, dims, signature)


def _own_names(bound: inspect.BoundArguments) -> list[str]:
    names: list[str] = []
    for name, value in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            names += [f"{name}_{index}" for index in range(len(value))]
        elif kind is inspect.Parameter.VAR_KEYWORD:
            names += list(value)
        else:
            names.append(name)
    return names


def _dynamic_dims(
    names: Sequence[str], tensors: Sequence[torch.Tensor], dynamic: Dynamic
) -> tuple[dict[int, str], ...]:
    unknown = [name for name in dynamic if name not in names]
    if unknown:
        raise ExportError(f"dynamic names {unknown[0]!r}; the inputs are {', '.join(names)}")
    sizes: dict[str, int] = {}
    result: list[dict[int, str]] = []
    for name, tensor in zip(names, tensors, strict=True):
        dims: dict[int, str] = {}
        for dim, symbol in dynamic.get(name, {}).items():
            if not -tensor.ndim <= dim < tensor.ndim:
                raise ExportError(f"dynamic dimension {dim} of {name!r}: it has {tensor.ndim} dimensions")
            if not symbol.isidentifier():
                raise ExportError(f"dynamic dimension {dim} of {name!r}: {symbol!r} is not a name")
            size = tensor.shape[dim % tensor.ndim]
            if sizes.setdefault(symbol, size) != size:
                raise ExportError(f"dynamic {symbol!r} is {sizes[symbol]} and {size} in the example inputs")
            dims[dim % tensor.ndim] = symbol
        result.append(dims)
    return tuple(result)


def _fresh_values(example: torch.Tensor, shape: Sequence[int], generator: torch.Generator) -> torch.Tensor:
    """Floats: uniform between the least and the greatest of the example (normal where it is all zeros);
    integers and booleans: drawn from its own values, so that ids stay valid."""
    torch = import_torch()
    if example.is_complex():
        raise ExportError("complex inputs cannot be exported")
    if example.numel() == 0:
        return torch.zeros(shape, dtype=example.dtype, device=example.device)
    values = example.detach().cpu().reshape(-1)
    if not example.is_floating_point():
        drawn = values[torch.randint(values.numel(), tuple(shape), generator=generator)]
        return drawn.to(example.device)
    low, high = float(values.min()), float(values.max())
    if low == high == 0.0:
        drawn = torch.randn(tuple(shape), generator=generator)
    else:
        low, high = (low, high) if low < high else (min(low, 0.0), max(low, 0.0))
        drawn = low + (high - low) * torch.rand(tuple(shape), generator=generator)
    return drawn.to(example.dtype).to(example.device)
