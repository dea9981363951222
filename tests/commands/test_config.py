"""--config: a TOML file of options, and a run's config.json that repeats the run."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import fakecupy
import numpy as np
import pytest
from test_cli import refused, surroundings  # noqa: F401  a fixture that runs by itself

from xpnet.cli import main
from xpnet.training.records import read_history

TINY = """
dataset = "X.npy"
labels = "Y.npy"
layers = [3, 5, 2]
epochs = 2
batch-size = 4
quiet = true
"""


@pytest.fixture(autouse=True)
def rows(surroundings):  # noqa: F811  the files lie in its folder
    X = np.random.default_rng(0).standard_normal((20, 3))
    np.save("X.npy", X)
    np.save("Y.npy", (X[:, 0] > 0).astype(int))


def write(text):
    Path("run.toml").write_text(text, encoding="utf-8")
    return ["train", "--config", "run.toml"]


def options(run):
    return json.loads(Path(run, "config.json").read_text(encoding="utf-8"))["options"]


def model(run):
    return Path(run, "model.safetensors").read_bytes()


def test_a_file_says_what_the_command_line_could(capsys):
    text = TINY + 'optimizer = "adam"\nlr = 0.01\ndropout = [0.25]\nactivation = ["tanh"]\nl2 = 0\nvalidation = 0.2\n'
    assert main([*write(text), "--out", "a"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1  # quiet
    typed = "--dataset X.npy --labels Y.npy --layers 3,5,2 --epochs 2 --batch-size 4 --optimizer adam --lr 0.01"
    typed += " --dropout 0.25 --activation tanh --l2 0 --validation 0.2 --quiet --out b"
    assert main(["train", *typed.split()]) == 0
    assert model("a") == model("b")
    assert options("a") == options("b")


def test_the_command_line_wins_over_the_file_and_the_file_over_the_defaults():
    assert main([*write(TINY.replace("batch-size", "batch_size")), "--epochs", "1", "--out", "a"]) == 0
    told = options("a")
    assert (told["epochs"], told["batch-size"], told["seed"]) == (1, 4, 0)
    assert main(["train", "--epochs", "1", *write(TINY)[1:], "--out", "b"]) == 0  # in any order
    assert options("b") == told and model("a") == model("b")
    assert "quiet" not in told and "out" not in told


@pytest.mark.full
@pytest.mark.parametrize(
    "more",
    [
        "",
        "--optimizer adamw --ema 0.9 --schedule one-cycle --dropout 0.3 --dtype float64",
        "--class-weight balanced --normalization batch --accumulate 2 --metrics f1",
    ],
)
def test_the_config_of_a_run_repeats_it_from_any_folder(more, monkeypatch, tmp_path):
    assert main([*write(TINY + 'out = "a"\nseed = 3\n'), *more.split()]) == 0
    first = Path("a").resolve()
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--config", str(first / "config.json"), "--quiet", "--out", "b"]) == 0
    assert model("b") == model(first)
    assert options("b") == options(first)
    assert main(["train", "--config", str(first / "config.json"), "--quiet", "--seed", "4", "--out", "c"]) == 0
    assert model("c") != model(first)


@pytest.mark.full
def test_the_engine_goes_through_file_run_and_summary(capsys, monkeypatch):
    """A run of 8 steps, which "auto" would replay."""
    text = TINY.replace("quiet = true", 'engine = "compiled"')
    assert main([*write(text), "--out", "a"]) == 0
    assert re.search(r", compiled engine on \d threads? -> a$", capsys.readouterr().out.splitlines()[-1])
    assert main(["train", "--config", "a/config.json", "--json", "--out", "b"]) == 0
    *records, summary = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {record["engine"] for record in [*records, summary]} == {"compiled"} and summary["threads"] >= 1
    assert [record["engine"] for record in read_history("b/history.jsonl")] == ["compiled"] * 3
    assert model("a") == model("b") and options("a") == options("b") and options("a")["engine"] == "compiled"
    assert main([*write(text), "--engine", "auto", "--out", "c"]) == 0  # the command line wins
    assert ", replay engine -> c" in capsys.readouterr().out
    assert main(["train", "--resume", "b", "--epochs", "3", "--quiet"]) == 0
    assert ", compiled engine on " in capsys.readouterr().out
    assert read_history("b/history.jsonl").column("engine") == ["compiled"] * 4
    refused(capsys, ["train", "--resume", "c", "--engine", "compiled"], "leave --engine out", code=2)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "llvmlite", None)
        refused(
            capsys,
            [*write(text), "--dataset", "nowhere.npy", "--out", "d"],
            "needs llvmlite",
            "pip install 'xpnet[jit]'",
        )
    monkeypatch.setitem(sys.modules, "cupy", fakecupy)
    refused(capsys, [*write(text), "--device", "cuda", "--out", "d"], "which runs on cpu", "take device='cpu'")
    assert not Path("d").exists()


@pytest.mark.full
def test_the_precision_goes_through_file_run_and_summary(capsys, monkeypatch):
    """On a GPU; elsewhere it is refused before there is a run directory."""
    text = TINY.replace("quiet = true", 'precision = "tf32"')
    parts = ("precision is 'tf32'", "needed are a CUDA GPU", "leave precision out, or take device='cuda'")
    refused(capsys, [*write(text), "--device", "cpu", "--out", "a"], *parts)
    assert not Path("a").exists()
    monkeypatch.setitem(sys.modules, "cupy", fakecupy)
    monkeypatch.setenv("XPNET_DEVICE", "cuda")
    assert main([*write(text), "--out", "a"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(", cuda engine in tf32 -> a")
    assert main(["train", "--config", "a/config.json", "--json", "--out", "b"]) == 0
    *records, summary = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {record["precision"] for record in [*records, summary]} == {"tf32"} and options("b")["precision"] == "tf32"
    assert read_history("b/history.jsonl").column("precision") == ["tf32"] * 3


@pytest.mark.full
def test_deterministic_goes_through_file_run_and_records(capsys, monkeypatch):
    """Of a GPU; on the CPU a run is what it is without, and its records do not speak of it."""
    for out, more in (("a", []), ("b", ["--deterministic"])):
        assert main([*write(TINY), *more, "--out", out, "--device", "cpu"]) == 0
    assert Path("a/model.safetensors").read_bytes() == Path("b/model.safetensors").read_bytes()
    assert options("b")["deterministic"] is True and "deterministic" not in read_history("b/history.jsonl")[-1]
    monkeypatch.setitem(sys.modules, "cupy", fakecupy)
    monkeypatch.setenv("XPNET_DEVICE", "cuda")
    assert main([*write(TINY), "--deterministic", "--out", "c"]) == 0
    assert main(["train", "--config", "c/config.json", "--out", "d"]) == 0
    assert read_history("d/history.jsonl").column("deterministic") == [True] * 3
    assert ", cuda engine in fp32, deterministic -> d" in capsys.readouterr().out
    refused(capsys, [*write(TINY), "--deterministic", "--precision", "tf32", "--out", "e"], "leave precision out")


def test_names_of_files_may_hold_any_letter(tmp_path):
    folder = tmp_path / 'a "quote", a \\ and\na line, ü \N{SNOWMAN} \t'
    folder.mkdir()
    for name in ("X.npy", "Y.npy"):
        Path(name).rename(folder / name)
    data = ["--dataset", str(folder / "X.npy"), "--labels", str(folder / "Y.npy")]
    assert main(["train", *data, "--epochs", "1", "--quiet", "--out", "a"]) == 0
    assert main(["train", "--config", "a/config.json", "--quiet", "--out", "b"]) == 0
    assert model("a") == model("b") and options("a")["dataset"] == str(folder / "X.npy")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("batchsize = 3", ["run.toml", "'batchsize'", "did you mean 'batch-size'?"]),
        ("config = 'x'", ["run.toml has 'config'", "none of the options of xpnet train --help", "leave it out"]),
        ("help = true", ["'help'"]),
        ("resume = 'run'", ["'resume'"]),
        ("[optimiser]\nlr = 1", ["'optimiser'", "did you mean 'optimizer'?"]),
        ("[optimizer]\nlr = 1", ["optimizer", '{"lr": 1}', "it must be NAME"]),
        (
            "batch-size = 3\nbatch_size = 3",
            ["run.toml says batch-size twice", "with - and with _", "leave one of them out"],
        ),
        ('batch-size = "3"', ["batch-size", 'it is "3"', "it must be a number", "write it without quotes"]),
        ("batch-size = 3.5", ["batch-size", "'3.5'", "whole number of at least 1"]),
        ("batch-size = true", ["batch-size: it is true", "it must be N", "write it like that"]),
        ("batch-size = []", ["batch-size", "it is []"]),
        ("batch-size = [3, 4]", ["batch-size", "'3,4'", "whole number"]),
        ('layers = ["784", "10"]', ["layers", "it must be a number"]),
        ('layers = "784,10"', ["layers", "it must be a number"]),
        ("layers = [784, [10]]", ["layers", "N,N,..."]),
        ("lr = nan", ["lr", "'nan'", "finite number above 0"]),
        ("optimizer = 3", ["optimizer", "'3'", "'sgd'"]),
        ('optimizer = "adma"', ["optimizer", "did you mean 'adam'?"]),
        ("out = 3", ["out", "it is 3", "it must be text", "write it in quotes"]),
        ("json = 1", ["json", "it is 1", "it must be true or false", "write one of these"]),
        ("seed = 2026-01-31", ["seed", "2026-01-31", "it must be N"]),
        ("seed = x", ["run.toml is not TOML", "line 1", "write lines such as batch-size = 32"]),
        ("momentum = 0.9", ["--momentum", "not with sgd"]),
    ],
)
def test_a_file_that_cannot_be(capsys, text, found):
    refused(capsys, write(text), *found, code=2)


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("a.toml", b"\xff", ["is not TOML"]),
        ("a.json", b"{", ["is not JSON"]),
        ("a.json", b"[" * 100_000, ["is not JSON"]),
        ("a.json", b"[]", ["no options section", "config.json of a run"]),
        ("a.json", b'{"options": 3}', ["no options section"]),
        ("a.json", b'{"options": {"seed": null}}', ["seed", "it is null", "it must be N"]),
        ("a.json", b'{"options": {"sede": 3}}', ["'sede'", "did you mean 'seed'?"]),
    ],
)
def test_a_file_that_is_neither(capsys, name, content, found):
    Path(name).write_bytes(content)
    refused(capsys, ["train", "--config", name], name, *found, code=2)


def test_a_file_that_is_not_there(capsys):
    refused(capsys, ["train", "--config", "none.toml"], "--config none.toml", "no such file", "TOML", code=1)
    Path("folder").mkdir()
    refused(capsys, ["train", "--config", "folder"], "--config folder", "no such file", code=1)
