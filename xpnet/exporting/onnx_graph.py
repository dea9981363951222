"""A network, or a table's model, as an ONNX graph of the recorded calls: raw rows in, classes and probabilities out.

The calls become operators that ONNX Runtime has in float32 and float64, one for one but for `log1p` and `greater`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xpnet.exporting.subject import EACH, ONE_OF, VALUES, Subject
from xpnet.exporting.trace import Line, trace_of

OPSET = 18
BATCH = "batch"  # the name of the axis of rows
# The operator of each word; the others have methods.
_OPERATORS = {
    **{"add": "Add", "subtract": "Sub", "multiply": "Mul", "divide": "Div", "maximum": "Max", "minimum": "Min"},
    **{"abs": "Abs", "sign": "Sign", "sqrt": "Sqrt", "exp": "Exp", "log": "Log", "tanh": "Tanh"},
}


class Graph:
    """Collects operators and constants, each under a name of its own."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}
        self._names: set[str] = set()

    def add(self, operator: str, *inputs: str, name: str = "", domain: str = "", **attributes: Any) -> str:
        """Append an operator with one result, and return the name of that."""
        from onnx import helper

        out = self.free(name or operator.lower())
        self.nodes.append(helper.make_node(operator, list(inputs), [out], name=out, domain=domain, **attributes))
        return out

    def constant(self, value: Any, dtype: Any = None, name: str = "") -> str:
        """Return the name of a constant, of the network's type unless another is given."""
        array = np.array(value, self.dtype if dtype is None else dtype)
        same = (known for known, other in self.constants.items() if not name and _are_same(array, other))
        found = next(same, "") or self.free(name or "constant")
        self.constants[found] = array
        return found

    def cast(self, value: str, dtype: Any) -> str:
        """Return a value in another type."""
        from onnx import helper

        return self.add("Cast", value, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def free(self, name: str) -> str:
        """Return the name, or one like it that is not taken, and take it."""
        number, found = 1, name
        while found in self._names:
            number += 1
            found = f"{name}_{number}"
        self._names.add(found)
        return found


def _are_same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def add_network(graph: Graph, subject: Subject, X: str) -> dict[str, str]:
    """Append the network's prediction of encoded rows X, and return its results by what they are called."""
    trace = trace_of(subject)
    named = {name: graph.constant(array, name=name) for name, array in trace.arrays.items()}
    named["X"] = X
    for line in trace.lines:
        inputs = [named[each] if isinstance(each, str) else graph.constant(each) for each in line.inputs]
        named[line.out] = _add_call(graph, line, inputs)
    Z, P = named[trace.output], named[trace.prediction]
    found = {} if subject.kind == VALUES else {"label": _label(graph, subject, Z)}
    if subject.is_pair:
        P = graph.add("Concat", graph.add("Sub", graph.constant(1.0), P), P, axis=1)
    if subject.table is not None and subject.kind == VALUES:
        target = subject.table.preprocessing.target
        P = graph.add("Mul", graph.cast(P, np.float64), graph.constant([target.deviations], np.float64))
        P = graph.add("Add", P, graph.constant([target.means], np.float64))
    return {**found, subject.called: P}


def _add_call(graph: Graph, line: Line, inputs: Sequence[str]) -> str:
    word, name = line.call.word, line.out
    if word == "matmul":
        return graph.add("Gemm", *inputs, name=name, transA=int(line.turned[0]), transB=int(line.turned[1]))
    if word in ("sum", "max"):
        operator = {"sum": "ReduceSum", "max": "ReduceMax"}[word]
        return graph.add(operator, *inputs, graph.constant([line.axis], np.int64), name=name, keepdims=1)
    if word == "greater":
        return graph.cast(graph.add("Greater", *inputs), graph.dtype)
    if word == "log1p":
        return _add_log1p(graph, inputs[0])
    return graph.add(_OPERATORS[word], *inputs, name=name)


def _add_log1p(graph: Graph, x: str) -> str:
    """log(1 + x) = x log(u) / (u - 1) with u = 1 + x, and x where u is 1: no digit of a small x is lost.

    Source: Kahan; Goldberg (1991), What Every Computer Scientist Should Know, theorem 4.
    """
    one = graph.constant(1.0)
    u = graph.add("Add", x, one)
    slope = graph.add("Div", graph.add("Log", u), graph.add("Sub", u, one))
    return graph.add("Where", graph.add("Equal", u, one), x, graph.add("Mul", x, slope))


def _label(graph: Graph, subject: Subject, Z: str) -> str:
    """Append the choice of a class (batch,), or of which labels (batch, n_labels) are there, by outputs Z."""
    if subject.kind == ONE_OF and subject.network.architecture.n_outputs > 1:
        place = graph.add("ArgMax", Z, axis=1, keepdims=0)
    else:
        place = graph.cast(graph.add("Greater", Z, graph.constant(subject.threshold)), np.int64)
        if subject.kind == EACH:
            return place
        place = graph.add("Reshape", place, graph.constant([-1], np.int64))
    if all(type(label) is int and label == number for number, label in enumerate(subject.classes)):
        return place
    return graph.add("Gather", graph.constant(subject.classes, _type_of(subject.classes)), place, axis=0)


def _type_of(classes: Sequence[Any]) -> Any:
    """Return the type of class names in a graph: whole numbers, other numbers, booleans or texts."""
    found = np.array(classes).dtype
    return found if found.kind == "b" else {"i": np.int64, "u": np.int64, "f": np.float64}.get(found.kind, object)
