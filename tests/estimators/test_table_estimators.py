"""TableClassifier and TableRegressor: raw rows in, what `xpnet train` makes of the same table out."""

from __future__ import annotations

import json
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from refusals import refusal, says
from sklearn.base import clone
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import xpnet
from xpnet import TableClassifier, TableRegressor
from xpnet.cli import main

SHORT = {"epochs": 2, "hidden": 4, "ensemble": 1, "device": "cpu", "random_state": 0}
TASKS = {"price": TableRegressor, "sold": TableClassifier, "kind": TableClassifier}


@pytest.fixture(scope="module")
def houses():
    """Rows of every kind of column, and a target for each task."""
    rng, n = np.random.default_rng(0), 90
    frame = pd.DataFrame({"size": rng.normal(120, 30, n).round(1), "rooms": pd.array(rng.integers(1, 7, n), "Int64")})
    frame["colour"] = pd.Categorical(rng.choice(["red", "green"], n))
    frame["built"] = pd.date_range("2001-01-01", periods=n, freq="11D", tz="Europe/Zurich")
    frame["garden"] = pd.array(rng.random(n) > 0.5, "boolean")
    frame["note"] = pd.Series([1.5 if i % 7 else "x" for i in range(n)], dtype=object)
    frame.loc[::7, "size"], frame.loc[::6, "rooms"] = np.nan, pd.NA
    y = pd.DataFrame({"price": 3000.5 * frame["size"].fillna(100) + 20000 * frame["garden"].astype(float)})
    y["sold"] = np.where(y["price"] > y["price"].median(), "yes", "no")
    y["kind"] = np.where(y["price"] > 4e5, 2, np.where(y["price"] > 3.5e5, 1, 0))
    return frame, y


def command_and_estimator(tmp_path, monkeypatch, houses, target, flags, **options):
    """The model that `xpnet train` leaves, and the estimator that was fitted on the same rows, read from its file."""
    monkeypatch.chdir(tmp_path)
    frame, y = houses
    frame.assign(**{target: y[target]}).to_csv("t.csv", index=False)
    assert main(["train", "t.csv", "--target", target, "--quiet", "--device", "cpu", "--out", "run", *flags]) == 0
    rows = pd.read_csv("t.csv")
    estimator = TASKS[target](device="cpu", random_state=0, **options).fit(rows.drop(columns=target), rows[target])
    return xpnet.load("run", device="cpu"), estimator, rows


@pytest.mark.parametrize(
    "target", ["price", *(pytest.param(name, marks=pytest.mark.full) for name in ("sold", "kind"))]
)
def test_an_estimator_predicts_what_the_command_line_does(tmp_path, monkeypatch, houses, target):
    flags = ["--epochs", "4", "--ensemble", "2", "--hidden", "4", "--drop", "note"]
    model, estimator, rows = command_and_estimator(
        tmp_path, monkeypatch, houses, target, flags, epochs=4, ensemble=2, hidden=[4], drop="note"
    )
    np.testing.assert_array_equal(model.predict(rows)[target], estimator.predict(rows))
    assert model.preprocessing.columns == estimator.preprocessing_.columns
    assert any("mean of 2 networks" in line for line in estimator.decisions_)
    if target != "price":
        P = model.predict_proba(rows).to_numpy()
        np.testing.assert_allclose(estimator.predict_proba(rows), P, rtol=1e-6)


@pytest.mark.full
@pytest.mark.parametrize("target", TASKS)
def test_the_defaults_are_those_of_the_command_line(tmp_path, monkeypatch, houses, target):
    model, estimator, rows = command_and_estimator(tmp_path, monkeypatch, houses, target, [])
    np.testing.assert_array_equal(model.predict(rows)[target], estimator.predict(rows))
    assert "several trainings: the model is" in estimator.decisions_[-1]
    assert estimator.score(rows, rows[target]) > 0.7


