"""The command line on tables: from raw rows to predictions, against the same by hand, and every refusal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file
from sklearn.metrics import f1_score, mean_absolute_error, r2_score, roc_auc_score
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from test_cli import json_lines, names, refused, refused_by_parser, surroundings  # noqa: F401  a fixture that runs by itself

from xpnet.cli import main
from xpnet.tables.model import read_preprocessing

N, N_VALIDATION = 400, 40
SHORT = ["--epochs", "3", "--layers", "6,16,{}", "--quiet", "--split", "last", "--dropout", "0", "--end-with", "last"]
TARGETS = {"price": 1, "kind": 3, "sold": 1, "price,size": 2}


def mixed_table():
    """A mixed table: 6 features of four columns, and a target of each kind."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "size": rng.normal(120, 30, N).round(1),
            "rooms": rng.integers(1, 7, N),
            "colour": rng.choice(["red", "green", "dark, blue"], N),
            "garden": rng.random(N) < 0.4,
        }
    )
    frame["price"] = (3000 * frame["size"] + 2e4 * frame["rooms"] + 5e4 * (frame["colour"] == "red")).round(2)
    frame["kind"] = np.where(frame["price"] > 4.8e5, "villa", np.where(frame["price"] > 4e5, "house", "flat"))
    frame["sold"] = np.where(frame["garden"] ^ (frame["size"] > 120), "yes", "no")
    return frame


@pytest.fixture
def table():
    return mixed_table()


def features(training, rows):
    """X (n, 6) in float64 by scikit-learn, fitted on the training rows."""
    numeric, text = ["size", "rooms", "garden"], ["colour"]
    scaled = StandardScaler().fit(training[numeric].astype(float)).transform(rows[numeric].astype(float))
    one_hot = OneHotEncoder(sparse_output=False).fit(training[text]).transform(rows[text])
    return np.hstack([scaled[:, :2], one_hot, scaled[:, 2:]])


def outputs(run, X):
    """The last layer's output of a relu network with one hidden layer, in float64, from the tensors of a run."""
    tensors = {name: value.astype(np.float64) for name, value in load_file(Path(run) / "model.safetensors").items()}
    hidden = np.maximum(X @ tensors["layers.0.W"].T + tensors["layers.0.b"].T, 0)
    return hidden @ tensors["layers.2.W"].T + tensors["layers.2.b"].T


def train(table, target, *options, name="t.csv", drop=()):
    """Train a short run on a file with these columns and no other targets, and return the frame in the file."""
    frame = table[[column for column in table if column not in TARGETS or column == target]].drop(columns=list(drop))
    (frame.to_csv if name.endswith("csv") else frame.to_parquet)(name, index=False)
    short = [word.format(TARGETS[target]) for word in SHORT]
    assert main(["train", name, "--target", target, *short, "--out", "run", *options]) == 0
    return frame


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_a_regression_predicts_and_measures_in_the_units_of_its_target(table, capsys, name):
    frame = train(table, "price", name=name)
    assert capsys.readouterr().out.startswith("validation loss")
    training, held_out = frame[:-N_VALIDATION], frame[-N_VALIDATION:]
    prices = StandardScaler().fit(training[["price"]])
    expected = prices.inverse_transform(outputs("run", features(training, frame)))[:, 0]

    frame.drop(columns="price").to_csv("new.csv", index=False)
    assert main(["predict", "run", "new.csv", "--out", "p.csv"]) == 0
    found = pd.read_csv("p.csv")
    assert list(found) == ["price"]
    np.testing.assert_allclose(found["price"], expected, rtol=1e-5)
    assert main(["predict", "run", "--out", "p.parquet", "new.csv"]) == 0
    np.testing.assert_allclose(pd.read_parquet("p.parquet")["price"], found["price"], rtol=1e-8)
    capsys.readouterr()

    errors = expected[-N_VALIDATION:] - held_out["price"]
    assert main(["evaluate", "run", "--json"]) == 0
    assert main(["evaluate", "run", "new.csv", "--json"]) == 1  # it has no target
    held_out.to_csv("held.csv", index=False)
    assert main(["evaluate", "--json", "run", "--input", "held.csv"]) == 0
    validation, held = json_lines(capsys.readouterr().out)
    last = json_lines(Path("run/history.jsonl").read_text(encoding="utf-8"))[-1]
    assert (validation["part"], held["part"]) == ("validation", "held.csv")
    for measured in (validation, held, {key.removeprefix("val_"): value for key, value in last.items()}):
        assert measured["mean_absolute_error"] == pytest.approx(abs(errors).mean(), rel=1e-4)
        assert measured["r2"] == pytest.approx(r2_score(held_out["price"], expected[-N_VALIDATION:]), rel=1e-4)
        assert measured["loss"] == pytest.approx(0.5 * (errors**2).mean() / prices.var_[0], rel=1e-4)


