"""The command line on files of rows: train, plan, evaluate, predict, and one line for every bad file."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from test_cli import json_lines, refused, refused_by_parser, surroundings  # noqa: F401  a fixture that runs by itself

import xpnet
from xpnet.cli import main
from xpnet.network.blocks import predict_in_blocks

N, N_FEATURES = 400, 6


@pytest.fixture
def files(tmp_path):
    """A file of rows and a function that writes labels beside it."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N, N_FEATURES))
    np.save(tmp_path / "X.npy", X)

    def labelled(kind):
        side = X @ rng.standard_normal((N_FEATURES, 3))
        Y = {"classes": side.argmax(axis=1), "one target": side[:, 0], "rows of targets": side[:, :2]}[kind]
        np.save(tmp_path / "Y.npy", Y)
        return ["--dataset", str(tmp_path / "X.npy"), "--labels", str(tmp_path / "Y.npy")]

    return labelled


@pytest.mark.parametrize(
    ("kind", "loss", "n_outputs"),
    [
        ("classes", "softmax_cross_entropy", 3),
        ("one target", "squared_error", 1),
        ("rows of targets", "squared_error", 2),
    ],
)
def test_a_file_of_rows_trains_evaluates_and_predicts(files, tmp_path, capsys, kind, loss, n_outputs):
    options = files(kind)
    assert (
        main(
            [
                "train",
                *options,
                "--epochs",
                "30",
                "--lr",
                "0.05",
                "--optimizer",
                "sgd",
                "--split",
                "last",
                "--out",
                "run",
            ]
        )
        == 0
    )
    out, err = capsys.readouterr()
    assert "not a full shuffle" in err and f"6-100-200-{n_outputs} relu dropout, {loss}" in err
    assert f", validation {'accuracy' if n_outputs == 3 else 'loss'} " in out.splitlines()[-1]
    assert "test accuracy" not in out
    config = json.loads(Path("run/config.json").read_text(encoding="utf-8"))
    assert config["data"]["dataset"] == options[1] and config["data"]["n_validation"] == 40
    history = json_lines(Path("run/history.jsonl").read_text(encoding="utf-8"))
    assert history[-1]["val_loss"] < 0.2 * history[0]["val_loss"]

    assert main(["evaluate", "run", "--json"]) == 0
    (measured,) = json_lines(capsys.readouterr().out)
    assert (measured["part"], measured["n"]) == ("validation", 40)
    assert measured["loss"] == pytest.approx(min(record["val_loss"] for record in history), rel=1e-6)
    assert ("accuracy" in measured) == (kind == "classes")
    assert main(["evaluate", "run"]) == 0
    assert ("accuracy" in capsys.readouterr().out) == (kind == "classes")

    assert main(["predict", "run", "--input", options[1], "--out", "P.npy"]) == 0
    network = xpnet.Network.load("run/model.safetensors", xpnet.select_backend("cpu"))
    expected = network.predict(np.load(options[1]).astype(np.float32).T).T
    np.testing.assert_array_equal(np.load("P.npy"), expected)


def test_a_column_of_integers_is_classes_too(files, tmp_path, capsys):
    options = files("classes")
    np.save(tmp_path / "Y.npy", np.load(tmp_path / "Y.npy").reshape(-1, 1))
    assert main(["train", *options, "--epochs", "0", "--quiet", "--out", "run"]) == 0
    assert "validation accuracy" in capsys.readouterr().out


