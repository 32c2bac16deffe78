"""How convolutions and matrix products couple axes."""

from __future__ import annotations

import onnx_ir as ir

from onnxcompress.passes.prune.channels.dims import Dim, factor, freeze, product, root, unify
from onnxcompress.passes.prune.channels.fixes import Count
from onnxcompress.passes.prune.channels.trace import (
    POSITIONS,
    Axes,
    Cost,
    Reader,
    Role,
    Trace,
    broadcast,
    title,
    whole,
)
from onnxcompress.passes.simplify.editor import attribute, tensor_of


def convolution(trace: Trace, node: ir.Node) -> list[Axes | None] | None:
    """x [N, C, ...], w [M, C / group, ...], bias [M].

    1. One group: w reads C and makes M.
    2. More: C is groups x channels, M groups x outputs, and both have the same groups. Depthwise: C is the groups.
    """
    found = _operands(trace, node)
    if found is None:
        return None
    x, w, groups = found
    if groups == 1:
        unify(x[1], w[1])
    else:
        inner, outer = factor(x[1], groups), factor(w[0], groups)
        if inner is None or outer is None:
            return None
        unify(inner[0], outer[0])
        unify(inner[1], w[1])
        trace.shape_fixes[node] = Count("group", inner[0])
    _set_roles(trace, node, 1, {0: "makes", 1: "reads"})
    if not trace.couple(node, 2, [w[0]]):
        return None
    trace.readers.append(Reader(node, 0, 1, w[0]))
    trace.costs.append(Cost(node, (x[0], w[0], w[1])))
    return [[x[0], w[0], *(trace.own_axis(node.outputs[0], i) for i in range(2, len(x)))]]


def transposed_convolution(trace: Trace, node: ir.Node) -> list[Axes | None] | None:
    """x [N, C, ...], w [C, M / group, ...], bias [M]: w reads C and makes M."""
    found = _operands(trace, node)
    if found is None:
        return None
    x, w, groups = found
    unify(x[1], w[0])
    made = w[1]
    if groups > 1:
        parts = factor(x[1], groups)
        if parts is None:
            return None
        made = product([parts[0], w[1]])
        trace.shape_fixes[node] = Count("group", parts[0])
    _set_roles(trace, node, 1, {0: "reads", 1: "makes"})
    if not trace.couple(node, 2, [made]):
        return None
    trace.costs.append(Cost(node, (x[0], w[0], w[1])))
    return [[x[0], made, *(trace.own_axis(node.outputs[0], i) for i in range(2, len(x)))]]


def matrix_product(trace: Trace, node: ir.Node) -> list[Axes | None] | None:
    """a [..., M, K] by b [..., K, N], batch axes broadcast; vectors as numpy.matmul takes them."""
    a, b = trace.axes(node, 0), trace.axes(node, 1)
    if not a or not b:
        return None
    left = a if len(a) > 1 else [Dim(1), *a]
    right = b if len(b) > 1 else [*b, Dim(1)]
    unify(left[-1], right[-2])
    batch = broadcast(trace, [left[:-2], right[:-2]], node.outputs[0], node)
    _set_roles(trace, node, 0, {len(a) - 1: "reads", len(a) - 2: "makes"})
    _set_roles(trace, node, 1, {len(b) - 2: "reads", len(b) - 1: "makes"} if len(b) > 1 else {0: "reads"})
    constant = [tensor_of(value) is not None for value in node.inputs]
    if not any(constant):
        trace.heads.extend(batch)
    if constant == [False, True] and len(b) == 2:
        trace.readers.append(Reader(node, 0, 1, right[-1]))
    trace.costs.append(Cost(node, (*batch, left[-2], left[-1], right[-1])))
    result = [*batch, *(left[-2:-1] if len(a) > 1 else []), *(right[-1:] if len(b) > 1 else [])]
    return [result]