def test_classes_are_predicted_by_their_names_with_probabilities(table, capsys):
    frame = train(table, "kind")
    Z = outputs("run", features(frame[:-N_VALIDATION], frame))
    expected = np.exp(Z - Z.max(axis=1, keepdims=True))
    expected /= expected.sum(axis=1, keepdims=True)
    assert main(["predict", "run", "t.csv", "--out", "p.csv"]) == 0
    found = pd.read_csv("p.csv")
    assert list(found) == ["kind", "probability_flat", "probability_house", "probability_villa"]
    np.testing.assert_allclose(found.to_numpy()[:, 1:].astype(float), expected, atol=1e-5)
    kinds = np.array(["flat", "house", "villa"])[expected.argmax(axis=1)]
    assert list(found["kind"]) == list(kinds)
    assert main(["predict", "run", "t.csv", "--out", "p.csv", "--labels"]) == 0
    assert list(pd.read_csv("p.csv")) == ["kind"]
    capsys.readouterr()
    assert main(["evaluate", "run", "t.csv"]) == 0
    right = int((kinds == frame["kind"]).sum())
    assert f"accuracy {right / N:.4f}  ({right} of {N})\n" in capsys.readouterr().out


@pytest.mark.full
def test_two_classes_are_one_output_and_metrics_are_of_the_second(table, capsys):
    frame = train(table, "sold", "--metrics", "f1,roc_auc", "--class-weight", "balanced")
    assert json.loads(Path("run/config.json").read_text(encoding="utf-8"))["spec"]["loss"] == "sigmoid_cross_entropy"
    p = 1 / (1 + np.exp(-outputs("run", features(frame[:-N_VALIDATION], frame))[:, 0]))
    assert main(["predict", "run", "t.csv", "--out", "p.csv"]) == 0
    found = pd.read_csv("p.csv")
    assert list(found) == ["sold", "probability_no", "probability_yes"]
    np.testing.assert_allclose(found["probability_yes"], p, atol=1e-5)
    np.testing.assert_allclose(found["probability_no"], 1 - p, atol=1e-5)
    assert list(found["sold"]) == list(np.where(p > 0.5, "yes", "no"))
    capsys.readouterr()
    assert main(["evaluate", "run", "t.csv", "--metrics", "f1,roc_auc", "--json"]) == 0
    (measured,) = json_lines(capsys.readouterr().out)
    truth = frame["sold"] == "yes"
    assert measured["f1"] == pytest.approx(f1_score(truth, p > 0.5), rel=1e-6)
    assert measured["roc_auc"] == pytest.approx(roc_auc_score(truth, p), rel=1e-6)


def test_scores_without_a_link_are_no_probabilities(table):
    frame = train(table, "sold", "--loss", "hinge")
    Z = outputs("run", features(frame[:-N_VALIDATION], frame))[:, 0]
    assert main(["predict", "run", "t.csv", "--out", "p.csv"]) == 0
    found = pd.read_csv("p.csv")
    assert list(found) == ["sold", "output_yes"]
    np.testing.assert_allclose(found["output_yes"], Z, atol=1e-4)
    assert list(found["sold"]) == list(np.where(Z > 0, "yes", "no"))


