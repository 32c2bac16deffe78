"""Writing steps as operators of ours on uint8 NHWC, and the conversions at their borders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcompress.ops import DOMAIN, OPS, VERSION
from onnxcompress.passes.lower.convolution.describing import describe
from onnxcompress.passes.lower.convolution.flow import CONVOLUTIONS, Flow
from onnxcompress.passes.lower.convolution.reading import channels
from onnxcompress.passes.lower.convolution.steps import (
    Array,
    Operand,
    Step,
    Table,
    as_array,
    as_table,
    composed,
    constants_of,
)
from onnxcompress.passes.lower.convolution.tables import IDENTITY, read_parameters
from onnxcompress.passes.lower.functions import REPLACES
from onnxcompress.passes.quantize.arithmetic import Parameters
from onnxcompress.passes.simplify.editor import Editor, is_op, producer

STEM_CHANNELS = 4
"""Float images of so few channels are quantized inside their first convolution."""

TO_NHWC, TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)


class Emitter:
    """Writes the steps of a flow into its graph.

    Every uint8 tensor of the old graph has an NHWC twin, or several: one for each function of it that is read. The
    one function that all its readers want is computed by the operator that writes it.
    """

    def __init__(self, model: ir.Model, flow: Flow) -> None:
        self.editor = Editor(model)
        self.flow = flow
        self.twins: dict[tuple[ir.Value, Table | None], ir.Value] = {}
        self.written: dict[Step, ir.Node] = {}
        if flow.steps:
            model.graph.opset_imports[DOMAIN] = VERSION

    def emit(self, step: Step) -> None:
        """Write one step, whose operands' steps are written, and what stays reads of it."""
        if step.result.given is not None and self._is_read_as_float_only(step):
            value = self.flow.outside[step.result.value][0]
            self._hand_over(value, self._convolution(step, value))
            return
        if step.result.given is None:
            self._hand_over(step.result.value, self._convolution(step, step.result.value))
            return
        root = step.result.value
        forms = self._forms(root)
        form = next(iter(forms)) if len(forms) == 1 and _takes_table(step) else None
        table = composed(step.result.clip, form)
        inputs = self._inputs(step) | self._constants(constants_of("y", step.result.given) | step.constants)
        if table is not None and step.op == "QConcat":
            inputs["tables"] = self.editor.constant(as_array(table)[_array(inputs["tables"])])
        elif table is not None and _takes_table(step):
            inputs["table"] = self.editor.constant(as_array(table), "table")
        attributes = step.attributes | self._stem(step) | self._hints(step, inputs)
        node = self._write(step.op, inputs, attributes, step.core, root)
        self.twins[root, form] = node.outputs[0]
        self.written[step] = node
        passed = [n for operand in self._readers(root) if operand.table == form for n in operand.nodes] if form else []
        self._replaces(node, [*step.nodes, *passed])
        if table is not None and not _takes_table(step):
            self.twins[root, None] = self._table(node.outputs[0], table, _given(step), step.core, step.result.nodes)
        for value in self.flow.outside.get(root, ()):
            self._leave(root, value, step)

    def _hints(self, step: Step, inputs: Mapping[str, ir.Value]) -> dict[str, Any]:
        """What the step's table is, for the function body; and of QConcat, which tables are the identity."""
        if step.op == "QConcat":
            same = tuple(int(np.array_equal(table, IDENTITY)) for table in _array(inputs["tables"]))
            return {"identity": same} if any(same) else {}
        if "table" not in inputs:
            return {}
        given = _given(step)
        if "y_scale" in step.constants:  # of a convolution before its residual
            scale, zero = (step.constants[name] for name in ("y_scale", "y_zero_point"))
            given = Parameters(float(scale), int(zero), given.dtype)
        elif step.op == "QPool" and step.attributes["mode"] == "max":
            given = step.operands["x"].given
        return describe(_array(inputs["table"]), given)

    def _forms(self, root: ir.Value) -> set[Table | None]:
        """The functions of a root that are read."""
        forms = {self.flow.form(step, port) for step, port in self.flow.readers.get(root, ())}
        return forms | {self._outside_form(value) for value in self.flow.outside.get(root, ())}

    def _readers(self, root: ir.Value) -> list[Operand]:
        return [step.operands[port] for step, port in self.flow.readers.get(root, ())]

    def _outside_form(self, value: ir.Value) -> Table | None:
        """The bytes from which a value is made for nodes that stay: those that it dequantizes, or the root's."""
        dequantize = producer(value, "DequantizeLinear")
        source = value if dequantize is None else dequantize.inputs[0]
        function = self.flow.functions[source] if source is not None else None
        return as_table(function.values) if function is not None and function.values.dtype == np.uint8 else None

    def _inputs(self, step: Step) -> dict[str, ir.Value]:
        inputs: dict[str, ir.Value] = {}
        tables = []
        for port, operand in step.operands.items():
            form = self.flow.form(step, port)
            if self._is_stem(step, operand):
                quantize = producer(operand.root, "QuantizeLinear")
                assert quantize is not None and quantize.inputs[0] is not None
                inputs[port] = quantize.inputs[0]
            else:
                inputs[port] = self._twin(operand, form, step.core)
            if step.op == "QConcat":
                tables.append(as_array(None if form != operand.table else operand.then))
            else:
                inputs |= self._constants(constants_of(port, operand.given))
        if step.op == "QConcat":
            inputs["tables"] = self.editor.constant(np.stack(tables))
            if any(operand.upsample != 1 for operand in step.operands.values()):
                step.attributes["upsample"] = tuple(operand.upsample for operand in step.operands.values())
        elif step.op == "QElementwise" and step.operands["b"].upsample != 1:
            step.attributes["upsample"] = step.operands["b"].upsample
        return inputs

    def _is_stem(self, step: Step, operand: Operand) -> bool:
        """Does the step read a float image of few channels, that nobody else wants in bytes?"""
        if step.op != "QConv" or operand is not step.operands["x"] or operand.table is not None:
            return False
        quantize = producer(operand.root, "QuantizeLinear")
        if operand.root in self.flow.writers or quantize is None or len(self._readers(operand.root)) != 1:
            return False
        return (channels(quantize.inputs[0]) or STEM_CHANNELS + 1) <= STEM_CHANNELS

    def _stem(self, step: Step) -> dict[str, Any]:
        return {"x_layout": "NCHW"} if "x" in step.operands and self._is_stem(step, step.operands["x"]) else {}

    def _twin(self, operand: Operand, form: Table | None, before: ir.Node) -> ir.Value:
        """The bytes that an operand reads, as NHWC."""
        root = operand.root
        if (root, form) in self.twins:
            return self.twins[root, form]
        if (root, None) not in self.twins:
            self.twins[root, None] = self._enter(root, before)
        if form is not None:
            writer = self.flow.writers.get(root)
            quantize = producer(root, "QuantizeLinear")
            given = writer.result.given if writer is not None else quantize and read_parameters(quantize)
            x = self.twins[root, None]
            self.twins[root, form] = self._table(x, form, given or operand.given, before, operand.nodes)
        return self.twins[root, form]

    def _table(
        self, x: ir.Value, table: Table, given: Parameters, before: ir.Node, nodes: Iterable[ir.Node]
    ) -> ir.Value:
        """table[x]; `given`: what the bytes of x mean."""
        node = self.editor.insert(
            "QTable", [x, self.editor.constant(as_array(table), "table")], describe(as_array(table), given),
            before=before, like=x, domain=DOMAIN,
        )  # fmt: skip
        self._replaces(node, nodes)
        return node.outputs[0]

    def _enter(self, root: ir.Value, before: ir.Node) -> ir.Value:
        """The twin of bytes that no step writes: quantized from float, or transposed where they come from int8."""
        quantize = producer(root, "QuantizeLinear")
        given = None if quantize is None else read_parameters(quantize)
        if quantize is None or given is None or _is_integer(quantize):
            node = self.editor.insert("Transpose", [root], {"perm": TO_NHWC}, before=before)
            return _shaped(node, root)
        inputs = {"x": _value(quantize.inputs[0])} | self._constants(constants_of("y", given))
        return self._write("QuantizeNHWC", inputs, {}, before, root).outputs[0]

    def _leave(self, root: ir.Value, value: ir.Value, step: Step) -> None:
        """Give the nodes that stay what they read of a root."""
        form = self._outside_form(value)
        function = self.flow.functions[value]
        x = self._twin(Operand(root, form, _given(step), nodes=function.nodes), form, step.core)
        dequantize = producer(value, "DequantizeLinear")
        if function.values.dtype == np.uint8:
            self._hand_over(value, self._transposed(x, value, step.core))
        elif dequantize is not None and any(map(_reads_integers, value.consumers())):
            self.editor.set_input(dequantize, 0, self._transposed(x, _value(dequantize.inputs[0]), step.core))
        else:
            given = read_parameters(dequantize) if dequantize is not None else _given(step)
            assert given is not None
            inputs = {"x": x} | self._constants(constants_of("x", given))
            if dequantize is None:
                inputs["values"] = self.editor.constant(function.values.astype(np.float32), "values")
            node = self._write("DequantizeNCHW", inputs, {}, step.core, value, nhwc=False)
            if dequantize is None:
                self._replaces(node, function.nodes)
            self._hand_over(value, node.outputs[0])

    def _transposed(self, x: ir.Value, like: ir.Value, before: ir.Node) -> ir.Value:
        return self.editor.insert("Transpose", [x], {"perm": TO_NCHW}, before=before, like=like).outputs[0]

    def _hand_over(self, old: ir.Value, new: ir.Value) -> None:
        """Let those read `new` that still read `old`; a float tensor keeps its name."""
        self.editor.replace(old, new)

    def _is_read_as_float_only(self, step: Step) -> bool:
        """Are the bytes only turned back to float, as they are? Then a convolution need not round."""
        root = step.result.value
        outside = self.flow.outside.get(root, [])
        if step.op not in CONVOLUTIONS or "residual" in step.operands:
            return False
        if self.flow.readers.get(root) or len(outside) != 1:
            return False
        dequantize = producer(outside[0], "DequantizeLinear")
        if dequantize is None or dequantize.inputs[0] is not root or step.result.clip or step.result.nodes:
            return False
        same = read_parameters(dequantize) == step.result.given
        return same and not any(map(_reads_integers, outside[0].consumers()))

    def _convolution(self, step: Step, like: ir.Value) -> ir.Value:
        """A convolution with a float NCHW result."""
        inputs = self._inputs(step) | self._constants(step.constants)
        attributes = step.attributes | self._stem(step) | {"y_layout": "NCHW"}
        node = self._write(step.op, inputs, attributes, step.core, like, nhwc=False, float_result=True)
        self.written[step] = node
        self._replaces(node, step.nodes)
        return node.outputs[1]

    def _constants(self, arrays: Mapping[str, Array]) -> dict[str, ir.Value]:
        return {name: self.editor.constant(array, name) for name, array in arrays.items()}

    def _write(
        self, op: str, inputs: Mapping[str, ir.Value], attributes: Mapping[str, Any], before: ir.Node, like: ir.Value,
        *, nhwc: bool = True, float_result: bool = False,
    ) -> ir.Node:  # fmt: skip
        """A node of ours before another; its result has the type and, transposed, the shape of an old value."""
        ordered: list[ir.Value | None] = []
        for port in OPS[op].inputs:
            if port.variadic:
                ordered += [inputs[name] for name in inputs if name.startswith("x_")]
            else:
                ordered.append(inputs.get(port.name))
        while ordered[-1] is None:
            ordered.pop()
        given = {name: value for name, value in attributes.items() if value != OPS[op].attributes.get(name)}
        node = self.editor.insert(
            op, ordered, given, before=before, outputs=2 if float_result else 1, domain=DOMAIN,
            stem=before.name or like.name,
        )  # fmt: skip
        node.metadata_props.pop(REPLACES, None)
        out = node.outputs[-1]
        if float_result:
            node.outputs[0].name = ""
        out.type = ir.TensorType(ir.DataType.UINT8 if nhwc else ir.DataType.FLOAT)
        out.shape = _permuted(like.shape, TO_NHWC) if nhwc else (None if like.shape is None else like.shape.copy())
        return node

    def _replaces(self, node: ir.Node, nodes: Iterable[ir.Node]) -> None:
        names = dict.fromkeys(n.name for n in nodes if n.name and not is_op(n, "QuantizeLinear", "DequantizeLinear"))
        node.metadata_props[REPLACES] = "\n".join(names)


