"""Models of tables in Python and at the command line: frames in, frames out, in the target's terms."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from refusals import refusal, says

import xpnet
from xpnet.cli import main
from xpnet.tables.columns import Category, Numeric
from xpnet.tables.dates import Date

TABLES = {"price": ["size", "rooms"], "sold": ["size", "colour"], "kind": ["size", "colour"]}
SHORT = ["--epochs", "2", "--hidden", "4", "--quiet", "--engine", "replay", "--device", "cpu"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run for each target, and its table."""
    folder, rng = tmp_path_factory.mktemp("models"), np.random.default_rng(0)
    frame = pd.DataFrame({"size": rng.normal(120, 30, 90).round(1), "rooms": rng.integers(1, 7, 90)})
    frame["colour"] = rng.choice(["red", "green"], 90)
    frame["price"] = 3000.5 * frame["size"] + 20000 * frame["rooms"]
    frame["sold"] = np.where(frame["size"] > 120, "yes", "no")
    frame["kind"] = np.where(frame["size"] > 130, "villa", np.where(frame["size"] > 110, "house", "flat"))
    for target, columns in TABLES.items():
        frame[[*columns, target]].to_csv(folder / f"{target}.csv", index=False)
        argv = ["train", str(folder / f"{target}.csv"), "--target", target, "--out", str(folder / target)]
        assert main([*argv, *SHORT, *(["--dtype", "float64"] if target == "price" else [])]) == 0
    frame[["colour", "size", "rooms"]].head(7).assign(id=[f"a{i}" for i in range(7)]).to_csv(
        folder / "new.csv", index=False
    )
    return folder