@pytest.mark.full
def test_several_targets(table, capsys):
    table = table.assign(weight=2 * table["size"], **{"a, b": table["rooms"] * 1.5})
    columns = ["size", "rooms", "colour", "garden", "same", "weight", "a, b"]
    table["same"] = 7
    table[columns].to_csv("t.csv", index=False)
    argv = ["train", "t.csv", "--epochs", "3", "--quiet", "--dtype", "float64", "--layers", "{},16,{}"]
    argv += ["--dropout", "0", "--optimizer", "sgd", "--out"]
    assert main([word.format(7, 2) for word in argv] + ["two", "--target", "weight,same", "--drop", "a, b"]) == 1
    assert "'same' is 7.0 in all 360 rows" in capsys.readouterr().err
    assert main([word.format(5, 2) for word in argv] + ["two", "--target", "weight,rooms", "--drop", "garden"]) == 0
    assert main(["predict", "two", "t.csv", "--out", "p.csv"]) == 0
    found = pd.read_csv("p.csv")
    assert list(found) == ["weight", "rooms"]
    assert mean_absolute_error(found["weight"], table["weight"]) < 0.3 * table["weight"].std()
    assert main([word.format(7, 1) for word in argv] + ["one", "--target", "a, b"]) == 0  # a name with a comma


def test_targets_that_the_loss_takes_as_they_are_are_not_scaled(table):
    frame = table[["size", "rooms", "garden"]]
    frame.to_csv("t.csv", index=False)
    argv = [
        "train",
        "t.csv",
        "--target",
        "rooms",
        "--task",
        "regression",
        "--epochs",
        "1",
        "--quiet",
        "--layers",
        "2,4,1",
        *("--split", "last", "--dropout", "0"),
    ]
    assert main([*argv, "--loss", "poisson", "--lr", "0.01", "--out", "run"]) == 0
    assert main(["predict", "run", "t.csv", "--out", "p.csv"]) == 0
    X = (
        StandardScaler()
        .fit(frame[:-N_VALIDATION][["size", "garden"]].astype(float))
        .transform(frame[["size", "garden"]].astype(float))
    )
    np.testing.assert_allclose(pd.read_csv("p.csv")["rooms"], np.exp(outputs("run", X))[:, 0], rtol=1e-4)


@pytest.mark.full
def test_missing_values_are_imputed_where_they_were_in_training(table, capsys):
    holes = table.copy()
    holes.loc[[3, 390], "size"] = np.nan
    holes.loc[[5], "colour"] = None
    columns = ["size", "colour", "garden", "price"]
    holes[columns].to_csv("t.csv", index=False)
    argv = ["train", "t.csv", "--target", "price", "--epochs", "1", "--split", "last", "--out", "run"]
    refused(
        capsys,
        [*argv, "--strict"],
        "t.csv: --strict allows no change of the data, and 2 would be needed",
        "'size' has missing values (--drop COLUMN); 'colour' has missing categories",
        "mend the file, take the options in brackets, or leave --strict out",
    )
    assert names(".") == ["t.csv"]
    assert main(argv) == 0
    err = capsys.readouterr().err
    assert "size (1): missing values: filled in by the median, with a feature that says so (--drop COLUMN)" in err
    assert "colour (1): missing categories: a category of their own (--drop COLUMN)" in err
    assert main(["predict", "run", "t.csv", "--out", "p.csv"]) == 0
    assert len(pd.read_csv("p.csv").dropna()) == N


@pytest.mark.full
def test_what_only_the_rows_held_out_have_is_said_and_not_allowed_if_strict(table, capsys):
    frame = table[["size", "colour", "price"]].astype({"colour": object})
    frame.loc[N - 1, "colour"], frame.loc[N - 2, "size"] = "purple", None
    frame.to_csv("t.csv", index=False)
    argv = ["train", "t.csv", "--target", "price", "--epochs", "1", "--split", "last", "--out", "run"]
    rare = "'colour' has categories that are rare in training or unknown"
    refused(capsys, [*argv, "--strict"], rare, "'size' has missing")
    assert main(argv) == 0
    err = capsys.readouterr().err
    assert "colour (1, 'purple' in row 400): categories that are rare in training or unknown" in err
    assert "size (1, in row 399): missing values: no training row has any" in err and "UserWarning" not in err