@pytest.mark.filterwarnings("ignore:no epoch has a better val_loss")
def test_a_diverging_training_begins_again_at_a_tenth_of_its_rate(houses):
    frame, y = houses
    found = TableRegressor(**SHORT | {"lr": 1e10, "epochs": 1}).fit(frame, y["price"]).decisions_
    assert any("diverged at the learning rate 1e+10: it began again at a tenth" in line for line in found)


def test_what_happened_to_each_column_can_be_read(houses):
    frame, y = houses
    estimator = TableClassifier(**SHORT).fit(frame, y["kind"])
    kinds = {column.name: type(column).__name__ for column in estimator.preprocessing_.columns}
    expected = {"size": "Numeric", "rooms": "Numeric", "colour": "Category", "built": "Date", "garden": "Numeric"}
    assert kinds == expected | {"note": "Category"}
    assert "size (13), rooms (15): missing values: filled in by the median" in "\n".join(estimator.decisions_)
    assert list(estimator.feature_names_in_) == list(frame) and estimator.n_features_in_ == 6
    assert estimator.classes_.tolist() == [0, 1, 2] and repr(estimator.model_).startswith("TableModel(kind of 6")


@pytest.mark.full
def test_scores_are_those_of_its_predictions(houses):
    frame, y = houses
    classifier, regressor = (TASKS[name](**SHORT).fit(frame, y[name]) for name in ("sold", "price"))
    P = classifier.predict_proba(frame)
    assert list(classifier.classes_[P.argmax(axis=1)]) == list(classifier.predict(frame))
    assert classifier.score(frame, y["sold"]) == accuracy_score(y["sold"], classifier.predict(frame))
    assert regressor.score(frame, y["price"]) == r2_score(y["price"], regressor.predict(frame))
    both = TableRegressor(**SHORT).fit(frame, y.assign(half=y["price"] / 2)[["price", "half"]])
    assert both.predict(frame).shape == (90, 2) and both.preprocessing_.target.names == ("price", "half")


def test_an_index_with_a_label_twice_changes_nothing(houses):
    frame, y = houses
    expected = TableRegressor(**SHORT).fit(frame, y["price"]).predict(frame)
    index = [*range(45)] * 2  # as pandas.concat leaves it
    twice = TableRegressor(**SHORT).fit(frame.set_axis(index), y["price"].set_axis(index[::-1]), np.ones(90))
    np.testing.assert_allclose(twice.predict(frame.set_axis([0] * 90)), expected, rtol=1e-6)
    assert (xpnet.TableModel.predict(twice.model_, frame.set_axis(index)).index == index).all()


@pytest.mark.full
def test_columns_are_found_by_their_names(houses):
    frame, y = houses
    estimator = TableRegressor(**SHORT).fit(frame, y["price"])
    expected = estimator.predict(frame)
    np.testing.assert_array_equal(estimator.predict(frame[frame.columns[::-1]]), expected)
    with pytest.warns(UserWarning, match="1 column that no training row has: 'new': ignored"):
        np.testing.assert_array_equal(estimator.predict(frame.assign(new=1)), expected)
    with pytest.warns(UserWarning, match="does not have valid feature names, but TableRegressor was fitted with"):
        np.testing.assert_allclose(estimator.predict(frame.to_numpy()), expected, rtol=1e-6)
    with refusal(ValueError, "there is no column 'size'", "the columns are"):
        estimator.predict(frame.drop(columns="size"))
    with refusal(ValueError, "X has 2 features", "TableRegressor is expecting 6 features", "fit it again"):
        estimator.predict(frame.to_numpy()[:, :2])
    by_place = TableRegressor(**SHORT).fit(frame.set_axis(range(6), axis=1), y["price"])
    assert not hasattr(by_place, "feature_names_in_") and by_place.preprocessing_.columns[0].name == "x0"
    with pytest.warns(UserWarning, match="has valid feature names, but TableRegressor was not fitted with"):
        by_place.predict(frame)


