"""What evaluate and train tell of a table's model, against scikit-learn."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from refusals import says
from sklearn import metrics
from sklearn.linear_model import LinearRegression
from test_cli import surroundings  # noqa: F401  a fixture that runs by itself

import xpnet
from xpnet.cli import main
from xpnet.commands.table_report import lines_of

SHORT = ["--epochs", "3", "--hidden", "4", "--engine", "replay", "--device", "cpu", "--dtype", "float64"]
SHORT += ["--validation", "40", "--split", "last"]


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"size": rng.normal(120, 30, 160), "rooms": rng.integers(1, 9, 160) * 1.5})
    frame["noise"] = rng.normal(0, 1, 160)
    frame["price"] = 3000 * frame["size"] + 2e4 * frame["rooms"] + rng.normal(0, 1e4, 160)
    frame["rent"] = frame["size"] * 10
    frame["kind"] = np.where(frame["size"] > 130, "villa", np.where(frame["size"] > 110, "house", "flat"))
    frame["sold"] = np.where(frame["size"] > 115, "yes", "no")
    frame["weight"] = rng.integers(1, 4, 160)
    return frame


def run(frame, target, capsys, *more):
    """Train on a target, and return what evaluate says as JSON."""
    columns = ["size", "rooms", "noise", *target.split(","), *(["weight"] if "--weights" in more else [])]
    frame[columns].to_csv("t.csv", index=False)
    argv = ["train", "t.csv", "--target", target, "--out", "run", *SHORT, *more]
    assert main(argv) == 0
    told = capsys.readouterr().out
    assert main(["evaluate", "run", "--json", "--importance", "--device", "cpu"]) == 0
    return told, json.loads(capsys.readouterr().out)["report"]


@pytest.mark.parametrize("weights", [[], ["--weights", "weight"]])
def test_errors_of_each_target_beside_simpler_models(frame, capsys, weights):
    told, found = run(frame, "price,rent", capsys, *weights)
    training, held_out = frame[:-40], frame[-40:]
    w, own = (held_out["weight"], training["weight"]) if weights else (None, None)
    X = ["size", "rooms", "noise"]
    predicted = xpnet.load("run", device="cpu").predict(held_out[X])
    for name in ("price", "rent"):
        linear = LinearRegression().fit(training[X], training[name], own).predict(held_out[X])
        mean = np.full(40, np.average(training[name], weights=own))
        for model, P in (("network", predicted[name]), ("the mean alone", mean), ("least squares", linear)):
            errors, y = found["targets"][name][model], held_out[name]
            assert errors["RMSE"] == pytest.approx(
                metrics.root_mean_squared_error(y, P, sample_weight=w), rel=1e-6, abs=1e-6
            )
            assert errors["MAE"] == pytest.approx(
                metrics.mean_absolute_error(y, P, sample_weight=w), rel=1e-6, abs=1e-6
            )
            assert errors["R2"] == pytest.approx(metrics.r2_score(y, P, sample_weight=w), rel=1e-6)
    assert "RMSE" in told and "  the mean alone" in told and "  least squares" in told


@pytest.mark.full
@pytest.mark.parametrize("target", ["kind", "sold"])
def test_figures_of_each_class(frame, capsys, target):
    told, found = run(frame, target, capsys)
    training, held_out = frame[target][:-40], frame[-40:]
    model, y = xpnet.load("run", device="cpu"), held_out[target]
    predicted = model.predict(held_out[["size", "rooms", "noise"]])[target]
    P = model.predict_proba(held_out[["size", "rooms", "noise"]])
    expected = metrics.classification_report(y, predicted, output_dict=True, zero_division=0)
    for label, figures in found["classes"].items():
        theirs = expected[label]
        assert figures == pytest.approx(
            {
                "precision": theirs["precision"],
                "recall": theirs["recall"],
                "f1": theirs["f1-score"],
                "rows": theirs["support"],
            }
        )
    np.testing.assert_array_equal(found["confusion"], metrics.confusion_matrix(y, predicted))
    most = training.value_counts().idxmax()
    assert found["always"] == {"class": most, "accuracy": pytest.approx((y == most).mean())}
    assert 0 <= found["least_squares"]["accuracy"] <= 1
    surest, is_right = P.max(axis=1).to_numpy(), (predicted == y).to_numpy()
    bins = np.minimum((10 * surest).astype(int), 9)
    gaps = [abs(surest[bins == i].mean() - is_right[bins == i].mean()) * (bins == i).mean() for i in set(bins)]
    assert found["calibration_error"] == pytest.approx(sum(gaps))
    assert (f"always '{most}': accuracy" in told and "-> no" in told) or target == "kind"


@pytest.mark.full
def test_a_column_that_says_nothing_has_no_importance(frame, capsys):
    _, found = run(frame, "price", capsys, "--optimizer", "adam", "--lr", "0.03", "--epochs", "40")
    falls = found["importance"]
    assert next(iter(falls)) == "size" and abs(falls["noise"]["mean"]) < 0.1 < falls["size"]["mean"] < 4
    assert falls["noise"]["deviation"] > 0


def test_of_many_classes_those_with_the_most_rows():
    classes = {f"c{i}": {"precision": i / 20, "recall": i / 20, "f1": i / 20, "rows": float(i)} for i in range(12)}
    report = {"classes": classes, "confusion": np.eye(12).tolist(), "always": {"class": "c1", "accuracy": 0.1}}
    lines = "\n".join(lines_of(report, 80))
    assert "c2" in lines and "c1 " not in lines and "->" not in lines and "and 2 more, of fewer rows" in lines


@pytest.mark.full
def test_rows_that_were_trained_on_are_no_new_ones(frame, capsys):
    run(frame, "sold", capsys)
    assert main(["evaluate", "run", "t.csv", "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    assert "t.csv is what the run was trained on, so this is no score on new rows; `xpnet evaluate run` measures" in err
    assert "least squares" not in out and "always" in out


def test_importance_goes_with_a_table(capsys):
    assert main(["train", "--epochs", "1", "--layers", "784,2,10", "--out", "run", "--quiet", "--device", "cpu"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "run", "--importance", "--device", "cpu"]) == 2
    says(
        capsys.readouterr().err.strip(),
        "--importance goes with a run on a table",
        "was not trained on one",
        "leave it out",
    )