@pytest.mark.full
def test_what_training_says_of_a_table(table, capsys):
    frame = table[["size", "colour", "price"]].assign(same=7)
    frame.to_csv("t.csv", index=False)
    assert main(["train", "t.csv", "--target", "price", "--epochs", "1", "--out", "run"]) == 0
    out, err = capsys.readouterr()
    assert "task: regression of 'price'; it learns the standardised target" in err
    assert "2 columns, 1 numeric and 1 of categories, give 4 features" in err
    assert "same: one value only: left out" in err
    assert " mean_absolute_error " in out and " r2 " in out
    assert names("run") == ["checkpoint.safetensors", "config.json", "history.jsonl", "model.safetensors", "table.json"]
    table[["size", "kind"]].to_csv("k.csv", index=False)
    assert main(["train", "k.csv", "--target", "kind", "--epochs", "1", "--out", "kinds"]) == 0
    assert "task: multiclass, 'kind' is flat, house, villa" in capsys.readouterr().err


def test_patience_and_scores_look_at_errors_in_the_units_of_the_target(table, capsys):
    train(
        table,
        "price",
        "--metrics",
        "mean_absolute_error",
        "--monitor",
        "val_mean_absolute_error",
        "--target-score",
        "1e9",
        "--json",
    )
    *_, last, summary = json_lines(capsys.readouterr().out)
    assert last["epoch"] == 0 and "1e+09" in last["stopped"] and 1e4 < last["val_mean_absolute_error"] < 1e9
    assert summary["val_mean_absolute_error"] == last["val_mean_absolute_error"]


def test_a_run_on_a_table_resumes_and_repeats_to_the_same_bits(table, capsys):
    train(table, "price", "--dropout", "0.1")
    before = Path("run/model.safetensors").read_bytes()
    assert main(["train", "--config", "run/config.json", "--quiet", "--out", "again"]) == 0
    assert Path("again/model.safetensors").read_bytes() == before
    assert Path("again/table.json").read_bytes() == Path("run/table.json").read_bytes()
    assert main(["train", "--config", "run/config.json", "--epochs", "1", "--quiet", "--out", "short"]) == 0
    assert main(["train", "--resume", "short", "--epochs", "3", "--quiet"]) == 0
    assert Path("short/model.safetensors").read_bytes() == before
    capsys.readouterr()
    frame = pd.read_csv("t.csv")
    frame.loc[0, "size"] += 1
    frame.to_csv("t.csv", index=False)
    refused(
        capsys,
        ["train", "--resume", "short", "--epochs", "4"],
        "table.json",
        "is not what the table gives now",
        "restore the table",
    )


@pytest.mark.full
def test_plan_and_find_lr_take_tables(table, capsys):
    train(table, "kind", "--plan")
    assert "training X   " in capsys.readouterr().out
    argv = ["find-lr", "--steps", "20", "t.csv", "--target", "kind", "--json"]
    assert main(argv) in (0, 1)
    assert len(json_lines(capsys.readouterr().out)[0]["losses"]) > 3


def test_a_table_that_has_moved(table, capsys):
    train(table, "kind")
    Path("moved").mkdir()
    Path("t.csv").rename("moved/t.csv")
    capsys.readouterr()
    refused(capsys, ["evaluate", "run"], "there is no file", "t.csv")
    assert main(["evaluate", "run", "--data-dir", "moved"]) == 0


@pytest.mark.full
def test_classes_of_digits_and_categories_of_digits_stay_text(table):
    """Where a file holds the digits alone, pandas would read 01 as the number 1."""
    frame = pd.DataFrame({"code": ["01", "2.50", "x", "y"] * 50, "y": ["a", "007", "2", "b"] * 50})
    frame.to_csv("t.csv", index=False)
    assert main(["train", "t.csv", "--target", "y", "--epochs", "30", "--quiet", "--out", "run"]) == 0
    for code, label in (("01", "a"), ("2.50", "007")):
        frame[frame["code"] == code].to_csv("part.csv", index=False)
        assert main(["predict", "run", "part.csv", "--out", "p.csv"]) == 0
        assert set(pd.read_csv("p.csv", dtype=str)["y"]) == {label}
        assert main(["evaluate", "run", "part.csv"]) == 0


