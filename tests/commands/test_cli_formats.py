"""A format of files is one row of READERS: commands, help texts and messages follow from it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_cli import json_lines, refused, surroundings  # noqa: F401  a fixture that runs by itself

import xpnet
from xpnet.cli import main
from xpnet.tables.files import is_table
from xpnet.tables.formats import READERS, ROWS, TABLE, Reader, suffix_of
from xpnet.tables.sources import Source
from xpnet.tables.table import Reading, Table
from xpnet.tables.writing import written_suffixes

SHORT = ["--epochs", "2", "--quiet", "--dtype", "float64", "--out", "run"]


def read_toy(path):
    """The word TOY and lines of numbers, whole ones where they have no point."""
    word, *lines = path.read_text(encoding="utf-8").splitlines()
    if word != "TOY":
        raise KeyError("no toy")
    return np.array([json.loads(f"[{line}]") for line in lines])


def write_toy(rows, file):
    file.write("\n".join(["TOY", *(", ".join(map(str, row)) for row in rows.tolist())]).encode())


def read_toy_table(source, reading, text_columns):
    frame = pd.DataFrame(json.loads(gzip.decompress(source.path.read_bytes())))
    return Table(frame.astype(dict.fromkeys(text_columns, str)), reading)


def write_toy_table(frame, file):
    file.write(gzip.compress(json.dumps(frame.to_dict("list")).encode()))


@pytest.fixture
def toys(monkeypatch):
    """Two formats more: .toy of rows, .toy.gz of tables."""
    rows = Reader(ROWS, "Toy", read_toy, "toy.save(path, {})", write_toy)
    table = Reader(TABLE, "Toy table", read_toy_table, "toy.dump(frame, path)", write_toy_table, ("pandas",), "data")
    monkeypatch.setitem(READERS, ".toy", rows)
    monkeypatch.setitem(READERS, ".toy.gz", table)
    return READERS


def test_rows_of_a_new_format_train_evaluate_and_predict(toys, capsys):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 3))
    for name, array in (("X", X), ("Y", (X[:, :1] > 0).astype(int)), ("W", np.ones((60, 1)))):
        with open(f"{name}.toy", "wb") as file:
            write_toy(array, file)
        np.save(f"{name}.npy", array.reshape(-1) if name == "W" else array)
    for suffix in ("toy", "npy"):
        assert main(["train", f"X.{suffix}", "--labels", f"Y.{suffix}", *SHORT[:-1], suffix]) == 0
        assert main(["evaluate", suffix, "--json"]) == 0
        assert main(["predict", suffix, f"X.{suffix}", "--out", f"P.{suffix}"]) == 0
    toy, npy = json_lines("\n".join(line for line in capsys.readouterr().out.splitlines() if line.startswith("{")))
    assert toy == npy and (toy["part"], toy["n"]) == ("validation", 6)
    network = xpnet.Network.load("toy/model.safetensors", xpnet.select_backend("cpu", "float64"))
    np.testing.assert_array_equal(read_toy(Path("P.toy")), network.predict(X.T).T)
    np.testing.assert_allclose(np.load("P.npy"), read_toy(Path("P.toy")), rtol=1e-9)
    assert json.loads(Path("toy/config.json").read_text(encoding="utf-8"))["data"]["dataset"].endswith("/X.toy")


def test_tables_of_a_new_format_train_evaluate_and_predict(toys, capsys):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.random(60), "b": rng.choice(["x", "z"], 60), "y": rng.random(60)})
    with open("T.toy.gz", "wb") as file:
        write_toy_table(frame, file)
    assert main(["train", "T.toy.gz", "--target", "y", *SHORT]) == 0
    assert main(["evaluate", "run", "T.toy.gz", "--json"]) == 0
    measured = json_lines(capsys.readouterr().out.splitlines()[-1])[0]
    assert (measured["part"], measured["n"]) == ("T.toy.gz", 60)
    assert main(["predict", "run", "T.toy.gz", "--out", "P.toy.gz"]) == 0
    assert main(["predict", "run", "T.toy.gz", "--out", "P.csv"]) == 0
    found = read_toy_table(Source(Path("P.toy.gz")), Reading(), ()).frame
    np.testing.assert_allclose(found["y"], pd.read_csv("P.csv")["y"], rtol=1e-8)
    errors = abs(found["y"] - frame["y"])
    assert measured["mean_absolute_error"] == pytest.approx(errors.mean(), rel=1e-9)


def test_help_texts_name_a_new_format(toys, capsys):
    for command, parts in {
        "train": [".ndjson, .xlsx or .toy.gz, needs --target)", "(n_samples, n_features) (.npy or .toy)"],
        "predict": [
            "Y.npy|Y.toy|Y.csv|Y.parquet|Y.toy.gz",
            ".npy, .toy or .csv, for a table .csv, .parquet or .toy.gz",
        ],
    }.items():
        with pytest.raises(SystemExit):
            main([command, "--help"])
        told = " ".join(capsys.readouterr().out.split())
        assert [part for part in parts if part not in told] == []


def test_messages_name_a_new_format(toys, capsys):
    Path("X.toy").write_text("TOY\n1.0, 2.0\n3.0, 4.0", encoding="utf-8")
    Path("bad.toy").write_bytes(b"ABC")
    Path("bad.toy.gz").write_bytes(b"ABC")
    train = ["train", "X.toy", "--labels"]
    refused(capsys, [*train, "no.toy"], "there is no file", "no.toy", "write one with toy.save(path, rows)")
    refused(capsys, [*train, "bad.toy"], "bad.toy is not a whole Toy file", "no toy", "toy.save(path, X)")
    refused(capsys, ["train", "X.toy", "--target", "y"], ".xlsx or .toy.gz file, not with X.toy", code=2)
    refused(capsys, ["train", "X.toy"], "X.toy is a file and needs its labels: add --labels Y.npy", code=2)
    refused(capsys, ["predict", "run", "X.toy.gz", "--out", "P.csv"], "run is not a run directory")


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        *[("a.csv", ".csv"), ("A.NPY", ".npy"), ("a.toy", ".toy"), ("a.toy.gz", ".toy.gz")],
        *[(name, None) for name in ("dir.csv/a", ".csv", "csv", "a.toy.xz", "a.gz", ".toy.gz")],
    ],
)
def test_the_suffix_of_a_name_is_the_longest_known(toys, name, suffix):
    assert suffix_of(name) == suffix
    assert is_table(name) == (suffix in (".csv", ".toy.gz"))


def test_what_a_new_format_needs_is_looked_for_before_it_is_read(toys, monkeypatch, capsys):
    monkeypatch.setitem(READERS, ".toy", Reader(ROWS, "Toy", read_toy, "", None, ("no_such_module",), "toys"))
    Path("X.toy").write_text("TOY\n1", encoding="utf-8")
    parts = ["Toy files need no_such_module", "which is not installed", "'xpnet[toys]'"]
    refused(capsys, ["train", "X.toy", "--labels", "X.toy"], *parts, ".xlsx or .toy.gz file.")
    assert written_suffixes(ROWS) == [".npy", ".csv"]  # this one is not written