@pytest.mark.full
def test_polars(houses):
    polars = pytest.importorskip("polars")
    frame, y = houses
    frame = frame.drop(columns="note")
    rows = polars.from_pandas(frame)
    estimator = TableClassifier(**SHORT).fit(rows, polars.Series("sold", y["sold"]))
    expected = TableClassifier(**SHORT).fit(frame, y["sold"])
    np.testing.assert_array_equal(estimator.predict_proba(rows), expected.predict_proba(frame))
    assert estimator.preprocessing_ == expected.preprocessing_
    for call in (estimator.predict, lambda lazy: TableClassifier(**SHORT).fit(lazy, y["sold"])):
        with refusal(TypeError, "the rows are a LazyFrame", "a DataFrame of pandas or polars", "rows.collect()"):
            call(rows.lazy())


@pytest.mark.full
@pytest.mark.filterwarnings("ignore:.*rows without target")
def test_gaps_in_y_are_left_out_and_infinity_is_refused(houses):
    frame, y = houses
    is_known = np.arange(90) % 5 > 0
    for name, kind in TASKS.items():
        with pytest.warns(UserWarning, match=rf"{name} \(18\): rows without target: left out"):
            gappy = kind(**SHORT).fit(frame, y[name].where(is_known))
        whole = kind(**SHORT).fit(frame[is_known], y[name][is_known])
        np.testing.assert_array_equal(gappy.predict(frame), whole.predict(frame))
    with refusal(ValueError, "Input y contains infinity"):
        TableRegressor(**SHORT).fit(frame, y["price"].where(is_known, np.inf))
    with refusal(ValueError, "the target 'y' has no value in any row"):
        TableClassifier(**SHORT).fit(frame, [None] * 90)


@pytest.mark.full
@pytest.mark.parametrize(
    "labels",
    [
        np.array([1.0, 2.0]),
        np.array(["10", "9"]),
        np.array([" a", "b "]),
        pd.Categorical(["z", "x"]),
        pd.array([3, 5], "Int64"),
        pd.array([True, False], "boolean"),
    ],
    ids=["float", "digits", "blanks", "categorical", "nullable", "boolean"],
)
def test_classes_are_the_labels_that_were_given(houses, labels):
    frame, y = houses
    y = pd.Series(labels).take((y["sold"] == "yes").astype(int)).set_axis(frame.index)
    estimator = TableClassifier(**SHORT).fit(frame[["size", "garden"]], y)
    assert sorted(estimator.classes_.tolist()) == sorted(pd.Series(labels).tolist())
    frame = frame[["size", "garden"]]
    assert set(estimator.predict(frame)) <= set(pd.Series(labels)) and estimator.score(frame, list(y)) > 0.3


def test_refusals(houses):
    frame, y = houses
    classifier, regressor = TableClassifier(**SHORT), TableRegressor(**SHORT)
    with refusal(ValueError, "y has 1 class only, 'a', in 90 rows", "two or more", "give rows of other classes"):
        classifier.fit(frame, ["a"] * 90)
    with refusal(ValueError, "y has 2 columns", "classes need one", "y.iloc[:, 0]"):
        classifier.fit(frame, y[["sold", "kind"]])
    with refusal(ValueError, "the target y is None", "requires y to be passed", "TableRegressor.fit(X, y)"):
        regressor.fit(frame, None)
    with refusal(ValueError, "X has 1 sample", "it must have more", "give further rows"):
        regressor.fit(frame[:1], y["price"][:1])
    for rows in (frame[:0], frame[:0].to_numpy()):
        with pytest.raises(ValueError, match="0 sample"):
            regressor.fit(rows, y["price"][:0])
    with refusal(ValueError, "X has 0 samples (shape=(0, 6))", "a minimum of 1 is required", "give rows"):
        regressor.fit(frame[:0], y["price"][:0])
    for columns in (["size", "size"], ["size", " size"]):
        with refusal(ValueError, "two columns have the same name"):
            regressor.fit(frame[["size", "rooms"]].set_axis(columns, axis=1), y["price"])
    for options, parts in (
        ({"validation": 0.001}, ("validation is 0.001", "none of 90 rows", "give more, or 0 for none")),
        ({"validation": 0, "patience": 3}, ("patience is 3", "no rows are held out to watch", "give validation=0.1")),
        ({"validation": 90}, ("90 of 90 rows would be held out",)),
        ({"ensemble": 0}, ("ensemble is 0", "at least 1")),
        ({"hidden": [4, 0]}, ("hidden is 0", "at least 1")),
        ({"drop": "siez"}, ("there is no column 'siez'", "did you mean 'size'?")),
        ({"dtype": "int8"}, ("dtype is 'int8'",)),
    ):
        with refusal(ValueError, *parts):
            TableRegressor(**SHORT | options).fit(frame, y["price"])
    fitted = regressor.fit(frame, y["price"])
    with pytest.raises(ValueError):
        fitted.fit(frame, [1.0] * 90)
    assert fitted.predict(frame).shape == (90,)  # what failed left it as it was