# Refusals


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["t.csv"], ["t.csv is a table", "needs its target", "add --target COLUMN"]),
        (["--target", "0.9"], ["--target goes with a table", "not with mnist-sample", "--target-score"]),
        (["--drop", "a"], ["--drop goes with a table"]),
        (["--impute", "mean"], ["--impute goes with a table"]),
        (["--task", "binary"], ["--task goes with a table"]),
        (["--weights", "w"], ["--weights goes with --dataset X.npy", "not with mnist-sample", "leave it out"]),
        (["--strict"], ["--strict goes with a table"]),
        (
            ["t.csv", "--target", "y", "--labels", "Y.npy"],
            ["--labels goes with --dataset X.npy", "the table t.csv has its columns", "leave it out"],
        ),
        (["t.csv", "--target", "y", "--data-dir", "D"], ["--data-dir goes with --dataset mnist"]),
    ],
)
def test_options_that_do_not_fit_each_other(capsys, options, parts):
    refused(capsys, ["train", *options], *parts, code=2)


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (
            ["train", "t.csv", "--dataset", "mnist"],
            ["'t.csv' stands for --dataset", "which is given too", "leave one of them out"],
        ),
        (["train", "mnst"], ["'mnist'", "a table (.csv, .tsv,", "did you mean 'mnist'?"]),
        (["train", "t.xls", "--target", "y"], ["t.xls", "a table (.csv, .tsv,"]),
        (["train", "--target", "y", "--impute", "mode"], ["impute is 'mode'"]),
        (["evaluate", "run", "t.csv", "--input", "t.csv"], ["which is given too"]),
    ],
)
def test_words_that_are_no_data(capsys, argv, parts):
    refused_by_parser(capsys, argv, *parts)


def test_data_may_be_named_without_a_flag_anywhere(capsys):
    for argv in (["mnist-sample", "--epochs", "0"], ["--epochs", "0", "mnist-sample"]):
        assert main(["train", *argv, "--quiet"]) == 0
        assert "-> runs/mnist-sample" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("", ["is empty"]),
        ("x,y\n", ["a header and no rows"]),
        ("x,y\n1,2\n3\n", ["line 3 has 1 field"]),
        ("x,z\n" + "1,2\n" * 20, ["there is no column 'y'"]),
        ("x,y\n" + "1,2\n2,2\n" * 20, ["target 'y' is 2 in all 40"]),
        ("x,y\n" + "".join(f"{i % 7},w{i}\n" for i in range(20)), ["target 'y' has 20 different texts"]),
        ("x,y\n" + "".join(f"w{i},{i}.5\n" for i in range(20)), ["no column is left", "'w0'", "--keep COLUMN"]),
        ("x,y\n" + "1,\n2,NA\n" * 20, ["target 'y' has no value in any row", "another --target"]),
    ],
)
def test_a_bad_table_leaves_no_run(capsys, content, parts):
    Path("t.csv").write_text(content, encoding="utf-8")
    refused(capsys, ["train", "t.csv", "--target", "y"], "t.csv", *parts)
    assert names(".") == ["t.csv"]