@pytest.fixture
def new(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return pd.read_csv("new.csv")


@pytest.mark.filterwarnings("ignore:.* that no training row has")
def test_frames_are_predicted_as_the_command_does(folder, new, capfd):
    for target in TABLES:
        model = xpnet.load(folder / target, device="cpu")
        assert model.network.backend.dtype == ("float64" if target == "price" else "float32")
        rows = new.set_index("id", drop=False)[::-1]  # another order of rows and columns, and an index
        found = model.predict(rows)
        assert list(found.index) == list(rows["id"]) and list(found) == [target]
        spaced = rows.rename(columns=lambda name: f" {name} ")
        assert model.predict(spaced).equals(found)
        assert main(["predict", target, "new.csv", "--out", "-", "--keep", "id", "--device", "cpu"]) == 0
        out, err = capfd.readouterr()
        assert "7 predictions -> stdout" in err
        (folder / "out.csv").write_text(out, encoding="utf-8")
        written = pd.read_csv("out.csv")
        assert list(written)[:2] == ["id", target]
        if target == "price":
            assert list(written) == ["id", "price"]
            np.testing.assert_allclose(written["price"][::-1], found["price"], rtol=1e-12)
            continue
        assert list(written[target][::-1]) == list(found[target])
        P = model.predict_proba(rows)
        np.testing.assert_allclose(P.sum(axis=1), 1, rtol=1e-6)
        assert list(written)[2:] == list(P) == [f"probability_{label}" for label in model.preprocessing.target.classes]
        assert [name.removeprefix("probability_") for name in P.idxmax(axis=1)] == list(found[target])


@pytest.mark.filterwarnings("ignore:.* that no training row has")
def test_a_threshold_moves_rows_from_one_class_to_the_other(folder, new, capfd):
    model = xpnet.load(folder / "sold", device="cpu")
    second = model.predict_proba(new)["probability_yes"]
    cut = float(np.sort(second)[3])
    assert list(model.predict(new, threshold=cut)["sold"] == "yes") == list(second >= cut)
    argv = ["predict", "sold", "new.csv", "--device", "cpu", "--threshold", repr(cut)]
    assert main([*argv, "--labels", "--out", "-"]) == 0
    assert capfd.readouterr().out.split()[1:] == ["yes" if each >= cut else "no" for each in second]
    assert main(["predict", "sold", "new.csv", "--device", "cpu", "--proba", "--out", "-"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "probability_no,probability_yes" and len(lines) == 8


def test_a_few_rows_do_not_show_how_far_a_column_goes():
    """Of five uniform numbers, those of another ten may lie five of their standard deviations from their mean."""
    model = xpnet.TableClassifier(epochs=2, random_state=14)
    draws = np.random.RandomState(0)
    X, new = draws.uniform(size=(10, 10)), draws.uniform(size=(10, 10))
    model.fit(X, np.arange(10) % 2, sample_weight=np.arange(10) % 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.abs(model._encoded(new)).max() > 4
        model.predict(new)


def test_values_far_outside_are_told_by_column_and_row(folder, new, capfd):
    far = new[["size", "colour"]].assign(size=[*new["size"][:4], 99999.0, *new["size"][5:]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        xpnet.load(folder / "kind", device="cpu").predict(far.assign(size=250.0))  # 4 deviations from the mean
    with pytest.warns(UserWarning, match="far outside") as found:
        xpnet.load(folder / "kind", device="cpu").predict(far)
    assert len(found) == 1
    says(found[0].message, "values of 'size' (such as '99999.0' in row 4)", "far outside", "check their units")
    far.to_csv("far.csv", index=False)
    assert main(["predict", "kind", "far.csv", "--out", "far_out.csv", "--device", "cpu"]) == 0
    assert "in row 5" in capfd.readouterr().err


@pytest.mark.filterwarnings("ignore:.* that no training row has")
def test_refusals(folder, new, capsys):
    price, kind = (xpnet.load(folder / name, device="cpu") for name in ("price", "kind"))
    with refusal(ValueError, "price is a regression", "has no probabilities", "take its values"):
        price.predict_proba(new)
    with refusal(ValueError, "a threshold goes with two classes", "the task is multiclass", "leave it out"):
        kind.predict(new, threshold=0.5)
    with refusal(TypeError, "the rows are a list", "a DataFrame of pandas or polars", "pandas.DataFrame(rows)"):
        kind.predict([[1, 2]])
    series = type("Series", (), {"__module__": "polars.series", "to_pandas": lambda self: new["size"]})()
    with refusal(TypeError, "the rows are a Series", "a DataFrame of pandas or polars", "pandas.DataFrame(rows)"):
        kind.predict(series)
    with refusal(ValueError, "the frame has no rows", "it must have one at least", "give others"):
        kind.predict(new.iloc[:0])
    with refusal(FileNotFoundError, "is no run on a table", "it has no table.json", "`xpnet train` makes one"):
        xpnet.load(folder / "nowhere")
    argv = ["predict", "kind", "new.csv", "--device", "cpu", "--out", "y.csv"]
    for more, told in (
        (["--keep", "ide"], "there is no column 'ide'"),
        (["--threshold", "0"], "0"),
        (["--proba", "--labels"], "not allowed with"),
    ):
        try:
            assert main([*argv, *more]) != 0
        except SystemExit as end:
            assert end.code == 2
        assert told in capsys.readouterr().err
    assert main([*argv, "--proba", "--threshold", "0.7"]) == 2
    parts = "--threshold decides between classes", "--proba writes none", "leave one of them out"
    says(capsys.readouterr().err.rstrip(), *parts)
    assert not (folder / "y.csv").exists()


@pytest.mark.filterwarnings("ignore:.* that no training row has")
def test_a_loss_without_probabilities(folder, new, monkeypatch, capsys):
    argv = ["train", "kind.csv", "--target", "kind", "--loss", "hinge", "--out", "hinge", *SHORT]
    assert main(argv) == 0
    with refusal(ValueError, "the loss hinge", "has outputs and no probabilities", "train with a cross-entropy"):
        xpnet.load("hinge", device="cpu").predict_proba(new)
    assert main(["predict", "hinge", "new.csv", "--out", "-", "--keep", "kind", "--device", "cpu"]) == 1
    assert "there is no column 'kind'" in capsys.readouterr().err
    new.assign(kind="?").to_csv("kinds.csv", index=False)
    assert main(["predict", "hinge", "kinds.csv", "--out", "y.csv", "--keep", "kind", "--device", "cpu"]) == 0
    assert list(pd.read_csv("y.csv"))[:3] == ["kind", "predicted_kind", "output_flat"]


def test_names_of_features_and_outputs_are_those_of_the_table(folder, new):
    for target, outputs in (("price", ["price"]), ("sold", ["yes"]), ("kind", ["flat", "house", "villa"])):
        table = xpnet.load(folder / target, device="cpu").preprocessing
        expected = ["size", "rooms"] if target == "price" else ["size", "colour green", "colour red"]
        assert table.feature_names == expected and table.target.output_names == outputs
    column = Date("day", "%Y-%m-%d", ("year", "month"), (0.0, 0.0), (1.0, 1.0), has_indicator=True)
    assert column.feature_names == ["day year", "day month", "day missing"]
    assert Category("c", ("a",), (1.0,), True, True).feature_names == ["c a", "c other", "c missing"]
    assert Numeric("x", has_indicator=True).feature_names == ["x", "x missing"]
