"""xpnet plot and xpnet train --plot: which pictures a run gets, where they go, and what is refused."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from test_cli import RUN_FILES, SMALL, json_lines, names, refused, refused_by_parser

from xpnet import plots
from xpnet.cli import main

OF_ALL = ["activation-relu", "loss", "network"]
CURVES = ["roc", "precision-recall", "calibration"]
OF_CLASSES = [*OF_ALL, "confusion", "scores", *CURVES]
OF_IMAGES = [*OF_CLASSES, "digits", "mistakes", "weights"]
OF_THE_PLANE = [*OF_CLASSES, "misclassified", "regions", "samples"]


def files(stems, suffix=".png"):
    return sorted(f"{stem}{suffix}" for stem in stems)


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    """An empty working directory, the CPU, and no display."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("XPNET_DEVICE", "cpu")
    monkeypatch.delenv("DISPLAY", raising=False)


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    """A short run on the sample, drawn by --plot, which no test changes; and what it printed."""
    directory = tmp_path_factory.mktemp("drawn") / "run"
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main(["train", *SMALL, "--device", "cpu", "--plot", "--out", str(directory)]) == 0
    return directory, out.getvalue()


def train_on_rows(X, Y, *options):
    np.save("X.npy", X)
    np.save("Y.npy", Y)
    argv = ["train", "--dataset", "X.npy", "--labels", "Y.npy", "--epochs", "1", "--quiet", "--out", "run", *options]
    assert main(argv) == 0


@pytest.fixture
def saved(monkeypatch):
    """The files of pictures are there and empty: what is drawn into them, the fixture `digits_run` and others tell."""
    monkeypatch.setattr(plots, "save", lambda ax, path: Path(path).touch())


@pytest.fixture
def titles(monkeypatch):
    """The titles of the pictures by their file's stem, in place of the files."""
    found = {}
    monkeypatch.setattr(plots, "save", lambda ax, path: found.update({Path(path).stem: ax.get_title()}))
    return found


@pytest.mark.full
def test_train_plot_draws_into_the_run_and_says_where(digits_run):
    directory, out = digits_run
    assert names(directory) == sorted([*RUN_FILES, *files(OF_IMAGES)])
    printed = out.splitlines()[-len(OF_IMAGES) :]
    assert sorted(printed) == sorted(str(directory / name) for name in files(OF_IMAGES))
    for name in files(OF_IMAGES):
        assert (directory / name).read_bytes().startswith(b"\x89PNG\r\n")
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    assert "plot" not in config["options"]  # a repeated run need not


@pytest.mark.full
def test_plot_draws_a_finished_run_wherever_it_is_told(digits_run, saved, capsys):
    assert main(["plot", str(digits_run[0]), "--out", "a/b", "--format", "svg"]) == 0
    out, err = capsys.readouterr()
    assert names("a/b") == files(OF_IMAGES, ".svg") and err == ""
    assert sorted(out.splitlines()) == [f"a/b/{name}" for name in names("a/b")]


@pytest.mark.full
def test_plot_draws_into_the_run_if_not_told(digits_run, saved, tmp_path):
    run = shutil.copytree(digits_run[0], tmp_path / "run", ignore=shutil.ignore_patterns("*.png"))
    assert main(["plot", str(run)]) == 0
    assert names(run) == names(digits_run[0])


def test_titles_say_which_samples_and_agree_with_the_report(digits_run, titles):
    assert main(["plot", str(digits_run[0])]) == 0
    assert set(titles) == set(OF_IMAGES)
    accuracy = digits_run[1].partition("test accuracy ")[2].split()[0]
    assert titles["confusion"] == f"test set: accuracy {accuracy} on 1,000 samples"
    wrong = 1000 - int(digits_run[1].partition("(")[2].split()[0])
    assert titles["mistakes"].startswith(f"test set: {wrong} of 1,000 samples are misclassified")


def test_two_features_are_drawn_in_their_plane(titles):
    X = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    train_on_rows(X, (X[:, 0] > 0).astype(int), "--layers", "2,4,2", "--plot")
    assert set(titles) == set(OF_THE_PLANE)
    assert titles["regions"] == "validation set"


@pytest.mark.full
def test_what_does_not_apply_is_left_out(titles):
    X = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    options = ["--layers", "4,3,1", "--loss", "squared_error", "--validation", "0", "--plot"]
    train_on_rows(X, X[:, :1] * 1.5, *options)
    assert set(titles) == {*OF_ALL, "predicted", "residuals"}  # numbers are no classes, and nothing was validated
    titles.clear()
    shutil.rmtree("run")
    train_on_rows(X, (X[:, 0] > 0).astype(int), "--layers", "4,3,2", "--validation", "0", "--plot")
    assert set(titles) == {*OF_ALL, "confusion", *CURVES}
    assert titles["confusion"].startswith("training set: accuracy")