@pytest.mark.parametrize(
    ("rows", "options", "code", "parts"),
    [
        ("validation", ["--validation", "0.001"], 2, ["--validation 0.001 of 20 samples"]),
        ("all", ["--validation", "20"], 2, ["leaves none of the 20 samples"]),
        ("balance", ["--class-weight", "balanced"], 2, ["needs classes, and --target y"]),
        (
            "layers",
            ["--layers", "3,1"],
            2,
            ["--layers goes from 3 to 1", "t.csv has 1 feature and 1 output", "begin and end with these"],
        ),
        ("loss", ["--loss", "hinge"], 1, ["hinge needs targets"]),
        ("metrics", ["--metrics", "f1"], 2, ["--metrics f1"]),
    ],
)
def test_options_that_the_table_cannot_have(capsys, rows, options, code, parts):
    Path("t.csv").write_text("x,y\n" + "".join(f"{i},{i}.5\n" for i in range(20)), encoding="utf-8")
    refused(capsys, ["train", "t.csv", "--target", "y", *options], *parts, code=code)
    assert names(".") == ["t.csv"]


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A run on a table, the table, and an untrained run on digits, which no test changes."""
    folder = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XPNET_DEVICE", "cpu")
        patch.delenv("XPNET_DATA", raising=False)
        frame = train(mixed_table(), "kind")
        assert main(["train", "--epochs", "0", "--layers", "784,10", "--quiet", "--out", "digits"]) == 0
    return folder, frame


@pytest.fixture
def trained(kept, capsys):
    folder, frame = kept
    shutil.copytree(folder, ".", dirs_exist_ok=True)
    capsys.readouterr()
    return frame.copy()


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda f: f.drop(columns=["size", "garden"]), ["there are no columns 'size', 'garden'"]),
        (lambda f: f[:0], ["a header and no rows"]),
    ],
)
def test_rows_that_the_model_cannot_take(trained, capsys, change, parts):
    change(trained).to_csv("new.csv", index=False)
    for argv in (["predict", "run", "new.csv", "--out", "p.csv"], ["evaluate", "run", "new.csv"]):
        refused(capsys, argv, "new.csv", *parts)
    assert not Path("p.csv").exists()


def test_rows_with_gaps_and_other_columns_are_predicted_with_a_word(trained, capsys):
    """In any order; the value of a gap is the median of the training rows, of an unknown category their mean."""
    rows = trained[:3].drop(columns="kind")
    odd = rows.assign(new=1, colour=["purple", "red", "red"], size=["big", *rows["size"][1:]], rooms=[None, 2, 3])
    odd[odd.columns[::-1]].to_csv("new.csv", index=False)
    assert main(["predict", "run", "new.csv", "--out", "p.csv"]) == 0
    err = capsys.readouterr().err
    assert "size ('big' in row 1): cells that are no numbers: taken as missing" in err.replace("(1, ", "(")
    assert "colour (1, 'purple' in row 1): categories that are rare in training or unknown" in err
    assert "rooms (1, in row 1): missing values: no training row has any: taken as" in err
    assert "1 column that no training row has: 'new': ignored" in err
    training = trained[:-N_VALIDATION]
    filled = odd.assign(size=[training["size"].median(), *rows["size"][1:]], rooms=[training["rooms"].median(), 2, 3])
    X = features(training, filled.assign(colour="red"))
    X[0, 2:5] = [(training["colour"] == colour).mean() for colour in ("dark, blue", "green", "red")]
    X[1:, 2:5] = [0, 0, 1]
    Z = outputs("run", X)
    expected = np.exp(Z) / np.exp(Z).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(pd.read_csv("p.csv").to_numpy()[:, 1:].astype(float), expected, atol=1e-5)


def test_extra_columns_can_be_dropped(trained, capsys):
    trained.assign(new=1, more="a").to_csv("new.csv", index=False)
    assert main(["predict", "run", "new.csv", "--drop", "new,more", "--out", "p.csv"]) == 0
    assert main(["evaluate", "run", "new.csv", "--drop", "new,more"]) == 0
    capsys.readouterr()
    refused(
        capsys,
        ["evaluate", "run", "new.csv", "--drop", "old"],
        "--drop names the column 'old'",
        "does not have",
        "leave it out",
        code=2,
    )
    refused(
        capsys,
        ["evaluate", "run", "--drop", "new"],
        "--drop goes with the table",
        "of rows to measure",
        "name one, or leave it out",
        code=2,
    )


@pytest.mark.parametrize(
    ("argv", "code", "parts"),
    [
        (["predict", "run", "t.csv", "--out", "p.npy"], 2, ["ends in '.npy'", ".csv or .parquet"]),
        (["predict", "run", "t.csv", "--out", "t.csv"], 2, ["the input itself"]),
        (["predict", "run", "X.npy", "--out", "p.csv"], 1, ["X.npy ends in '.npy'", "it must be a table"]),
        (["predict", "run", "none.csv", "--out", "p.csv"], 1, ["there is no file none.csv"]),
        (["predict", "run", "t.csv", "--out", "none/p.csv"], 1, ["none/p.csv"]),
        (["predict", "digits", "t.csv", "--out", "p.csv"], 2, ["digits was not trained on a table"]),
        (["predict", "digits", "X.npy", "--drop", "a", "--out", "p.csv"], 2, ["--drop goes with one"]),
        (
            ["evaluate", "digits", "t.csv"],
            2,
            [
                "digits was not trained on a table",
                "t.csv goes with one",
                "give a .npy file of rows, or a run on a table",
            ],
        ),
        (
            ["evaluate", "digits", "X.npy"],
            2,
            ["digits was not trained on a table", "measured on its own data", "leave X.npy out"],
        ),
    ],
)
def test_commands_that_do_not_fit_the_run(trained, capsys, argv, code, parts):
    refused(capsys, argv, *parts, code=code)


@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (lambda text: None, ["was trained on a table", "has no table.json"]),
        (lambda text: text[:100], ["table.json", "no preprocessing of this version"]),
        (lambda text: text.replace('"dark, blue",', ""), ["table.json", "colour"]),
        (lambda text: text.replace('"dropped": []', '"dropped": ["size"]'), ["two of its columns"]),
    ],
)
def test_a_preprocessing_that_is_gone_or_damaged(trained, capsys, spoil, parts):
    path = Path("run/table.json")
    text = spoil(path.read_text(encoding="utf-8"))
    path.unlink()
    if text is not None:
        path.write_text(text, encoding="utf-8")
    for argv in (["predict", "run", "t.csv", "--out", "p.csv"], ["evaluate", "run"]):
        refused(capsys, argv, *parts, "train again, or restore it")


def test_a_preprocessing_of_another_model(trained, table, capsys):
    other = Path("run/table.json").read_text(encoding="utf-8")
    train(table, "kind", "--layers", "5,3", "--out", "other", drop=["rooms"])
    Path("other/table.json").write_text(other, encoding="utf-8")
    capsys.readouterr()
    refused(
        capsys,
        ["predict", "other", "t.csv", "--out", "p.csv"],
        "gives 6 features and 3 outputs",
        "5 and 3",
        "train again, or restore them",
    )


# Options about columns


COLUMNS = {"a": range(60), "b, c": [i * 1.5 for i in range(60)], "d": [1, 2, 3] * 20, "e": ["x", "y", "z"] * 20}


@pytest.mark.parametrize(
    ("options", "toml", "features"),
    [
        (["--drop", "a", "--drop", "b, c"], None, ["d", "e"]),
        (["--drop", "a,d"], None, ["b, c", "e"]),
        (["--drop", '"b, c",d', "--keep", "a"], None, ["a", "e"]),
        ([], 'drop = ["a", "b, c"]', ["d", "e"]),
        ([], 'drop = "a,d"', ["b, c", "e"]),
        (["--drop", "d"], 'drop = ["a", "b, c"]\nkeep = ["a"]', ["a", "b, c", "e"]),  # the command line wins
    ],
)
def test_names_of_columns_in_options(options, toml, features):
    frame = pd.DataFrame(COLUMNS | {"y": np.random.default_rng(0).normal(size=60)})
    frame.to_csv("t.csv", index=False)
    if toml is not None:
        Path("o.toml").write_text(toml, encoding="utf-8")
        options = [*options, "--config", "o.toml"]
    argv = ["train", "t.csv", "--target", "y", "--epochs", "1", "--quiet"]
    assert main([*argv, *options, "--out", "run"]) == 0
    table = json.loads(Path("run/table.json").read_text(encoding="utf-8"))
    assert [column["name"] for column in table["columns"]] == features
    assert main(["train", "--config", "run/config.json", "--quiet", "--out", "again"]) == 0
    assert Path("again/table.json").read_text(encoding="utf-8") == Path("run/table.json").read_text(encoding="utf-8")


def test_categories_that_are_asked_for_keep_their_leading_zeros(capsys):
    frame = pd.DataFrame({"zip": ["01", "02", "10"] * 20, "y": np.random.default_rng(0).normal(size=60)})
    frame.to_csv("t.csv", index=False)
    argv = ["train", "t.csv", "--target", "y", "--epochs", "1", "--categorical", "zip", "--quiet", "--out", "run"]
    assert main(argv) == 0
    table = json.loads(Path("run/table.json").read_text(encoding="utf-8"))
    assert table["columns"][0]["categories"] == ["01", "02", "10"]
    assert main(["predict", "run", "t.csv", "--out", "p.csv"]) == 0
    assert "rare in training or unknown" not in capsys.readouterr().err
    refused(capsys, [*argv[:-1], "other", "--date", "zip"], "t.csv", "'zip' is named both for --date and for --categ")


@pytest.mark.full
def test_weights_of_a_table_count_in_measures(table, capsys):
    frame = table[["size", "garden", "price"]].assign(weight=np.arange(N) % 2)
    frame.to_csv("t.csv", index=False)
    argv = ["train", "t.csv", "--target", "price", "--epochs", "2", "--quiet", "--weights", "weight", "--out", "run"]
    assert main([*argv, "--split", "last", "--dtype", "float64"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "run", "t.csv", "--json"]) == 0
    assert main(["evaluate", "run", "--json"]) == 0
    whole, held_out = json_lines(capsys.readouterr().out)
    assert main(["predict", "run", "t.csv", "--out", "p.csv"]) == 0
    predicted = pd.read_csv("p.csv")["price"]
    errors = abs(predicted - frame["price"])
    deviation = frame["price"][:-N_VALIDATION].std(ddof=0)
    for measured, part in ((whole, slice(None)), (held_out, slice(-N_VALIDATION, None))):
        weights = frame["weight"][part]
        loss = np.average(errors[part] ** 2, weights=weights) / deviation**2 / 2
        assert measured["loss"] == pytest.approx(loss, rel=1e-6)
        assert measured["mean_absolute_error"] == pytest.approx(np.average(errors[part], weights=weights), rel=1e-6)
        r2 = r2_score(frame["price"][part], predicted[part], sample_weight=weights)
        assert measured["r2"] == pytest.approx(r2, rel=1e-6)


@pytest.mark.full
@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_a_run_on_dates_written_as_numbers_is_evaluated_as_it_was_trained(table, capsys, name):
    days = pd.Series(pd.date_range("2023-01-01", periods=N).strftime("%Y%m%d").astype(float)).sample(frac=1)
    frame = table[["size", "price"]].assign(date=days.to_numpy())
    frame.loc[7, "date"] = np.nan
    (frame.to_csv if name.endswith("csv") else frame.to_parquet)(name, index=False)
    argv = ["train", name, "--target", "price", "--epochs", "2", "--out", "run", "--json"]
    assert main(argv) == 0
    trained = json_lines(capsys.readouterr().out)[-1]
    frame.to_csv("new.csv", index=False)
    assert main(["evaluate", "run", "--json"]) == 0
    (measured,) = json_lines(capsys.readouterr().out)
    assert measured["r2"] == trained["val_r2"]
    assert main(["predict", "run", "new.csv", "--out", "p.csv"]) == 0
    assert "no dates" not in capsys.readouterr().err


def test_a_text_among_numbers_is_read_with_the_decimal_sign_of_the_run(tmp_path, monkeypatch, capsys):
    """pandas reads a column with one odd cell as text: the others keep the comma of the file."""
    monkeypatch.chdir(tmp_path)
    rows = [(f"{i * 3 % 50},{i % 10}", f"{i * 2 % 50},5") for i in range(60)]
    Path("t.csv").write_text("a;b;y\n" + "".join(f"{a};{b};{i}\n" for i, (a, b) in enumerate(rows)), "utf-8")
    assert main(["train", "t.csv", "--target", "y", "--epochs", "1", "--quiet", "--out", "run"]) == 0
    table = read_preprocessing(Path("run"))
    cells = ["71,5", "1.071,5", "k.A.", "x", "8.25"]
    frame = pd.DataFrame({"a": cells, "b": [1.5] * len(cells)})
    column = table.columns[0]
    with pytest.warns(UserWarning) as said:
        found = table.transform(frame, np.float64)[0] * column.deviation + column.mean
    assert any("'x' in row" in str(warning.message) for warning in said)
    median = np.median([float(a.replace(",", ".")) for a, _ in rows])
    np.testing.assert_allclose(found[[0, 1, 4]], [71.5, 1071.5, 8.25], rtol=1e-12)
    assert abs(found[2] - median) < 10 and found[2] == found[3]
