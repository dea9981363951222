"""Which samples a run holds out, what its defaults are, and that evaluate and resume find the same rows again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_cli import json_lines, refused, surroundings  # noqa: F401  a fixture that runs by itself

import xpnet
from xpnet.cli import main

N = 120
QUICK = ["--epochs", "2", "--hidden", "4", "--quiet"]
PLAIN = ["--optimizer", "sgd", "--dropout", "0"]


@pytest.fixture
def table():
    """Sorted by class; patients of four visits each, in the order of time."""
    rng = np.random.default_rng(0)
    kinds = np.repeat(["a", "b", "c"], [60, 40, 20])
    frame = pd.DataFrame({"x": rng.normal(size=N), "kind": kinds, "patient": np.arange(N) // 4})
    frame["x"] += (kinds == "b") * 3.0
    frame["day"] = np.arange(N)[::-1]
    frame["price"] = frame["x"] * 2.0 + 1.0
    frame.to_csv("t.csv", index=False)
    return frame


def config(run="run"):
    return json.loads(Path(run, "config.json").read_text(encoding="utf-8"))


def train(*options, target="kind", drop="price", out="run"):
    return main(["train", "t.csv", "--target", target, "--drop", drop, *QUICK, *options, "--out", out])


def held_out(frame, column="x"):
    """The values of a column in the rows that the run was validated on, told by what its table.json was fitted on."""
    table = json.loads(Path("run/table.json").read_text(encoding="utf-8"))
    (mean,) = [each["mean"] for each in table["columns"] if each["name"] == column]
    n = config()["data"]["n_validation"]
    return mean * (N - n), n


@pytest.mark.parametrize(
    ("options", "target", "spec"),
    [
        ([], "kind", {"kind": "stratify", "n_held_out": 12, "seed": 0, "column": None}),
        (["--seed", "5"], "price", {"kind": "shuffle", "n_held_out": 12, "seed": 5, "column": None}),
        (["--split", "last", "--validation", "20"], "kind", {"kind": "last", "n_held_out": 20, "seed": 0}),
        (["--split", "group", "patient"], "kind", {"kind": "group", "n_held_out": 12, "column": "patient"}),
        (["--split=time day"], "kind", {"kind": "time", "n_held_out": 12, "column": "day"}),
        (["--validation", "0"], "kind", {"n_held_out": 0}),
    ],
)
def test_the_rows_held_out_are_those_of_the_rule(table, capsys, options, target, spec):
    assert train(*options, target=target, drop="price" if target == "kind" else "kind") == 0
    told = config()["data"]["split"]
    assert told | spec == told
    kind, n, seed = told["kind"], told["n_held_out"], told["seed"]
    order = np.random.default_rng(seed).permutation(N)
    expected = {
        "shuffle": order[:n],
        "last": np.arange(N - n, N),
        "time": np.arange(n),
        "stratify": [
            row for k, size in (("a", 6), ("b", 4), ("c", 2)) for row in order[table["kind"][order] == k][:size]
        ],
    }
    total, n_held = held_out(table)
    if kind == "group":
        patients = np.random.default_rng(0).permutation(30)[:3]
        expected["group"] = np.flatnonzero(table["patient"].isin(patients))
    rows = np.asarray(expected[kind][:n] if n else [], int)
    assert len(rows) == n_held
    assert total == pytest.approx(table["x"].drop(rows).sum(), rel=1e-9)
    capsys.readouterr()
    assert main(["evaluate", "run", "--json"]) == 0
    (measured,) = json_lines(capsys.readouterr().out)
    assert (measured["part"], measured["n"]) == (("validation", n) if n else ("training", N))
    if n:
        table.iloc[rows].to_csv("held.csv", index=False)
        assert main(["evaluate", "run", "held.csv", "--json"]) == 0
        (again,) = json_lines(capsys.readouterr().out)
        assert again["loss"] == pytest.approx(measured["loss"], rel=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        ["--split", "group", "patient"],
        pytest.param([], marks=pytest.mark.full),
        pytest.param(["--split", "time", "day"], marks=pytest.mark.full),
    ],
)
def test_a_split_run_repeats_and_resumes_to_the_same_bits(table, capsys, options):
    assert train(*options) == 0
    before = Path("run/model.safetensors").read_bytes()
    assert main(["train", "--config", "run/config.json", "--quiet", "--out", "again"]) == 0
    assert Path("again/model.safetensors").read_bytes() == before
    kept = [config(run) for run in ("run", "again")]
    assert kept[0]["options"] == kept[1]["options"] and kept[0]["data"] == kept[1]["data"]
    assert train(*options, "--epochs", "1", out="short") == 0
    assert main(["train", "--resume", "short", "--epochs", "2", "--quiet"]) == 0
    assert Path("short/model.safetensors").read_bytes() == before


def test_the_groups_are_no_feature_unless_they_are_asked_for(table, capsys):
    argv = ["train", "t.csv", "--target", "kind", "--drop", "price,day", "--split", "group", "patient", *QUICK[:-1]]
    for more, names_of_columns in (([], ["x"]), (["--keep", "patient"], ["x", "patient"])):
        assert main([*argv, *more, "--out", f"run{len(more)}"]) == 0
        told = json.loads(Path(f"run{len(more)}/table.json").read_text(encoding="utf-8"))
        assert [column["name"] for column in told["columns"]] == names_of_columns
        is_said = "patient: the groups of --split: no feature (--keep COLUMN)" in capsys.readouterr().err
        assert is_said == (not more)


def test_a_table_that_has_grown_no_longer_tells_the_rows_held_out(table, capsys):
    assert train() == 0
    pd.concat([table, table]).to_csv("t.csv", index=False)
    capsys.readouterr()
    refused(
        capsys, ["evaluate", "run"], "t.csv has 240 samples", "the run had 120", "name the run's data with --data-dir"
    )


@pytest.mark.full
def test_what_is_said_of_a_class_on_one_side_and_of_few_rows(table, capsys):
    def said(rows, *options):
        rows.to_csv("t.csv", index=False)
        assert main(["train", "t.csv", "--target", "kind", *QUICK[:-1], *options]) == 0
        return capsys.readouterr().err

    assert "target 'c': only in rows held out (20 rows) (--split stratify)" in said(
        table, "--split", "last", "--validation", "20"
    )
    assert "only in rows" not in said(table)
    few = table.iloc[[0, 1, 2, 3, 60, 61, 62, 63, 100, 101, 102]]
    assert "11 rows: a score on the 2 held out is mostly chance (--folds 5 measures on all)" in said(few)
    assert "4 rows: all are trained on, and no score" in said(few[2:6])
    assert config(sorted(Path("runs").iterdir())[-1])["data"]["n_validation"] == 0


@pytest.mark.parametrize(
    ("options", "code", "parts"),
    [
        (
            ["--split", "stratify", "--target", "price"],
            2,
            ["--split stratify needs", "are numbers", "take --split shuffle"],
        ),
        (["--split", "group", "doctor"], 1, ["t.csv: the column of --split group is 'doctor'", "choose one of"]),
        (["--split", "group", "one"], 1, ["t.csv: column 'one' has one group only", "needs two", "split by shuffle"]),
        (
            ["--split", "group", "two", "--folds", "2"],
            2,
            ["--folds 2: of the rows beside a fold column 'two' has one group only", "or leave --folds out"],
        ),
        (["--split", "time", "kind"], 1, ["'kind' holds no times", "needs dates or numbers", "name another column"]),
        (["--test", "T.npy"], 2, ["--test is T.npy", "it must be a table", "name one"]),
    ],
)
def test_splits_that_the_table_cannot_have(table, capsys, options, code, parts):
    table.assign(one=1, two=np.arange(N) % 2).to_csv("t.csv", index=False)
    refused(capsys, ["train", "t.csv", "--target", "kind", *options], *parts, code=code)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--split", "group", "a"], ["--split group a goes with a table", "has none", "take --split shuffle"]),
        (["--split", "time", "a"], ["--split time a goes with a table", "take --split last"]),
        (["--validation", "v.csv"], ["--validation v.csv goes with a table", "not with mnist-sample", "leave it out"]),
        (["--test", "v.csv"], ["--test v.csv goes with a table", "leave it out"]),
    ],
)
def test_splits_of_other_data(capsys, options, parts):
    refused(capsys, ["train", *options], *parts, code=2)


# --- files of rows ---------------------------------------------------------------------------------------------------


@pytest.fixture
def rows():
    rng = np.random.default_rng(1)
    np.save("X.npy", rng.normal(size=(50, 3)))
    np.save("classes.npy", np.repeat([0, 1], [40, 10]))
    np.save("targets.npy", rng.normal(size=50))


@pytest.mark.full
@pytest.mark.parametrize(("labels", "kind"), [("classes", "stratify"), ("targets", "shuffle")])
def test_a_file_of_rows_is_shuffled_too(rows, capsys, labels, kind):
    argv = ["train", "X.npy", "--labels", f"{labels}.npy", *QUICK, "--end-with", "last"]
    argv += ["--optimizer", "sgd", "--lr", "0.1", "--dropout", "0"]
    assert main([*argv, "--out", "run"]) == 0
    assert config()["data"]["split"] == {"kind": kind, "n_held_out": 5, "seed": 0, "column": None}
    X, Y = np.load("X.npy").T, np.load(f"{labels}.npy")
    dataset = xpnet.Dataset.from_labels(X, Y) if labels == "classes" else xpnet.Dataset(X, Y)
    order = np.random.default_rng(0).permutation(50)
    held = order[:5] if kind == "shuffle" else [*order[order < 40][:4], *order[order >= 40][:1]]
    mask = np.isin(np.arange(50), held)
    network = xpnet.Network.load("run/model.safetensors", xpnet.select_backend("cpu"))
    capsys.readouterr()
    assert main(["evaluate", "run", "--json"]) == 0
    (measured,) = json_lines(capsys.readouterr().out)
    assert measured["loss"] == pytest.approx(xpnet.evaluate(network, dataset.subset(np.flatnonzero(mask)))["loss"])
    other = xpnet.Network.load("run/model.safetensors", xpnet.select_backend("cpu"))
    fresh = xpnet.Network([3, 4, dataset.n_outputs], loss=other.architecture.loss, backend=other.backend)
    xpnet.train(fresh, dataset.subset(np.flatnonzero(~mask)), xpnet.SGD(0.1), epochs=2, batch_size=32)
    np.testing.assert_array_equal(fresh.owned, network.owned)


def test_rows_too_large_to_hold_are_left_in_their_file(rows, capsys, monkeypatch):
    monkeypatch.setattr("xpnet.tables.arrays.POOL_BYTES", 100)
    argv = ["train", "X.npy", "--labels", "classes.npy", *QUICK[:-1]]
    assert main([*argv, "--out", "run"]) == 0
    err = capsys.readouterr().err
    assert "X.npy: it is large, and read in blocks: its last 5 samples are held out (--split)" in err
    assert config()["data"]["split"]["kind"] == "last" and "not a full shuffle" in err
    assert main([*argv, "--split", "shuffle", "--out", "whole"]) == 0
    err = capsys.readouterr().err
    assert config("whole")["data"]["split"]["kind"] == "shuffle" and "large" not in err and "blocks" not in err


# --- defaults --------------------------------------------------------------------------------------------------------


def test_defaults_go_by_the_kind_of_data(table, rows, capsys):
    wanted = ("optimizer", "epochs", "patience", "hidden", "dropout", "end-with")
    assert main(["train", "t.csv", "--target", "price", "--max-steps", "1", "--quiet", "--out", "a"]) == 0
    assert main(["train", "X.npy", "--labels", "classes.npy", "--max-steps", "1", "--quiet", "--out", "b"]) == 0
    told = [{name: config(run)["options"].get(name) for name in wanted} for run in ("a", "b")]
    assert told[0] == dict(zip(wanted, ("adam", 300, 50, [64, 32], [0.1], "best"), strict=True))
    assert told[1] == dict(zip(wanted, ("adam", 100, 20, [100, 200], [0.1], "best"), strict=True))
    sizes = [[layer["n_out"] for layer in config(run)["spec"]["layers"] if "n_out" in layer] for run in ("a", "b")]
    assert sizes == [[64, 32, 1], [100, 200, 2]]
    assert main(["train", "t.csv", "--target", "price", "--max-steps", "1", "--ema", "0.9", "--out", "c"]) == 0
    assert main(["train", "t.csv", "--target", "price", "--validation", "0", "--epochs", "1", "--out", "d"]) == 0
    for run in ("c", "d"):
        assert (config(run)["options"]["patience"], config(run)["options"]["end-with"]) == (0, "last")
    capsys.readouterr()
    few = ["--patience", "3", "--target", "price", "--quiet"]
    table[:4].to_csv("t.csv", index=False)
    parts = ("val_loss needs samples held out", "t.csv has too few", "or take --monitor train_loss")
    refused(capsys, ["train", "t.csv", *few], *parts, code=2)


def test_a_file_of_options_names_columns_and_sizes(table, capsys):
    lines = ['dataset = "t.csv"', 'target = "kind"', 'split = "group patient"', "hidden = [5, 4]", "epochs = 1"]
    Path("run.toml").write_text("\n".join([*lines, "folds = 2", 'end-with = "last"']), encoding="utf-8")
    assert main(["train", "--config", "run.toml", "--quiet", "--out", "run"]) == 0
    told = config()
    assert told["data"]["split"]["column"] == "patient" and told["options"]["hidden"] == [5, 4]
    assert capsys.readouterr().out.startswith("2 folds, mean (deviation): loss ")


def test_hidden_sizes_stand_between_those_of_the_data(rows, table, capsys):
    argv = ["X.npy", "--labels", "classes.npy", "--hidden", "5,4"]
    assert main(["train", *argv, "--epochs", "1", "--quiet", "--out", "run"]) == 0
    assert str(xpnet.Network.load("run/model.safetensors").architecture).startswith("3-5-4-2 ")
    assert main(["find-lr", *argv, "--steps", "10", "--json"]) in (0, 1)
    capsys.readouterr()
    assert main(["describe", "--hidden", "5", "--show", "program"]) == 0
    assert "W1 @ X" in capsys.readouterr().out
    again = ["train", "--config", "run/config.json", "--quiet", "--out"]
    assert main([*again, "b", "--layers", "3,4,2"]) == 0  # in the place of --hidden
    assert "hidden" not in config("b")["options"] and config("b")["options"]["layers"] == [3, 4, 2]
    assert main(["train", "--config", "b/config.json", "--hidden", "7", "--quiet", "--out", "c"]) == 0
    assert "layers" not in config("c")["options"] and config("c")["options"]["hidden"] == [7]


# --- a training that diverges, or does not begin ---------------------------------------------------------------------

# A step an epoch, of which the fifth or so diverges.
WILD = ["--optimizer", "sgd", "--lr", "3", "--hidden", "8", "--dropout", "0", "--batch-size", "200", "--drop", "kind"]


def wild(*options, out):
    return main(["train", "t.csv", "--target", "price", *WILD, "--end-with", "last", *options, "--out", out])


def model(run):
    return Path(run, "model.safetensors").read_bytes()


def test_a_training_that_diverges_begins_again_at_a_tenth_of_the_rate(table, capsys):
    assert wild("--epochs", "12", out="run") == 0
    out, err = capsys.readouterr()
    (line,) = [line for line in err.splitlines() if "begins again" in line]
    assert (
        line.startswith("xpnet: the ") and "of epoch" in line and int(line.partition("of epoch ")[2].split()[0][0]) > 2
    )
    assert line.endswith("; it begins again at a tenth of the learning rate, 0.3")
    assert "at a tenth of the rate 3, at which it diverged" in out.splitlines()[-1]
    assert (config()["options"]["lr"], config()["diverged_at"]) == (pytest.approx(0.3), 3.0)
    epochs = [record["epoch"] for record in json_lines(Path("run/history.jsonl").read_text(encoding="utf-8"))]
    assert epochs == list(range(13))
    assert main(["train", "--config", "run/config.json", "--json", "--quiet", "--out", "again"]) == 0
    assert model("again") == model("run") and "diverged_at" not in json_lines(capsys.readouterr().out)[-1]

    # Left in the first attempt, or in the second, it ends with the same bits.
    assert wild("--epochs", "2", "--quiet", out="first") == 0
    assert "diverged_at" not in config("first")
    capsys.readouterr()
    assert main(["train", "--resume", "first", "--epochs", "12", "--json", "--quiet"]) == 0
    assert json_lines(capsys.readouterr().out)[-1]["diverged_at"] == 3.0
    assert wild("--epochs", "9", "--quiet", out="second") == 0
    assert main(["train", "--resume", "second", "--epochs", "12", "--quiet"]) == 0
    assert model("first") == model("second") == model("run")
    told = [config(run)["options"] for run in ("first", "second", "run")]
    told[0].pop("device", None)  # which a resumed run keeps
    assert told[0] == told[1] == told[2]


def test_a_training_diverges_twice(table, capsys):
    assert wild("--epochs", "30", "--lr", "30", out="run") == 1
    *_, said, line = capsys.readouterr().err.splitlines()
    assert "begins again" in said
    assert "lower the learning rate (lr is 3), or limit the gradient with clip_norm" in line
    assert main(["train", "--resume", "run", "--quiet"]) == 1
    assert "begins again" not in capsys.readouterr().err


def test_an_untrained_network_is_never_a_result_without_a_word(table, capsys):
    assert train("--max-seconds", "1e-9", out="run") == 0
    out, err = capsys.readouterr()
    assert (
        "xpnet: the run ended before its first step (budget of 1e-09 s): its network is untrained; allow it more" in err
    )
    assert train("--optimizer", "sgd", "--lr", "1e-30", "--seed", "1", out="b") == 0
    out, err = capsys.readouterr()
    assert "no epoch has a better val_loss" in err and "weights of epoch 0, untrained" in out
    assert train("--epochs", "0", out="c") == 0  # as asked for
    assert "untrained" not in capsys.readouterr().err


# --- other files, and folds ------------------------------------------------------------------------------------------


def test_other_tables_validate_and_test(table, capsys):
    parts = {"t.csv": table[:60], "v.csv": table[60:90], "w.csv": table[90:]}
    for name, rows_of in parts.items():
        rows_of[["x", "price"]].to_csv(name, index=False)
    argv = ["train", "t.csv", "--target", "price", "--validation", "v.csv", "--test", "w.csv", *QUICK]
    assert main([*argv, "--json", "--out", "run"]) == 0
    summary = json_lines(capsys.readouterr().out)[-1]
    data = config()["data"]
    assert (data["n_training"], data["n_validation"]) == (60, 30) and data["split"]["n_held_out"] == 0
    assert main(["evaluate", "run", "--json"]) == 0
    validation, test = json_lines(capsys.readouterr().out)
    assert (validation["n"], test["n"]) == (30, 30)
    for name, measured in (("v.csv", validation), ("w.csv", test)):
        assert main(["evaluate", "run", name, "--json"]) == 0
        (again,) = json_lines(capsys.readouterr().out)
        networks = [each.pop("report")["targets"]["price"]["network"] for each in (again, measured)]
        assert networks[0] == networks[1] and again | {"part": ""} == measured | {"part": ""}
    assert summary["test_r2"] == pytest.approx(test["r2"]) and summary["val_r2"] == pytest.approx(validation["r2"])
    assert main(["train", "--config", "run/config.json", "--quiet", "--out", "again"]) == 0
    assert model("again") == model("run")
    capsys.readouterr()
    assert main([*argv[:4], "--validation", "0", "--test", "w.csv", *QUICK, "--json", "--out", "alone"]) == 0
    summary = json_lines(capsys.readouterr().out)[-1]
    assert main(["evaluate", "alone", "--json"]) == 0
    assert summary["test_r2"] == pytest.approx(json_lines(capsys.readouterr().out)[-1]["r2"])
    Path("moved").mkdir()
    for name in parts:
        Path(name).rename(Path("moved", name))
    assert main(["evaluate", "run", "--data-dir", "moved"]) == 0


def test_rows_of_other_tables_that_cannot_be_measured(table, capsys):
    table[["x", "kind"]].to_csv("t.csv", index=False)
    other = table[["x", "kind"]].copy()
    other.loc[3, "kind"] = None
    other.to_csv("v.csv", index=False)
    argv = ["train", "t.csv", "--target", "kind", "--validation", "v.csv", *QUICK[:-1], "--out"]
    assert main([*argv, "run"]) == 0
    assert "v.csv" in capsys.readouterr().err and config()["data"]["n_validation"] == N - 1
    other.loc[3, "kind"] = "z"
    other.to_csv("v.csv", index=False)
    refused(capsys, [*argv, "b"], "v.csv: column 'kind' has the class 'z' in row 4", "which no training row has")
    other.drop(columns="x").to_csv("v.csv", index=False)
    refused(capsys, [*argv, "c"], "v.csv: there is no column 'x'")
    refused(capsys, [*argv[:5], "none.csv", "--out", "d"], "there is no file", "none.csv")
    assert not Path("b").exists() and not Path("c").exists()


def test_folds_measure_each_row_once_by_a_network_that_has_not_seen_it(rows, capsys):
    argv = ["train", "X.npy", "--labels", "classes.npy", *QUICK, *PLAIN, "--validation", "0", "--folds", "3", "--json"]
    assert main([*argv, "--out", "run"]) == 0
    found = json_lines(capsys.readouterr().out)[0]
    X, Y = np.load("X.npy").T, np.load("classes.npy")
    dataset, order = xpnet.Dataset.from_labels(X, Y), np.random.default_rng(0).permutation(50)
    dealt = [*order[order < 40], *order[order >= 40]]  # class by class
    losses = []
    for fold in range(3):
        mask = np.isin(np.arange(50), dealt[fold::3])
        network = xpnet.Network([3, 4, 2], backend=xpnet.select_backend("cpu"))
        xpnet.train(network, dataset.subset(np.flatnonzero(~mask)), xpnet.SGD(0.1), epochs=2)
        losses.append(xpnet.evaluate(network, dataset.subset(np.flatnonzero(mask)))["loss"])
    assert found["folds"] == 3 and found["loss"]["values"] == pytest.approx(losses)
    assert found["loss"]["mean"] == pytest.approx(np.mean(losses))
    assert found["loss"]["deviation"] == pytest.approx(np.std(losses, ddof=1))
    assert config()["folds"] == {name: value for name, value in found.items() if name != "folds"}
    before = model("run")
    assert main(["train", "--resume", "run", "--epochs", "2"]) == 0  # the folds are over
    assert "fold" not in capsys.readouterr().out and model("run") == before


@pytest.mark.full
def test_folds_of_a_table_are_told_in_words(table, capsys):
    words = ["--folds", "3", "--split", "group", "patient"]
    assert main(["train", "t.csv", "--target", "kind", "--drop", "price", *QUICK[:-1], *words, "--out", "run"]) == 0
    out, err = capsys.readouterr()
    assert [line.partition(":")[0] for line in err.splitlines() if line.startswith("fold ")] == [
        f"fold {number} of 3" for number in (1, 2, 3)
    ]
    number = r"\d+\.\d{4}"
    expected = rf"3 folds, mean \(deviation\): loss {number} \({number}\), accuracy {number} \({number}\)"
    assert re.fullmatch(expected, out.splitlines()[0])


@pytest.mark.full
def test_a_fold_that_diverges_begins_again_too(table, capsys):
    assert wild("--epochs", "12", "--folds", "2", "--quiet", "--json", out="run") == 0
    found = json_lines(capsys.readouterr().out)[0]
    assert all(np.isfinite(found["loss"]["values"]))


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (
            ["--split", "time", "day"],
            ["--folds 3 takes rows from anywhere", "--split time day", "take --split shuffle"],
        ),
        (["--validation", "v.csv"], ["--folds 3 holds out", "v.csv holds others", "leave one of them out"]),
        (["--folds", "121"], ["--folds 121", "need as many rows, and there are 120", "take fewer folds"]),
        (["--folds", "100", "--split", "group", "patient"], ["as many groups, and there are 30", "take fewer folds"]),
    ],
)
def test_folds_that_cannot_be(table, capsys, options, parts):
    refused(capsys, ["train", "t.csv", "--target", "kind", "--folds", "3", *options], *parts, code=2)


def test_folds_of_a_large_file(rows, capsys, monkeypatch):
    monkeypatch.setattr("xpnet.tables.arrays.POOL_BYTES", 100)
    argv = ["train", "X.npy", "--labels", "classes.npy", "--folds", "3"]
    refused(capsys, argv, "--folds 3 takes samples from anywhere", "which is large", "leave --folds out", code=2)


def test_groups_that_no_fold_leaves_to_split_are_refused(tmp_path, capsys):
    path = tmp_path / "g.csv"
    path.write_text("g,x,y\n" + "".join(f"{'ab'[i % 2]},{i},{i * 1.5}\n" for i in range(24)), encoding="utf-8")
    argv = ["train", str(path), "--target", "y", "--split", "group g", "--folds", "2"]
    refused(
        capsys, argv, "--folds 2: of the rows beside a fold", "one group only", "needs two", "leave --folds out", code=2
    )