def _takes_table(step: Step) -> bool:
    """Can the operator apply a function to its result?"""
    return step.op != "QSqueezeExcite" and not step.attributes.get("residual_after")


def _is_integer(quantize: ir.Node) -> bool:
    """Does ONNX Runtime make this Q part of an int8 kernel, that of the node before it?"""
    node = quantize.inputs[0].producer() if quantize.inputs[0] is not None else None
    if node is None:
        return False
    return all(producer(value, "DequantizeLinear") for value in node.inputs if value and not value.const_value)


def _reads_integers(node: ir.Node) -> bool:
    """Does ONNX Runtime make the DQ before this node part of an int8 kernel?"""
    if node.op_type in ("MatMul", "Gemm"):
        return all(producer(value, "DequantizeLinear") for value in node.inputs[:2])
    readers = [reader for out in node.outputs for reader in out.consumers()]
    return bool(readers) and all(is_op(reader, "QuantizeLinear") for reader in readers)


def _given(step: Step) -> Parameters:
    assert step.result.given is not None
    return step.result.given


def _value(value: ir.Value | None) -> ir.Value:
    assert value is not None
    return value


def _array(value: ir.Value) -> Array:
    assert value.const_value is not None
    return value.const_value.numpy()


def _shaped(node: ir.Node, like: ir.Value) -> ir.Value:
    out = node.outputs[0]
    out.type, out.shape = ir.TensorType(ir.DataType.UINT8), _permuted(like.shape, TO_NHWC)
    return out


def _permuted(shape: ir.Shape | None, order: tuple[int, ...]) -> ir.Shape | None:
    return None if shape is None or len(shape) != 4 else ir.Shape([shape[i] for i in order])
