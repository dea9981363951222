"""Tables of other people on the command line: how they are read, several at once, and what a run keeps of it."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_cli import json_lines, names, refused, refused_by_parser, surroundings  # noqa: F401  a fixture that runs by itself

from xpnet.cli import main

SHORT = ["--epochs", "1", "--layers", "2,1", "--quiet"]


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.random((40, 2)).round(3), columns=["a", "b"])
    frame["y"] = (3 * frame["a"] - frame["b"]).round(3)
    return frame


def train(name, *options, out="run"):
    names = [name] if isinstance(name, str) else name
    assert main(["train", *names, "--target", "y", *SHORT, "--out", out, *options]) == 0


def config(run):
    return json.loads((Path(run) / "config.json").read_text(encoding="utf-8"))


def predicted(run, *argv):
    assert main(["predict", run, *argv, "--out", "p.csv"]) == 0
    return pd.read_csv("p.csv")["y"].to_numpy()


@pytest.mark.full
def test_the_same_run_from_every_form_of_a_table(frame, monkeypatch):
    frame.to_csv("t.csv", index=False)
    train("t.csv")
    expected = Path("run/model.safetensors").read_bytes()
    frame.to_csv("semi.csv.gz", index=False, sep=";", decimal=",", encoding="utf-16")
    frame.to_csv("odd.txt", index=False, sep=":", encoding="cp1250")
    frame.to_json("t.jsonl", orient="records", lines=True)
    Path("parts").mkdir()
    frame[:15].to_csv("parts/p1.csv", index=False)
    frame[15:].to_parquet("parts/p2.parquet")
    odd = ["--separator", ":", "--decimal", ".", "--encoding", "cp1250"]
    forms = ["semi.csv.gz", "t.jsonl", "parts", "parts/p*", ["parts/p1.csv", "parts/p2.parquet"]]
    for number, (form, options) in enumerate([*((form, []) for form in forms), ("odd.txt", odd)]):
        train(form, *options, out=f"run{number}")
        assert Path(f"run{number}/model.safetensors").read_bytes() == expected, form
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path("t.csv").read_bytes()), "utf-8"))
    train("-", out="piped")
    assert Path("piped/model.safetensors").read_bytes() == expected and config("piped")["data"]["dataset"] == "-"


def test_a_run_keeps_its_reading(frame, capsys):
    frame.to_csv("t.csv", index=False, sep=";", decimal=",")
    text = Path("t.csv").read_text(encoding="utf-8").replace("\n", ";?\n").replace("y;?", "y;c", 1)
    Path("t.csv").write_text(text.replace(";?", ";1", 20), encoding="utf-8")
    train("t.csv", "--drop", "c", "--na-values", "?,-999", "--na-values", "-")
    kept = config("run")
    reading = {"separator": ";", "decimal": ",", "encoding": None, "na_values": ["?", "-999", "-"]}
    assert kept["data"]["reading"] == reading and kept["options"]["na-values"] == ["?", "-999", "-"]
    assert "reading" not in kept["options"] and "separator" not in kept["options"]
    assert main(["evaluate", "run"]) == 0
    assert main(["train", "--config", "run/config.json", "--quiet", "--out", "again"]) == 0
    assert Path("again/model.safetensors").read_bytes() == Path("run/model.safetensors").read_bytes()


def test_other_rows_are_read_with_the_decimal_sign_of_the_run(frame):
    frame.to_csv("t.csv", index=False, sep=";", decimal=",")
    train("t.csv")
    expected = predicted("run", "t.csv")
    whole = "a;b\n1,250;0,5\n"  # 1.25, or 1250 in a table of its own
    Path("new.csv").write_text(whole, encoding="utf-8")
    Path("plain.csv").write_text("a,b\n1.25,0.5\n", encoding="utf-8")
    assert predicted("run", "new.csv") == predicted("run", "plain.csv", "--decimal", ".")
    frame[:15].to_csv("p1.csv", index=False, sep=";", decimal=",")
    frame[15:].to_csv("p2.csv", index=False, sep="\t", decimal=",")
    np.testing.assert_array_equal(predicted("run", "p1.csv", "p2.csv"), expected)


def test_several_files_are_one_table_for_every_command(frame, capsys):
    frame[:15].to_csv("p1.csv", index=False)
    frame[15:].to_csv("p2.csv", index=False)
    train(["p1.csv", "p2.csv"])
    folder = Path.cwd().resolve()
    assert (
        config("run")["data"]["dataset"]
        == config("run")["options"]["dataset"]
        == [f"{folder}/p1.csv", f"{folder}/p2.csv"]
    )
    assert config("run")["data"]["n_training"] == 36
    capsys.readouterr()
    assert main(["evaluate", "run", "p1.csv", "p2.csv", "--json"]) == 0
    assert main(["evaluate", "run", "--input", "p1.csv", "--input", "p2.csv", "--json"]) == 0
    one, other = json_lines("\n".join(capsys.readouterr().out.splitlines()))
    assert one == other and (one["part"], one["n"]) == ("p1.csv and 1 more", 40)
    assert main(["train", "--config", "run/config.json", "--quiet", "--out", "again"]) == 0
    assert Path("again/model.safetensors").read_bytes() == Path("run/model.safetensors").read_bytes()
    Path("run.toml").write_text(
        'dataset = ["p1.csv", "p2.csv"]\ntarget = "y"\nna-values = ["?", -1]\n', encoding="utf-8"
    )
    assert main(["train", "--config", "run.toml", *SHORT, "--out", "toml"]) == 0
    assert Path("toml/model.safetensors").read_bytes() == Path("run/model.safetensors").read_bytes()
    Path("moved").mkdir()
    for name in ("p1.csv", "p2.csv"):
        Path(name).rename(f"moved/{name}")
    capsys.readouterr()
    refused(capsys, ["evaluate", "run"], "there is no file", "p1.csv")
    assert main(["evaluate", "run", "--data-dir", "moved"]) == 0
    capsys.readouterr()
    refused(capsys, ["predict", "run", "moved/p1.csv", "moved/p2.csv", "--out", "moved/p2.csv"], "is the input", code=2)


@pytest.mark.parametrize(("argv", "name"), [(["t.csv.gz"], "t"), (["parts"], "parts"), (["t.csv.gz", "t.csv.gz"], "t")])
def test_the_directory_of_a_run_has_the_name_of_its_table(frame, argv, name):
    Path("parts").mkdir()
    for path in ("t.csv.gz", "parts/x.csv"):
        frame.to_csv(path, index=False)
    assert main(["train", *argv, "--target", "y", *SHORT]) == 0
    assert [run.startswith(f"{name}-2") for run in names("runs")] == [True]


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--separator", "ab"], ["the separator is 'ab'", "it must be one sign", "give one such as ';'"]),
        (["--separator", "é"], ["the separator is 'é'"]),
        (["--separator", "5"], ["the separator is '5'"]),
        (["--decimal", ";"], ["decimal is ';'", "choose one of '.', ','"]),
        (["--encoding", "utf-9"], ["encoding is 'utf-9'", "did you mean"]),
        (["q*.csv"], ["no file fits 'q*.csv'", "name files that are there", "or leave out"]),
    ],
)
def test_signs_that_none_are(capsys, options, parts):
    refused_by_parser(capsys, ["train", "--target", "y", *options], *parts)


@pytest.mark.parametrize(
    "options", [["--separator", ";"], ["--decimal", ","], ["--encoding", "cp1252"], ["--na-values", "?"]]
)
def test_options_of_reading_go_with_a_table(frame, capsys, options):
    refused(
        capsys, ["train", *options], f"{options[0]} goes with a table", "not with mnist-sample", "leave it out", code=2
    )


def test_options_of_reading_go_with_other_rows_of_a_run(frame, capsys):
    frame.to_csv("t.csv", index=False)
    train("t.csv")
    capsys.readouterr()
    argv = ["evaluate", "run", "--decimal", ","]
    refused(capsys, argv, "--decimal goes with a table", "as they were", "leave it out", code=2)
    assert main(["train", "--epochs", "0", "--layers", "784,10", "--quiet", "--out", "digits"]) == 0
    capsys.readouterr()
    argv = ["predict", "digits", "X.npy", "--encoding", "utf-8", "--out", "p.csv"]
    refused(capsys, argv, "not with a run on other data", code=2)


def test_a_damaged_config(frame, capsys):
    frame.to_csv("t.csv", index=False)
    train("t.csv")
    kept = config("run")
    texts = ["has the reading", "all of it must be texts", "restore it"]
    for key, value, parts in (
        ("reading", 5, ["has the reading 5", "it must have separator, decimal, encoding", "restore it"]),
        ("reading", {"sign": ";"}, ["it must have separator"]),
        ("reading", {"separator": 5}, texts),
        ("reading", {"na_values": "?"}, texts),
        ("reading", {"separator": "ab"}, ["the separator is 'ab'"]),
        ("dataset", 5, ["has the data 5", "it must be a path, or a list of paths", "restore it"]),
        ("dataset", [], ["has the data []"]),
    ):
        data = {**kept["data"], key: value}
        Path("run/config.json").write_text(json.dumps({**kept, "data": data}), encoding="utf-8")
        capsys.readouterr()
        refused(capsys, ["evaluate", "run"], *parts)


def test_bad_tables_leave_no_run(capsys):
    Path("empty").mkdir()
    Path("t.csv").write_bytes(b"\x1f\x8b\x08\0\0\0")
    Path("a.csv").write_text("x,y\n1,2\n3,4\n", encoding="utf-8")
    Path("b.csv").write_text("x,z\n1,2\n3,4\n", encoding="utf-8")
    for argv, parts in (
        (["empty"], ["empty/ holds no data", "it must hold tables", "name another folder"]),
        (["t.csv"], ["t.csv is a binary file of the kind .csv.gz"]),
        (["a.csv", "b.csv"], ["b.csv lacks 'y' and has in addition 'z'"]),
        (["a.csv", "none.csv"], ["there is no file", "none.csv"]),
    ):
        refused(capsys, ["train", *argv, "--target", "y"], *parts)
    refused_by_parser(capsys, ["train", "a.csv", "mnst", "--target", "y"], "dataset is 'mnst'", "did you mean 'mnist'?")
    assert "runs" not in names(".")


@pytest.mark.full
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_a_run_on_any_encoding_is_evaluated_and_resumed(frame, capsys, encoding):
    frame.to_csv("t.csv", index=False, encoding=encoding)
    train("t.csv", "--json")
    trained = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert main(["evaluate", "run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["r2"] == trained["val_r2"]
    assert main(["train", "--resume", "run", "--quiet"]) == 0
    assert len(predicted("run", "t.csv")) == len(frame)