def gemm(trace: Trace, node: ir.Node) -> list[Axes | None] | None:
    """a [M, K] (or transposed) by b [K, N] (or transposed), plus c, which broadcasts to [M, N]."""
    a, b = trace.axes(node, 0), trace.axes(node, 1)
    if a is None or b is None or len(a) != 2 or len(b) != 2:
        return None
    across, down = attribute(node, "transA", 0), attribute(node, "transB", 0)
    rows, inner = (a[1], a[0]) if across else (a[0], a[1])
    depth, columns = (b[1], b[0]) if down else (b[0], b[1])
    unify(inner, depth)
    _set_roles(trace, node, 0, {0 if across else 1: "reads", 1 if across else 0: "makes"})
    _set_roles(trace, node, 1, {1 if down else 0: "reads", 0 if down else 1: "makes"})
    c = trace.axes(node, 2) or []
    for dim, target in zip(reversed(c), (columns, rows), strict=False):
        if root(dim).size != 1:
            unify(dim, target)
    if tensor_of(node.inputs[0]) is None and tensor_of(node.inputs[1]) is not None and not across:
        trace.readers.append(Reader(node, 0, 1, columns))
    trace.costs.append(Cost(node, (rows, inner, columns)))
    return [[rows, columns]]


def einsum(trace: Trace, node: ir.Node) -> list[Axes | None] | None:
    """One or two operands, an explicit result, no ellipsis and no diagonal: each letter is one axis."""
    equation = str(attribute(node, "equation", "")).replace(" ", "")
    sources, arrow, target = equation.partition("->")
    terms = sources.split(",")
    if not arrow or "." in equation or len(terms) != len(node.inputs) or len(terms) > 2:
        return None
    letters: dict[str, Dim] = {}
    for index, term in enumerate(terms):
        axes = trace.axes(node, index)
        if axes is None or len(axes) != len(term) or len(set(term)) != len(term):
            return None
        for letter, dim in zip(term, axes, strict=True):
            if letter in letters and (root(dim).size == 1) != (root(letters[letter]).size == 1):
                whole([axes, list(letters.values())], f"{title(node)} broadcasts an axis")
                return None
            unify(letters.setdefault(letter, dim), dim)
    shared = set(terms[0]) & set(terms[-1]) if len(terms) == 2 else set()
    for index, term in enumerate(terms):
        roles: dict[int, Role] = {i: "makes" if t in target else "reads" for i, t in enumerate(term)}
        _set_roles(trace, node, index, {i: role for i, role in roles.items() if term[i] not in shared & set(target)})
    if not any(tensor_of(value) is not None for value in node.inputs):
        trace.heads.extend(letters[letter] for letter in target if letter in shared)
    if len(terms) == 2:
        trace.costs.append(Cost(node, tuple(letters.values())))
    else:  # a sum over an axis that no weight is applied to
        whole([[letters[letter] for letter in terms[0] if letter not in target]], f"{title(node)} sums over it")
    return [[letters[letter] for letter in target]]


def _operands(trace: Trace, node: ir.Node) -> tuple[Axes, Axes, int] | None:
    """Data, weight and groups of a convolution; axes that are places stay whole."""
    x, w = trace.axes(node, 0), trace.axes(node, 1)
    if x is None or w is None or len(x) != len(w) or len(x) < 3:
        return None
    groups = int(attribute(node, "group", 1))
    if root(x[1]).size is None:
        inputs = root(w[0] if node.op_type == "ConvTranspose" else w[1]).size
        if inputs is None:
            return None
        unify(x[1], Dim(inputs * (1 if node.op_type == "ConvTranspose" else groups)))
    for dim in (*x[2:], *w[2:]):
        freeze(dim, POSITIONS)
    return x, w, groups


def _set_roles(trace: Trace, node: ir.Node, index: int, roles: dict[int, Role]) -> None:
    for axis, role in roles.items():
        if axis >= 0:
            trace.set_role(node, index, axis, role)
