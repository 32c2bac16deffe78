"""Passes over the whole model: dead code, common subexpressions, branches that are decided, functions."""

from __future__ import annotations

import onnx_ir as ir
import onnx_ir.passes.common as common

from onnxcompress.passes.simplify.editor import (
    STANDARD_DOMAINS,
    Editor,
    all_graphs,
    all_nodes,
    array_of,
    may_hold_graphs,
    subgraphs,
)

OWN_DOMAIN = "onnxcompress"

STATEFUL = frozenset(
    ["RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"]
)


class InlineFunctions(ir.passes.InPlacePass):
    """Put the bodies of model-local functions in the place of their calls.

    Cases:
      1. Functions of this project's own domain: kept, for the call is a kernel and the body its stand-in, unless
         `portable`.
      2. A function whose opset is not the model's, or with graph attributes: kept.
      3. All others: inlined.
    """

    def __init__(self, portable: bool = False) -> None:
        super().__init__()
        self.portable = portable

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        if not model.functions:
            return ir.passes.PassResult(model, False)
        result = common.InlinePass(criteria=lambda function: _inlinable(function, model, self.portable))(model)
        return ir.passes.PassResult(model, result.modified)


def _inlinable(function: ir.Function, model: ir.Model, portable: bool) -> bool:
    if function.domain == OWN_DOMAIN and not portable:
        return False
    imports = model.graph.opset_imports
    return all(imports.get(domain, version) == version for domain, version in function.opset_imports.items())


class RemoveDead(ir.passes.InPlacePass):
    """Remove what nothing reads.

    Cases:
      1. Nodes of the main graph and subgraphs with no read output, and what only they needed.
      2. Initializers that nothing reads, unless they are graph inputs or outputs.
      3. Trailing inputs that are absent; trailing optional outputs that nothing reads.
      4. Functions that nothing calls, opset imports that nothing needs.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        editor = Editor(model)
        for node in reversed(list(all_nodes(model))):
            editor.collect(node)
        modified = bool(editor.changes)
        for graph in all_graphs(model):
            for value in list(graph.initializers.values()):
                if not (value.uses() or value.is_graph_output() or value.is_graph_input()):
                    assert value.name is not None
                    graph.initializers.pop(value.name)
                    modified = True
        modified |= common.RemoveUnusedNodesPass()(model).modified
        modified |= common.RemoveUnusedFunctionsPass()(model).modified  # type: ignore[no-untyped-call]
        modified |= common.RemoveUnusedOpsetsPass()(model).modified
        return ir.passes.PassResult(model, modified)


class ShareSubexpressions(ir.passes.InPlacePass):
    """Compute equal things once.

    Cases:
      1. Two nodes of one graph with the same op, inputs, attributes and number of outputs: the later goes.
      2. A later one that makes a graph output: the earlier takes its name, where it is no output itself.
      3. Nodes with subgraphs, and random ones: never.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        editor = Editor(model)
        seen: dict[tuple[object, ...], ir.Node] = {}
        for node in list(all_nodes(model)):
            if (
                node.op_type in STATEFUL
                or node.graph is None
                or (may_hold_graphs(node) and next(subgraphs(node), None) is not None)
            ):
                continue
            key = (
                id(node.graph), node.op_identifier(), len(node.outputs), tuple(id(v) for v in node.inputs),
                tuple(sorted((name, _hashable(a)) for name, a in node.attributes.items())),
            )  # fmt: skip
            first = seen.setdefault(key, node)
            if first is node:
                continue
            pairs = list(zip(node.outputs, first.outputs, strict=True))
            if all(editor.can_replace(old, new) or not (old.uses() or old.is_graph_output()) for old, new in pairs):
                for old, new in pairs:
                    if old.uses() or old.is_graph_output():
                        editor.replace(old, new)
                editor.collect(node)
        return ir.passes.PassResult(model, bool(editor.changes))


def _hashable(item: ir.Attr) -> object:
    if item.is_ref():
        return ("ref", item.ref_attr_name)
    if item.type == ir.AttributeType.TENSOR:
        tensor = item.as_tensor()
        return (
            str(tensor.dtype),
            tuple(tensor.shape),
            tensor.tobytes() if tensor.nbytes <= 4096 else id(tensor),
        )
    if isinstance(item.value, list | tuple):
        return (
            str(item.type),
            tuple(str(v) if not isinstance(v, int | float | str) else v for v in item.value),
        )
    return (str(item.type), item.value if isinstance(item.value, int | float | str) else id(item.value))


class InlineBranches(ir.passes.InPlacePass):
    """Replace an If whose condition is constant by the branch that it takes.

    Cases:
      1. The condition is a constant: the branch's nodes move into the graph of the If, under fresh names.
      2. An output of the branch that is a value from outside, or a graph output that cannot take another name:
         an Identity is put between.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        editor = Editor(model)
        modified = False
        pending = [node for node in all_nodes(model) if node.op_type == "If" and node.domain in STANDARD_DOMAINS]
        for node in pending:
            condition = array_of(node.inputs[0], limit=16)
            if condition is None or condition.size != 1 or node.graph is None:
                continue
            name = "then_branch" if bool(condition.reshape(()).item()) else "else_branch"
            if name not in node.attributes or node.attributes[name].is_ref():
                continue
            self._inline(node, node.attributes[name].as_graph(), editor)
            modified = True
        return ir.passes.PassResult(model, modified)

    def _inline(self, node: ir.Node, branch: ir.Graph, editor: Editor) -> None:
        assert node.graph is not None
        for value in list(branch.initializers.values()):
            assert value.name is not None and value.const_value is not None
            branch.initializers.pop(value.name)
            value.name = editor.fresh(value.name)
            editor.model.graph.register_initializer(value)
        results = list(branch.outputs)
        branch.outputs.clear()
        for inner in list(branch):
            branch.remove(inner)
            for output in inner.outputs:
                output.name = editor.fresh(output.name) if output.name else output.name
            inner.name = editor.fresh(inner.name or inner.op_type)
            node.graph.insert_before(node, inner)
        for old, new in zip(list(node.outputs), results, strict=True):
            if not editor.can_replace(old, new):
                like = old if old.shape is not None else new
                new = editor.insert("Identity", [new], before=node, like=like).outputs[0]
            editor.replace(old, new)
        editor.collect(node)


def count_nodes(model: ir.Model) -> int:
    """Nodes of the main graph and its subgraphs, Constant nodes not counted."""
    return sum(node.op_type != "Constant" for node in all_nodes(model))
