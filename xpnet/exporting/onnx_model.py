"""An ONNX model: its graph, checked against xpnet's own predictions before anything is written."""

from __future__ import annotations

import json
from importlib import metadata
from typing import Any

import numpy as np

from xpnet.checks import check_whole, one_line
from xpnet.exporting.onnx_graph import BATCH, OPSET, Graph, add_network
from xpnet.exporting.onnx_table import add_columns, feeds_of, input_types, random_rows
from xpnet.exporting.subject import EACH, VALUES, Subject

N_CHECKED = 1000  # random rows
BOUNDS = {"float32": 1e-5, "float64": 1e-12}  # of the largest difference, in parts of a row's largest value
_ML_OPSET = 3
_EDGE = 500  # one row in so many may lie between two classes


def onnx_model(subject: Subject, opset: int | None = None) -> bytes:
    """Return the file of a model; raises ValueError for what a graph cannot do, or if it predicts something else.

    opset: the version of ONNX's operators, None for OPSET.  Raises ImportError without onnx.
    """
    onnx = _onnx()
    opset = _check_opset(onnx, opset)
    model = _model(onnx, subject, opset)
    onnx.checker.check_model(model, full_check=True)
    largest, judge = _compared(onnx, subject, model)
    _check_difference(largest, str(subject.network.backend.dtype))
    facts = {"largest_difference": f"{largest:.3g}", "checked_by": judge, "n_checked": str(N_CHECKED)}
    facts |= {"network": str(subject.network.architecture)}
    if subject.kind != VALUES:
        facts["classes"] = json.dumps([str(label) for label in subject.classes])
    onnx.helper.set_model_props(model, {f"xpnet.{name}": value for name, value in facts.items()})
    return bytes(model.SerializeToString())


def _onnx() -> Any:
    try:
        import onnx.reference
    except ImportError:
        raise ImportError(
            "an export to ONNX needs onnx, which is not installed. Run: pip install 'xpnet[onnx]'"
        ) from None
    return onnx


def _check_opset(onnx: Any, opset: int | None) -> int:
    opset, newest = (
        OPSET if opset is None else check_whole("opset", opset, at_least=OPSET),
        onnx.defs.onnx_opset_version(),
    )
    if opset > newest:
        raise ValueError(f"opset is {opset}, onnx {onnx.__version__} knows {OPSET} to {newest}; take one of these")
    return opset


def _check_difference(largest: float, dtype: str) -> None:
    if not largest <= BOUNDS[dtype]:
        raise ValueError(
            f"the graph differs from xpnet's predictions by {largest:.3g} of a row's largest value; it may by "
            f"{BOUNDS[dtype]:g}; scale the features, or export it to numpy or c"
        )