@pytest.mark.parametrize("option", ["--json", pytest.param("--quiet", marks=pytest.mark.full)])
def test_train_plot_leaves_stdout_as_it_was_asked_for(option, capsys, titles):
    assert main(["train", *SMALL, option, "--plot", "--out", "run"]) == 0
    out, err = capsys.readouterr()
    assert set(titles) == set(OF_IMAGES)
    if option == "--json":
        assert json_lines(out)[-1]["run"] == "run"
        assert sorted(err.splitlines()[-len(OF_IMAGES) :]) == [f"run/{name}" for name in files(OF_IMAGES)]
    else:
        assert len(out.splitlines()) == 1 and err == ""


def test_a_resumed_run_is_drawn_whole(digits_run, tmp_path, monkeypatch):
    run = shutil.copytree(digits_run[0], tmp_path / "run", ignore=shutil.ignore_patterns("*.png"))
    epochs = {}
    monkeypatch.setattr(
        plots, "save", lambda ax, path: epochs.update({Path(path).stem: [line.get_xdata() for line in ax.lines]})
    )
    assert main(["train", "--resume", str(run), "--epochs", "2", "--quiet", "--plot"]) == 0
    assert list(epochs["loss"][0]) == [0, 1, 2]


@pytest.mark.full
def test_the_data_of_a_run_may_have_moved(capsys, titles):
    X = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    train_on_rows(X, (X[:, 0] > 0).astype(int), "--layers", "2,4,2")
    capsys.readouterr()
    Path("moved").mkdir()
    for name in ("X.npy", "Y.npy"):
        shutil.move(name, "moved")
    assert main(["plot", "run"]) == 0  # what needs no data
    assert "there is no file" in capsys.readouterr().err and "confusion" not in titles
    assert main(["plot", "run", "--data-dir", "moved"]) == 0
    assert set(titles) == set(OF_THE_PLANE)


def test_a_run_of_a_table_is_drawn_with_the_names_of_its_classes(capsys, monkeypatch):
    rows = [f"{x / 10},{'red' if x % 2 else 'blue'}" for x in range(40)]
    Path("table.csv").write_text("\n".join(["x,colour", *rows]) + "\n", encoding="utf-8")
    assert main(["train", "table.csv", "--target", "colour", "--epochs", "1", "--out", "run"]) == 0
    shown = []
    monkeypatch.setattr(plots, "save", lambda ax, path: shown.append((path.stem, ax)))
    assert main(["plot", "run"]) == 0
    confusion = dict(shown)["confusion"]
    assert [label.get_text() for label in confusion.get_xticklabels()] == ["blue", "red"]


# --- refusals --------------------------------------------------------------------------------------------------------


def test_no_such_run(capsys):
    refused(capsys, ["plot", "nowhere"], "nowhere is not a run directory", "xpnet train")


@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (lambda run: (run / "model.safetensors").unlink(), ["model.safetensors", "has not ended", "train --resume"]),
        (lambda run: (run / "history.jsonl").unlink(), ["has no history.jsonl", "train again", "or restore it"]),
        (
            lambda run: (run / "history.jsonl").write_text("", encoding="utf-8"),
            ["history.jsonl", "no records", "train again"],
        ),
        (
            lambda run: (run / "history.jsonl").write_text('{"a": 1}\n', encoding="utf-8"),
            ["history.jsonl", "line 1 is not a record", "train again"],
        ),
        (lambda run: (run / "history.jsonl").write_text('{"epoch": 0}\n', encoding="utf-8"), ["there must be a loss"]),
        (lambda run: (run / "history.jsonl").write_text("no\n{}\n", encoding="utf-8"), ["line 1 is not JSON"]),
        (lambda run: (run / "model.safetensors").write_bytes(b"no"), ["model.safetensors"]),
        (lambda run: (run / "config.json").write_text("no", encoding="utf-8"), ["config.json is not JSON"]),
    ],
)
def test_a_run_that_is_not_whole(digits_run, tmp_path, capsys, spoil, parts):
    run = Path(shutil.copytree(digits_run[0], tmp_path / "run", ignore=shutil.ignore_patterns("*.png")))
    spoil(run)
    refused(capsys, ["plot", run], *parts)
    assert not [name for name in names(run) if name.endswith(".png")]


def test_a_place_that_is_a_file_and_a_format_that_is_none(digits_run, capsys):
    Path("taken").write_text("precious", encoding="utf-8")
    refused(
        capsys, ["plot", digits_run[0], "--out", "taken"], "--out taken", "is a file", "name a folder, or leave it out"
    )
    assert Path("taken").read_text(encoding="utf-8") == "precious"
    refused_by_parser(capsys, ["plot", "run", "--format", "pgn"], "'pgn'", "did you mean 'png'")


def test_without_matplotlib_nothing_is_trained_or_loaded(digits_run, capsys, monkeypatch):
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    for argv in (["train", *SMALL, "--plot", "--out", "run"], ["plot", digits_run[0], "--out", "out"]):
        refused(capsys, argv, "pictures need matplotlib", "not installed", "pip install 'xpnet[plot]'")
    assert not names(".")