def test_files_that_have_moved_are_found_with_data_dir(files, tmp_path, capsys):
    assert main(["train", *files("classes"), "--epochs", "1", "--quiet", "--out", "run"]) == 0
    assert main(["evaluate", "run", "--json"]) == 0
    before = capsys.readouterr().out.splitlines()[-1]
    (tmp_path / "moved").mkdir()
    for name in ("X.npy", "Y.npy"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    assert main(["evaluate", "run", "--json", "--data-dir", str(tmp_path / "moved")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == before


def test_predict_does_not_overwrite_its_input(files, tmp_path, capsys):
    options = files("classes")
    assert main(["train", *options, "--epochs", "0", "--quiet", "--out", "run"]) == 0
    capsys.readouterr()
    refused(
        capsys,
        ["predict", "run", "--input", options[1], "--out", options[1]],
        "is the input itself",
        "would be overwritten",
        "name another file",
        code=2,
    )


def test_without_validation_evaluate_measures_the_training_data(files, capsys):
    assert main(["train", *files("classes"), "--epochs", "1", "--validation", "0", "--quiet", "--out", "run"]) == 0
    assert re.match(r"\d+\.\d s of training", capsys.readouterr().out)
    assert main(["evaluate", "run", "--json"]) == 0
    (measured,) = json_lines(capsys.readouterr().out)
    assert (measured["part"], measured["n"]) == ("training", N)


def test_predict_reads_blocks_and_refuses_a_bad_one_late_in_the_file(files, capsys, monkeypatch, tmp_path):
    options = files("classes")
    assert main(["train", *options, "--epochs", "1", "--quiet", "--out", "run"]) == 0
    assert main(["predict", "run", "--input", options[1], "--out", "whole.csv", "--labels"]) == 0
    monkeypatch.setattr("xpnet.commands.apply.predict_in_blocks", partial(predict_in_blocks, n_held=7))
    assert main(["predict", "run", "--input", options[1], "--out", "blocks.csv", "--labels"]) == 0
    assert Path("whole.csv").read_text(encoding="utf-8") == Path("blocks.csv").read_text(encoding="utf-8")
    capsys.readouterr()
    X = np.load(options[1])
    X[-1, 2] = np.nan
    np.save(tmp_path / "bad.npy", X)
    refused(capsys, ["predict", "run", "--input", tmp_path / "bad.npy", "--out", "no.csv"], "NaN", "remove those rows")
    assert not (tmp_path / "here" / "no.csv").exists()


def test_plan_lists_every_buffer_before_the_run(files, capsys):
    options = [*files("classes"), "--epochs", "0", "--quiet"]
    assert main(["train", *options, "--plan", "--out", "a"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("0.0 s of training") or "s of training" in lines[-1]
    names = [line.split("  ")[0] for line in lines[:-1]]
    assert {"training X, to gather from", "training Y", "theta", "last good theta", "step gradient"} < {*names}
    assert names[-1] == "sum"
    assert main(["train", *options, "--plan", "--json", "--out", "b"]) == 0
    plan, record, _ = json_lines(capsys.readouterr().out)
    assert record["epoch"] == 0
    assert plan["sum"] == sum(item["bytes"] for item in plan["plan"])
    assert [item["name"] for item in plan["plan"]] == names[:-1]


# Bad input


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--dataset", "X.npy"], ["--dataset X.npy", "is a file and needs its labels", "add --labels Y.npy"]),
        (
            ["--labels", "Y.npy"],
            ["--labels goes with --dataset X.npy", "mnist-sample has its own labels", "leave it out"],
        ),
        (["--data-dir", "D"], ["--data-dir goes with", "mnist-sample", "leave it out"]),
        (["--dataset", "X.npy", "--labels", "Y.npy", "--data-dir", "D"], ["--data-dir goes with", "X.npy"]),
    ],
)
def test_options_that_do_not_fit_each_other(capsys, options, parts):
    refused(capsys, ["train", *options], *parts, code=2)


def test_a_name_that_is_no_data_set_names_the_file_form(capsys):
    refused_by_parser(capsys, ["train", "--dataset", "mnst"], "'mnist'", "a file of rows (.npy)")


@pytest.mark.parametrize(
    ("X", "Y", "parts"),
    [
        (None, np.zeros(4), ["there is no file", "X.npy", "np.save"]),
        (np.zeros((4, 2)), None, ["there is no file", "Y.npy", "np.save"]),
        (np.zeros(4), np.zeros(4), ["X.npy is (4,)", "rows (n_samples, n_features)"]),
        (np.zeros((0, 2)), np.zeros(0), ["X.npy is (0, 2)", "empty", "write rows (n_samples, n_features) into it"]),
        (np.zeros((4, 2), complex), np.zeros(4), ["X.npy holds complex128", "one array of real numbers"]),
        (np.zeros((4, 2)), np.zeros(3), ["X.npy has 4 rows and", "Y.npy has 3", "write both files again"]),
        (
            np.zeros((4, 2)),
            np.array([0, 1, -1, 2]),
            ["Y.npy holds the label -1 in row 2", "classes must be whole numbers from 0", "number them so"],
        ),
        (
            np.asfortranarray(np.ones((4, 2))),
            np.zeros(4),
            ["Fortran order", "a row cannot be read in one go", "np.ascontiguousarray(X)"],
        ),
        (
            np.array([[0.0, 1.0], [np.inf, 2.0]]),
            np.zeros(2),
            ["feature 0, sample 1", "inf", "np.isfinite(X).all(axis=1); X[keep], Y[keep]"],
        ),
        (np.ones((1, 2)), np.zeros(1), ["--validation"]),
    ],
)
def test_bad_files(capsys, tmp_path, X, Y, parts):
    for name, array in (("X.npy", X), ("Y.npy", Y)):
        if array is not None:
            np.save(tmp_path / name, array)
    argv = ["train", "--dataset", tmp_path / "X.npy", "--labels", tmp_path / "Y.npy", "--out", "run"]
    if parts == ["--validation"]:
        refused(capsys, [*argv, "--validation", "1"], *parts, code=2)
    else:
        refused(capsys, argv, *parts)
    assert not (tmp_path / "here" / "run").exists()


def test_a_run_whose_file_has_gone_and_one_without_labels(files, capsys, tmp_path):
    assert main(["train", *files("classes"), "--epochs", "1", "--quiet", "--out", "run"]) == 0
    capsys.readouterr()
    (tmp_path / "X.npy").rename(tmp_path / "elsewhere.npy")
    refused(capsys, ["evaluate", "run"], "there is no file", "X.npy")
    config = json.loads(Path("run/config.json").read_text(encoding="utf-8"))
    for labels, parts in (
        (None, ["the config of the run", "has no labels for"]),
        (3, ["labels is 3", "null or a path"]),
    ):
        config["data"]["labels"] = labels
        Path("run/config.json").write_text(json.dumps(config), encoding="utf-8")
        refused(capsys, ["evaluate", "run"], *parts, "train again, or restore it")


def test_a_validation_part_that_rounds_to_no_sample_is_refused(files, capsys):
    options = ["train", *files("classes"), "--validation", "0.0001"]
    refused(capsys, options, "--validation 0.0001 of 400 samples", "is none", "give more, or 0 for none", code=2)


def test_numbers_in_any_units_are_learnt_by_the_defaults(tmp_path, capsys):
    """SGD at 0.1 diverges on each of these in its first epochs."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(90, 3))
    for scale, offset in ((1.0, 0.0), (70.0, 150.0)):
        np.save("X.npy", X)
        np.save("Y.npy", scale * (X @ [2.0, -1.0, 0.5])[:, None] + offset)
        run = f"run{scale}"
        assert main(["train", "X.npy", "--labels", "Y.npy", "--quiet", "--out", run]) == 0
        losses = [record["val_loss"] for record in json_lines(Path(run, "history.jsonl").read_text(encoding="utf-8"))]
        assert min(losses) < 0.1 * losses[0] and np.isfinite(losses).all()


def test_labels_of_a_run_that_predicts_numbers_are_refused(files, capsys):
    options = files("one target")
    assert main(["train", *options, "--epochs", "0", "--quiet", "--out", "run"]) == 0
    capsys.readouterr()
    for words in (["--input", options[1], "--out", "P.csv"], ["--jsonl"]):
        argv = ["predict", "run", "--labels", *words]
        refused(capsys, argv, "run predicts numbers", "--labels writes classes", "leave it out", code=2)
    assert not Path("P.csv").exists()
