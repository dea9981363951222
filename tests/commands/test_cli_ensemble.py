"""xpnet train --ensemble: the model of a run is the mean of several networks, and of a table a linear one too."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_cli import json_lines, refused, surroundings  # noqa: F401  a fixture that runs by itself

import xpnet
from xpnet.cli import main
from xpnet.commands.defaults import of_before, resolve_by_size
from xpnet.recipe.defaults import MOST_ROWS
from xpnet.tables.decisions import lines

CPU = xpnet.select_backend("cpu")
TRAIN = ["train", "X.npy", "--labels", "Y.npy", "--hidden", "4", "--epochs", "2"]
TRAIN += ["--optimizer", "sgd", "--dropout", "0", "--ensemble", "3"]


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 3))
    np.save("X.npy", X)
    np.save("Y.npy", X[:, 0] * 2.0)
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    frame.assign(y=frame["a"] * 3.0 - frame["b"] + 5.0, bent=frame["a"] ** 2).to_csv("t.csv", index=False)
    return X


def test_the_model_is_the_mean_of_networks_of_other_seeds(rows, capsys):
    assert main([*TRAIN, "--out", "run"]) == 0
    told = capsys.readouterr()
    assert (
        "network 3 of 3: weights of epoch" in told.err
        and "the model is the mean of 3 networks, validation loss" in told.out
    )
    held = np.isin(np.arange(50), np.random.default_rng(0).permutation(50)[:5])
    training, validation = (
        xpnet.Dataset(rows[mask].T.astype(np.float32), rows[mask, 0] * 2.0) for mask in (~held, held)
    )
    outputs = []
    for seed in [0, *(int(np.random.SeedSequence([0, k]).generate_state(1)[0]) for k in (1, 2))]:
        network = xpnet.Network([3, 4, 1], loss="squared_error", backend=CPU, seed=seed)
        xpnet.train(network, training, xpnet.SGD(0.1), epochs=2, validation=validation, seed=seed)
        outputs.append(network.forward(validation.X))
    model = Path("run/model.safetensors").read_bytes()
    np.testing.assert_allclose(
        xpnet.Network.load("run/model.safetensors", CPU).forward(validation.X), np.mean(outputs, axis=0), atol=1e-5
    )
    assert main(["train", "--resume", "run", "--quiet"]) == 0
    assert Path("run/model.safetensors").read_bytes() == model


def test_a_linear_model_takes_the_part_that_the_rows_held_out_give_it(rows, capsys):
    command = ["train", "t.csv", "--hidden", "4,4", "--activation", "relu,relu", "--ensemble", "2"]
    command += ["--epochs", "40", "--lr", "0.02"]
    assert main([*command, "--target", "y", "--drop", "bent", "--out", "run", "--json"]) == 0
    *_, summary = json_lines(capsys.readouterr().out)
    assert (
        summary["ensemble"].startswith("the model is ")
        and "linear one" in summary["ensemble"]
        and summary["val_r2"] > 0.99
    )
    found = re.search(r"(\d+)% a linear one", summary["ensemble"])
    part = 100 if found is None else int(found[1])
    assert part > 50
    sizes = [each["shape"] for each in _header("run/model.safetensors")]
    assert sizes == ([[10, 3], [10, 10], [1, 10]] if part < 100 else sizes)
    assert main([*command, "--target", "bent", "--drop", "y", "--out", "bent"]) == 0
    assert "linear one" not in capsys.readouterr().out


def _header(path):
    data = Path(path).read_bytes()
    named = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return [named[name] for name in sorted(named) if name.endswith(".W")]


def test_folds_measure_the_mean_too(rows, capsys):
    found = []
    for k in ("1", "3"):
        assert main([*TRAIN[:-1], k, "--folds", "2", "--json", "--quiet", "--out", f"run{k}"]) == 0
        found.append(json_lines(capsys.readouterr().out)[0]["loss"]["values"])
    assert found[0] != found[1]


def test_layers_that_tie_units_together_are_refused(rows, capsys):
    parts = ("--ensemble 3 merges networks unit by unit", "--normalization batch ties", "leave one of them out")
    refused(capsys, [*TRAIN, "--normalization", "batch"], *parts, code=2)


@pytest.mark.parametrize(
    ("n_rows", "wanted", "said"),
    [
        (64, (500, 100, 4), "2 steps an epoch: at most 500 epochs and 100 of patience (--epochs, --patience)"),
        (640, (300, 20, 4), None),
        (MOST_ROWS + 1, (300, 20, 1), "one network is trained, not several (--ensemble)"),
    ],
)
def test_defaults_of_a_table_go_by_its_rows(n_rows, wanted, said):
    names = ("epochs", "patience", "ensemble")
    arguments = argparse.Namespace(epochs=300, patience=20, ensemble=4, batch_size=32, defaulted=names)
    told = list(lines(resolve_by_size(arguments, n_rows)))
    assert told == [] if said is None else (told[0].startswith(f"{n_rows} samples to train on") and said in told[0])
    assert tuple(getattr(arguments, name) for name in names) == wanted
    asked = argparse.Namespace(epochs=7, patience=5, ensemble=2, batch_size=32, defaulted=[])
    assert list(resolve_by_size(asked, n_rows)) == []
    assert (asked.epochs, asked.patience, asked.ensemble) == (7, 5, 2)


def test_a_table_has_a_rate_of_its_own_and_runs_of_before_have_theirs(rows):
    command = ["train", "t.csv", "--target", "y", "--epochs", "1", "--quiet"]
    for run, more, rate in (("a", [], 0.003), ("b", ["--lr", "0.02"], 0.02), ("c", ["--optimizer", "sgd"], 0.1)):
        assert main([*command, *more, "--out", run]) == 0
        config = json.loads(Path(run, "config.json").read_text(encoding="utf-8"))
        assert (config["optimizer"]["lr"], config["options"]["ensemble"]) == (rate, 1)
    assert of_before({"optimizer": "adam"})["lr"] == 0.001 and "lr" not in of_before({"optimizer": "sgd"})
