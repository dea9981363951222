"""ONNX: ONNX Runtime and the reference evaluator predict what xpnet does, from raw rows; needs the extra onnx."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pandas as pd
import pytest
from forms import NAMES, apart, expected, network, of_your_own, rows_for
from refusals import refusal

import xpnet
from xpnet.cli import main
from xpnet.exporting.onnx_table import feeds_of

onnx = pytest.importorskip("onnx", reason="the extra onnx brings it")
runtime = pytest.importorskip("onnxruntime", reason="the extra onnx brings it")
reference = pytest.importorskip("onnx.reference")

BOUND = {"float32": 1e-5, "float64": 1e-12}
ROWS = 1000


def facts_of(path):
    return {each.key.removeprefix("xpnet."): each.value for each in onnx.load(path).metadata_props}


def evaluated(path, feeds):
    """The results by name of ONNX Runtime, and of the reference evaluator."""
    session = runtime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    evaluator = reference.ReferenceEvaluator(str(path))
    with np.errstate(all="ignore"):  # of the evaluator, which is NumPy
        return [dict(zip(names, each.run(None, feeds), strict=True)) for each in (session, evaluator)]


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("name", NAMES)
def test_a_graph_predicts_what_the_network_does(name, dtype, tmp_path):
    made = network(name, dtype)
    rows, (P, places) = rows_for(made, ROWS), expected(made, rows_for(made, ROWS))
    (path,) = xpnet.export(made, tmp_path / "model.onnx")
    onnx.checker.check_model(str(path), full_check=True)
    for found in evaluated(path, {"X": rows}):
        label, (P_of,) = found.pop("label", None), found.values()
        assert P_of.dtype == dtype and apart(P_of, P) < BOUND[dtype]
        assert label is None or (label.dtype == np.int64 and (label == places).all())
    for n in (1, 7):  # the axis of rows is free
        for found in evaluated(path, {"X": rows[:n]}):
            assert len(found.popitem()[1]) == n
    assert float(facts_of(path)["largest_difference"]) < BOUND[dtype]
    assert facts_of(path)["checked_by"] == "onnx.reference and onnxruntime"


@pytest.mark.parametrize("dtype", BOUND)
def test_functions_of_your_own_are_in_the_graph(dtype, tmp_path):
    made = of_your_own(dtype)
    (path,) = xpnet.export(made, tmp_path / "model.onnx")
    X = rows_for(made, ROWS)
    for found in evaluated(path, {"X": X}):
        assert apart(found["predictions"], expected(made, X)[0]) < BOUND[dtype]


def test_what_a_file_says_of_itself(tmp_path):
    made = network("everything", "float32")
    (path,) = xpnet.export(made, tmp_path / "model.onnx", classes=["red", "green", "blue"])
    model = onnx.load(path)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 18)]
    (rows,) = model.graph.input
    assert rows.type.tensor_type.elem_type == onnx.TensorProto.UINT8  # the scale of bytes is in the graph
    assert [d.dim_param or d.dim_value for d in rows.type.tensor_type.shape.dim] == ["batch", 6]
    assert json.loads(facts_of(path)["classes"]) == ["red", "green", "blue"] and model.producer_name == "xpnet"
    bytes_ = rows_for(made, 30)
    for found in evaluated(path, {"X": bytes_}):
        assert list(found["label"]) == list(np.array(["red", "green", "blue"])[expected(made, bytes_)[1]])
    (newer,) = xpnet.export(made, tmp_path / "newer.onnx", opset=21)
    assert onnx.load(newer).opset_import[0].version == 21
    for opset in (17, onnx.defs.onnx_opset_version() + 1):
        with pytest.raises(ValueError, match=f"opset is {opset}"):
            xpnet.export(made, tmp_path / "bad.onnx", opset=opset)
    assert not (tmp_path / "bad.onnx").exists()


def test_a_graph_that_predicts_something_else_is_not_written(tmp_path, monkeypatch):
    from xpnet.exporting import onnx_graph

    monkeypatch.setitem(onnx_graph._OPERATORS, "maximum", "Min")
    with refusal(ValueError, "the graph differs from xpnet's predictions by", "it may by 1e-05", "export it to numpy"):
        xpnet.export(network("activation relu", "float32"), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_estimators_keep_their_classes(tmp_path):
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 3)).astype("f")
    targets = {
        "two": X[:, 0] > 0,
        "three": np.digitize(X[:, 0], [-0.5, 0.5]) * 10,
        "several": (X[:, :2] > 0).astype(int),
    }
    for name, y in targets.items():
        model = xpnet.MLPClassifier((4,), tol=10, n_iter_no_change=2, random_state=0).fit(X, y)
        (path,) = xpnet.export(model, tmp_path / f"{name}.onnx")
        for found in evaluated(path, {"X": X}):
            assert apart(found["probabilities"], model.predict_proba(X)) < 1e-5
            assert (found["label"] == model.predict(X)).all()
    model = xpnet.MLPRegressor((4,), tol=10, n_iter_no_change=2, random_state=0).fit(X.astype("d"), X[:, 0].astype("d"))
    (path,) = xpnet.export(model, tmp_path / "numbers.onnx")
    for found in evaluated(path, {"X": X.astype("d")}):
        assert apart(found["predictions"], model.predict(X.astype("d"))[:, None]) < 1e-12


@pytest.fixture(scope="module")
def table():
    """Rows with every kind of column, with gaps."""
    rng, n = np.random.default_rng(0), 300
    frame = pd.DataFrame({"size": rng.normal(120, 30, n).round(1), "rooms": rng.integers(1, 7, n)})
    frame = frame.assign(zone=rng.choice([10, 20, 30], n), flag=rng.random(n) > 0.5, yes=rng.choice(["yes", "No"], n))
    frame["colour"] = rng.choice(["red", "green", "blue", "rare one"], n, p=[0.5, 0.4, 0.09, 0.01])
    frame["built"] = pd.date_range("1890-02-03 04:00", periods=n, freq="217D").strftime("%d.%m.%Y")
    frame["when"] = pd.date_range("2001-01-01", periods=n, freq="37h")
    for step, name in ((7, "size"), (11, "colour"), (13, "when"), (9, "yes")):
        frame.loc[::step, name] = None
    return frame


TARGETS = {
    "price": lambda frame: 3000.5 * frame["size"].fillna(100) + 20000 * frame["rooms"],
    "sold": lambda frame: np.where(frame["rooms"] > 3, "yes", "no"),
    "kind": lambda frame: frame["rooms"] // 2 * 10,
}


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("impute", ["median", "mean"])
@pytest.mark.parametrize("target", TARGETS)
def test_raw_rows_of_a_table_go_in(target, impute, dtype, table, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = table.assign(**{target: TARGETS[target](table)})
    rows.to_csv("t.csv", index=False)
    task = ["--task", "multiclass"] if target == "kind" else []
    options = ["--categorical", "zone", "--impute", impute, "--dtype", dtype, "--epochs", "2", "--hidden", "5"]
    assert main(["train", "t.csv", "--target", target, "--out", "run", "--quiet", *task, *options]) == 0
    assert main(["export", "run", "--out", "model.onnx"]) == 0
    assert "model.onnx" in capsys.readouterr().out
    model, path = xpnet.load("run", device="cpu"), tmp_path / "model.onnx"
    asked = pd.read_csv("t.csv").assign(colour=["violet", *table["colour"][1:]]).drop(columns=target)
    asked.loc[3, "size"] = np.inf
    inputs = onnx.load(path).graph.input
    assert {each.name for each in inputs} == {column.name for column in model.preprocessing.columns}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        predicted = model.predict(asked)[target].to_numpy()
        given = None if target == "price" else model.predict_proba(asked).to_numpy()
    for found in evaluated(path, feeds_of(model.preprocessing, asked)):
        if target == "price":
            assert apart(found["predictions"], predicted[:, None]) < BOUND[dtype]
        else:
            assert apart(found["probabilities"], given) < BOUND[dtype]
            assert list(found["label"]) == list(predicted)


@pytest.mark.filterwarnings("ignore:.*categories that are rare")
def test_the_inputs_of_a_table_are_what_the_readme_says(table, tmp_path):
    """Made without xpnet: float64 numbers, texts, and microseconds since 1970."""
    pytest.importorskip("sklearn")
    model = xpnet.TableRegressor(epochs=2, hidden=[4], random_state=0, categorical="zone").fit(
        table, TARGETS["price"](table)
    )
    (path,) = xpnet.export(model, tmp_path / "model.onnx")
    when = {"built": pd.to_datetime(table["built"], format="%d.%m.%Y"), "when": table["when"]}
    feeds = {name: column.astype("datetime64[us]").astype("int64").to_numpy() for name, column in when.items()}
    feeds |= {name: table[name].to_numpy(float) for name in ("size", "rooms", "zone", "flag")}
    feeds |= {name: table[name].fillna("").to_numpy(object) for name in ("colour", "yes")}
    names = {each.name for each in onnx.load(path).graph.input}
    for found in evaluated(path, {name: column[:, None] for name, column in feeds.items() if name in names}):
        assert apart(found["predictions"], model.predict(table)[:, None]) < 1e-5