def _model(onnx: Any, subject: Subject, opset: int) -> Any:
    """Return the model without what is said of it."""
    helper, dtype = onnx.helper, subject.network.backend.dtype
    graph = Graph(dtype)
    if subject.table is not None:
        types = input_types(subject.table.preprocessing)
        inputs = [(name, kind, 1) for name, kind in types.items()]
        X = add_columns(graph, subject.table.preprocessing)
    else:
        inputs = [(graph.free("X"), dtype if subject.scale is None else np.dtype(np.uint8), subject.n_inputs)]
        X = "X"
        if subject.scale is not None:
            X = graph.add("Mul", graph.cast("X", dtype), graph.constant(subject.scale))
    outputs = []
    for called, value in add_network(graph, subject, X).items():
        graph.nodes.append(helper.make_node("Identity", [value], [name := graph.free(called)]))
        outputs.append(_output(onnx, subject, called, name))
    made = helper.make_graph(
        graph.nodes,
        "xpnet",
        [_value(onnx, name, kind, [BATCH, n]) for name, kind, n in inputs],
        outputs,
        [onnx.numpy_helper.from_array(array, name) for name, array in graph.constants.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    if any(node.domain for node in graph.nodes):
        opsets.append(helper.make_opsetid("ai.onnx.ml", _ML_OPSET))
    version = helper.find_min_ir_version_for(opsets)
    return helper.make_model(
        made, opset_imports=opsets, ir_version=version, producer_name="xpnet", producer_version=_version()
    )


def _output(onnx: Any, subject: Subject, called: str, name: str) -> Any:
    """Return the type and shape of a result."""
    if called != "label":
        dtype = np.dtype(np.float64) if subject.table and subject.kind == VALUES else subject.network.backend.dtype
        return _value(onnx, name, dtype, [BATCH, subject.n_outputs])
    if subject.kind == EACH:
        return _value(onnx, name, np.int64, [BATCH, subject.n_outputs])
    kind = np.array(subject.classes).dtype.kind
    types = {"b": np.bool_, "i": np.int64, "u": np.int64, "f": np.float64}
    return _value(onnx, name, types.get(kind, np.object_), [BATCH])


def _value(onnx: Any, name: str, dtype: Any, shape: list[Any]) -> Any:
    is_text = dtype is np.object_
    kind = onnx.TensorProto.STRING if is_text else onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return onnx.helper.make_tensor_value_info(name, kind, shape)


def _version() -> str:
    try:
        return metadata.version("xpnet")
    except metadata.PackageNotFoundError:  # it runs from its folder
        return ""


def _compared(onnx: Any, subject: Subject, model: Any) -> tuple[float, str]:
    """Return the largest difference of the graph from xpnet, and by what it was computed."""
    feeds, wanted = _rows(subject)
    reference = onnx.reference.ReferenceEvaluator(model)
    with np.errstate(all="ignore"):  # exp(-Z) may be infinite, and A 0
        found, judge = [reference.run(None, feeds)], "onnx.reference"
    runtime = _runtime(model)
    if runtime is not None:
        found.append(runtime.run(None, feeds))
        judge += " and onnxruntime"
    return max(_difference(subject, each, wanted) for each in found), judge


def _runtime(model: Any) -> Any:
    """Return a session of ONNX Runtime; None if it is not installed."""
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what it refuses is told below
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common class
        raise ValueError(
            f"onnxruntime {onnxruntime.__version__} does not take the model ({one_line(error)}); it must run there; "
            f"take the opset {OPSET}"
        ) from None


def _rows(subject: Subject) -> tuple[dict[str, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return random rows as inputs of the graph, and what xpnet makes of them: predictions and places of classes."""
    rng, dtype = np.random.default_rng(0), subject.network.backend.dtype
    if subject.table is not None:
        table = subject.table.preprocessing
        frame = random_rows(table, N_CHECKED, rng)
        X, _ = table.encode(frame, dtype)
        P, places = subject.predict(X.T)
        return feeds_of(table, frame), (table.target.in_units(P.T).T if subject.kind == VALUES else P, places)
    shape, known = (N_CHECKED, subject.n_inputs), subject.network.inputs
    if subject.scale is not None:
        rows = rng.integers(256, size=shape).astype(np.uint8)
    elif known is not None:
        rows = rng.uniform(known.low, known.high, shape).astype(dtype)
    else:
        rows = rng.standard_normal(shape).astype(dtype)
    return {"X": rows}, subject.predict(rows)


def _difference(subject: Subject, found: list[Any], wanted: tuple[np.ndarray, np.ndarray]) -> float:
    """Return the largest difference of predictions, in parts of a row's largest value, or infinity for other classes.

    Of a row whose values are all near 0 the size of the mean row counts, as digits cancel there. Rows on the edge
    between two classes may be of either.
    """
    P, places = wanted
    if subject.kind != VALUES:
        labels = places if subject.kind == EACH else np.array(subject.classes)[places]
        if (found[0] != labels).sum() > N_CHECKED // _EDGE:
            return np.inf
    largest = np.abs(P).max(axis=1)
    apart = np.abs(found[-1] - P).max(axis=1) / np.maximum(largest, largest.mean())
    return float(apart.max())