@pytest.mark.full
def test_weights_count(houses):
    frame, y = houses
    half = np.r_[np.ones(45), np.zeros(45)]
    weighted, plain = (TableRegressor(**SHORT).fit(frame, y["price"], w) for w in (half, None))
    assert weighted.preprocessing_.weights == "sample_weight" and plain.preprocessing_.weights is None
    assert not np.array_equal(weighted.predict(frame), plain.predict(frame))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no column is missed or ignored
        weighted.predict(frame)


@pytest.mark.full
@pytest.mark.filterwarnings("ignore:no epoch has a better val_loss")
def test_copies_searches_and_pipelines(houses):
    frame, y = houses[0].drop(columns="built"), houses[1]  # in order of it, so that folds are far from each other
    estimator = TableClassifier(**SHORT).fit(frame, y["kind"])
    again = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(again.predict_proba(frame), estimator.predict_proba(frame))
    assert clone(estimator).get_params() == estimator.get_params() and not hasattr(clone(estimator), "model_")
    assert cross_val_score(TableRegressor(**SHORT), frame, y["price"], cv=2).shape == (2,)
    search = GridSearchCV(TableClassifier(**SHORT), {"hidden": [2, 3]}, cv=2).fit(frame, y["sold"])
    assert search.best_estimator_.model_.network.layers[0].n_out == search.best_params_["hidden"]
    piped = make_pipeline(FunctionTransformer(lambda rows: rows.drop(columns="note")), TableRegressor(**SHORT))
    assert piped.fit(frame, y["price"]).predict(frame).shape == (90,)
    seeds = [TableRegressor(**SHORT | {"random_state": np.random.RandomState(5)}).fit(frame, y["price"]) for _ in "ab"]
    np.testing.assert_array_equal(*(each.predict(frame) for each in seeds))


def test_a_saved_model_is_read_by_load_and_by_the_command_line(tmp_path, monkeypatch, houses, capsys):
    monkeypatch.chdir(tmp_path)
    frame, y = houses[0].drop(columns="built"), houses[1]
    estimator = TableClassifier(**SHORT | {"dtype": "float64"}).fit(frame, y["sold"])
    estimator.save("models/houses")
    model = xpnet.load("models/houses", device="cpu")
    assert model.network.backend.dtype == "float64"
    np.testing.assert_array_equal(model.predict(frame)["sold"], estimator.predict(frame))
    frame.to_csv("new.csv", index=False)
    assert main(["predict", "models/houses", "new.csv", "--out", "y.csv", "--device", "cpu"]) == 0
    assert list(pd.read_csv("y.csv")["sold"]) == list(estimator.predict(pd.read_csv("new.csv")))
    assert json.loads((tmp_path / "models/houses/config.json").read_text())["data"]["target"] == ["sold"]
    frame.assign(sold=y["sold"]).to_csv("t.csv", index=False)
    assert main(["evaluate", "models/houses", "t.csv", "--device", "cpu", "--json"]) == 0
    assert main(["evaluate", "models/houses", "--device", "cpu"]) == 1
    says(capsys.readouterr().err.splitlines()[-1], "has the data []", "it must be a path", "restore it")
    with refusal(FileExistsError, "houses is not an empty folder", "a model needs one of its own", "name another"):
        estimator.save("models/houses")
