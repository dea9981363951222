"""What a user reads who does not know the names: of options, commands and values; and what is said once only."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from refusals import says
from tables.learning import learn

import xpnet
from xpnet.backend import NO_CUPY, Backend
from xpnet.cli import main
from xpnet.commands.tables import describe
from xpnet.commands.train import _described
from xpnet.timing import machine

DATA = ["X.npy", "--labels", "Y.npy", "--layers", "3,2", "--device", "cpu", "--epochs", "2", "--out", "run"]


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.save("X.npy", rng.random((40, 3)))
    np.save("Y.npy", np.arange(40) % 2)
    np.save("T.npy", rng.random(40))


@pytest.mark.parametrize(
    ("argv", "found", "fix"),
    [
        (["train", "--epoch", "3"], "--epoch is none of the options of xpnet train", "did you mean --epochs?"),
        (["train", "--learning-rate=0.1"], "--learning-rate is none", "did you mean --lr?"),
        (["train", "mnist", "--optimiser", "adam"], "--optimiser is none", "did you mean --optimizer?"),
        (["predict", "run", "X.npy", "--output", "Y.csv", "--out", "Y.csv"], "--output is none", "did you mean --out?"),
        (["info", "--zzz"], "--zzz is none of the options of xpnet info", "xpnet info --help lists them"),
    ],
)
def test_an_unknown_option_is_answered_by_its_command_with_the_nearest(capsys, argv, found, fix):
    with pytest.raises(SystemExit) as code:
        main(argv)
    usage, *_, line = capsys.readouterr().err.splitlines()
    assert code.value.code == 2 and usage.startswith(f"usage: xpnet {argv[0]}")
    says(line, found, "of the options of", fix)


def test_words_that_stand_for_nothing(capsys):
    with pytest.raises(SystemExit):
        main(["describe", "run", "other", "more"])
    says(
        capsys.readouterr().err.splitlines()[-1],
        "unrecognized arguments: other more",
        "`xpnet describe --help`",
        "lists those that it has",
    )


def test_an_unknown_command_is_answered_with_the_nearest(capsys):
    with pytest.raises(SystemExit):
        main(["trian"])
    says(
        capsys.readouterr().err.splitlines()[-1],
        "command is 'trian'",
        "choose one of 'train', ",
        "did you mean 'train'?",
    )


def test_values_in_capitals_and_by_their_common_names(data):
    argv = ["train", "X.npy", "--labels", "T.npy", "--layers", "3,4,1", "--epochs", "1", "--quiet", "--out", "run"]
    argv += ["--optimizer", "Adam", "--device", "CPU"]
    assert main([*argv, "--metrics", "mae,MSE,R2,rmse", "--loss", "mse", "--activation", "ReLU"]) == 0
    record = xpnet.training.records.read_history("run/history.jsonl")[-1]
    assert {"val_mean_absolute_error", "val_mean_squared_error", "val_r2"} <= record.keys()
    assert record["val_root_mean_squared_error"] == pytest.approx(record["val_mean_squared_error"] ** 0.5)
    assert xpnet.Network.load("run/model.safetensors").architecture.loss.name == "squared_error"


@pytest.mark.parametrize("has_gpu", [False, True])
def test_why_the_cpu_computes_is_said_where_there_is_a_gpu(monkeypatch, has_gpu):
    monkeypatch.setattr(machine, "has_gpu", lambda: has_gpu)
    work = "auto: 9 MFLOP a step take less time than a launch on a GPU (estimated)"
    for reason, is_said in ((f"{NO_CUPY}; install it", has_gpu), (work, has_gpu), ("XPNET_DEVICE is cpu", True)):
        line = _described(Backend("numpy", "cpu", np, np.dtype("float32"), reason))
        assert line.startswith("cpu (numpy ") and line.endswith(reason if is_said else "float32)")


def test_only_what_is_measured_has_a_column(data, capsys):
    targets = ["train", "X.npy", "--labels", "T.npy", "--layers", "3,1", "--device", "cpu", "--epochs", "1"]
    assert main([*targets, "--metrics", "mae,r2", "--out", "a"]) == 0
    header, *rows, _ = capsys.readouterr().out.splitlines()
    names = ["epoch", "train_loss", "val_loss", "mean_absolute_error", "r2", "steps/s", "seconds"]
    assert header.split() == names and all(len(row.split()) in (7, 8) for row in rows)
    record = xpnet.training.records.read_history("a/history.jsonl")[-1]
    assert [float(cell) for cell in rows[-1].split()[2:5]] == pytest.approx(
        [record[name] for name in ("val_loss", "val_mean_absolute_error", "val_r2")], abs=1e-4
    )
    assert main([*targets, "--validation", "0", "--out", "b"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ["epoch", "train_loss", "steps/s", "seconds"]


def test_small_measures_are_not_zeros(data, capsys):
    np.save("T.npy", np.load("T.npy") * 1e-6)
    argv = [
        "train",
        "X.npy",
        "--labels",
        "T.npy",
        "--layers",
        "3,1",
        "--device",
        "cpu",
        "--epochs",
        "1",
        "--out",
        "run",
    ]
    assert main([*argv, "--metrics", "mse", "--lr", "1e-6"]) == 0
    record = xpnet.training.records.read_history("run/history.jsonl")[-1]
    *_, row, summary = capsys.readouterr().out.splitlines()
    for name, place in (("val_loss", 2), ("val_mean_squared_error", 3)):
        assert record[name] > 0 and float(row.split()[place]) == pytest.approx(record[name], rel=0.06)
    assert f"mean_squared_error {record['val_mean_squared_error']:.4f}" in summary or "e-" in summary


def test_a_schedule_that_ends_before_the_run_is_said(data, capsys):
    assert main(["train", *DATA, "--schedule", "cosine", "--total-steps", "3", "--lr-end", "0.001"]) == 0
    err = capsys.readouterr().err
    assert "--schedule cosine ends after 3 of 4 updates, the others have the rate 0.001" in err
    assert main(["train", *DATA[:-1], "other", "--schedule", "cosine", "--total-steps", "4"]) == 0
    assert "ends after" not in capsys.readouterr().err


def test_a_run_that_has_ended_says_how_it_goes_on(data, capsys):
    assert main(["train", *DATA]) == main(["train", "--resume", "run"]) == 0
    assert "has ended after epoch 2: nothing is left to train; --epochs N trains on to N" in capsys.readouterr().err


def test_pictures_of_a_run_whose_data_are_gone(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(xpnet.plots, "save", lambda ax, path: path.touch())
    assert main(["train", *DATA, "--quiet"]) == 0
    (tmp_path / "X.npy").rename(tmp_path / "moved.npy")
    capsys.readouterr()
    assert main(["plot", "run", "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    assert "run/loss.png" in out and "run/network.png" in out and "confusion" not in out
    says(err.strip(), "there is no file", "drawn is what needs no data", "--data-dir DIR says where they lie now")
    assert main(["plot", "run", "--device", "cpu", "--data-dir", "nowhere"]) == 1


def test_one_of_a_kind_is_no_plural(data, capsys):
    with open("t.csv", "w", encoding="utf-8") as file:
        file.write("a,y\n" + "".join(f"{i},{'no' if i % 2 else 'yes'}\n" for i in range(20)))
    assert main(["train", "t.csv", "--target", "y", "--layers", "3,2", "--device", "cpu"]) == 2
    assert "t.csv has 1 feature and 1 output; begin and end with these" in capsys.readouterr().err
    frame = pd.DataFrame({"a": np.random.default_rng(0).random(20), "y": np.resize(["no", "yes"], 20)})
    assert "1 column, 1 numeric and 0 of categories, give 1 feature" in list(describe(learn(frame)))
    frame = frame.assign(b=np.resize(["red", "green", "blue"], 20), day=pd.date_range("2024-03-01", periods=20))
    told = next(line for line in describe(learn(frame)) if "columns" in line)
    assert told.startswith("3 columns, 1 numeric, 1 of categories and 1 of dates, give ")
