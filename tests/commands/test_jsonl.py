"""xpnet predict RUN --jsonl: every line of stdin has its answer at once, a bad one too."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from refusals import says
from test_cli import refused

from xpnet.cli import main
from xpnet.commands import serving
from xpnet.network.network import Network

SHORT = ["--epochs", "1", "--hidden", "4", "--quiet", "--device", "cpu"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs on digits and on a table with numbers."""
    folder, rng = tmp_path_factory.mktemp("served"), np.random.default_rng(0)
    frame = pd.DataFrame({"size": rng.normal(120, 30, 80).round(1), "colour": rng.choice(["red", "green"], 80)})
    frame.assign(price=3000.5 * frame["size"]).to_csv(folder / "price.csv", index=False)
    frame.to_csv(folder / "new.csv", index=False)
    assert main(["train", "--out", str(folder / "digits"), *SHORT]) == 0
    train(folder, "price")
    return folder


def train(folder, target):
    argv = ["train", str(folder / f"{target}.csv"), "--target", target, "--out", str(folder / target)]
    assert main([*argv, *SHORT]) == 0


@pytest.fixture(scope="module")
def with_classes(folder):
    """The same folder, with a run on a table with classes."""
    frame = pd.read_csv(folder / "new.csv")
    frame.assign(sold=np.where(frame["size"] > 120, "yes", "no")).to_csv(folder / "sold.csv", index=False)
    train(folder, "sold")
    return folder


@pytest.fixture
def answers(folder, monkeypatch, capsys):
    """What a run answers to lines."""

    def ask(run, lines, *options):
        text = b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines)
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text), encoding="utf-8"))
        capsys.readouterr()
        assert main(["predict", run, "--jsonl", *options]) == 0
        out, err = capsys.readouterr()
        return [json.loads(line) for line in out.splitlines()], err.splitlines()[-1]

    return ask


def test_rows_of_numbers_are_answered_as_predict_does(folder, answers):
    network = Network.load(folder / "digits/model.safetensors")
    rows = np.random.default_rng(0).integers(256, size=(5, 784), dtype=np.uint8)
    scaled = rows.astype("f") * np.float32(1 / 255)
    found, last = answers("digits", [*rows.tolist(), *scaled.tolist()])
    assert last.startswith("10 rows: ") and last.endswith(" rows a second")
    assert np.allclose([each["outputs"] for each in found[:5]], network.predict(rows.T).T, rtol=1e-5)
    assert np.allclose([each["outputs"] for each in found[5:]], network.predict(scaled.T).T, rtol=1e-5)
    found, _ = answers("digits", rows.tolist(), "--labels")
    assert [each["label"] for each in found] == network.classify(rows.T).tolist()


def test_rows_of_a_table_are_answered_as_predict_does(folder, answers):
    check_rows(folder, answers, "price", [])


@pytest.mark.full
@pytest.mark.parametrize("options", [[], ["--labels"], ["--proba"], ["--threshold", "0.7"]])
def test_rows_of_a_table_with_classes_are_answered_as_predict_does(with_classes, answers, options):
    check_rows(with_classes, answers, "sold", options)


def check_rows(folder, answers, target, options):
    rows = json.loads(pd.read_csv(folder / "new.csv").to_json(orient="records"))[:8]
    found, _ = answers(target, rows, *options)
    assert main(["predict", target, "new.csv", "--out", "out.csv", *options]) == 0
    written = pd.read_csv(folder / "out.csv")[:8]
    assert list(found[0]) == list(written)
    for name in written:
        values = [each[name] for each in found]
        same = values == list(written[name]) if written[name].dtype.kind not in "fi" else None
        assert same if same is not None else np.allclose(values, written[name], rtol=1e-5)


def test_what_is_done_with_a_row_is_noted(answers):
    found, _ = answers("price", [{"size": None, "colour": "violet", "garden": 3}, {" colour ": "red", "size": 100}])
    assert len(found[0]["notes"]) == 3 and any("violet" not in note and "garden" in note for note in found[0]["notes"])
    assert list(found[1]) == ["price"]


def test_a_bad_line_has_an_answer_too(answers, monkeypatch):
    good, monkey = [0] * 784, [0] * 783 + ["x"]
    bad = {
        b"nonsense\n": ("the line is no JSON", "it must be a row", "write it as JSON"),
        b"\xff\n": ("the line is no JSON", "it must be a row", "write it as JSON"),
        b"\n": ("the line is no JSON", "it must be a row", "write it as JSON"),
        b'{"a": 1}\n': ("the row is {'a': 1}", "a list of 784 numbers", "give one for each feature"),
        b"[1, 2]\n": ("the row is a list of 2", "a list of 784 numbers", "give one for each feature"),
        json.dumps(monkey).encode() + b"\n": ("the row has 'x'", "must be finite numbers", "correct it"),
        json.dumps([float("nan"), *good[1:]]).encode() + b"\n": ("the row has nan", "must be finite", "correct it"),
        json.dumps([True, *good[1:]]).encode() + b"\n": ("the row has True", "must be finite numbers", "correct it"),
        json.dumps([-1, *good[1:]]).encode() + b"\n": ("goes from -1 to 0", "must be bytes, 0 to 255", "with a point"),
    }
    found, last = answers("digits", [good, *bad, good])
    assert "outputs" in found[0] and found[-1] == found[0] and len(found) == len(bad) + 2
    assert last.startswith(f"{len(found)} rows, {len(bad)} of them bad: ")
    for number, (each, parts) in enumerate(zip(found[1:-1], bad.values(), strict=True), 2):
        assert each["line"] == number
        says(each["error"], *parts)
    monkeypatch.setattr(serving, "LONGEST", 4000)
    found, _ = answers("digits", [good, b"[" + b"1, " * 50_000 + b"1]\n", good])
    assert found[0] == found[2] and len(found) == 3
    says(found[1]["error"], "the line has more than 4000 bytes", "a row may have as many", "give fewer")


def test_bad_rows_of_a_table(answers):
    found, _ = answers("price", [[1, 2], {"size": 100}, {"size": 100, "colour": "red"}])
    says(found[0]["error"], "the row is [1, 2]", "it must be an object of columns", "write it as {column: value}")
    assert "colour" in found[1]["error"] and "price" in found[2]
    found, _ = answers("price", [{}])
    says(found[0]["error"], "the row is {}", "it must be an object of columns", "write it as {column: value}")


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--threshold", "0.5"], ["a threshold goes with two classes", "the task is regression", "leave it out"]),
        (["--proba"], ["price is a regression", "has no probabilities", "take its values"]),
    ],
)
def test_what_no_row_could_be_answered_is_refused_before_the_first(folder, monkeypatch, capsys, options, parts):
    monkeypatch.chdir(folder)
    refused(capsys, ["predict", "price", "--jsonl", *options], *parts)


@pytest.mark.full
def test_lines_are_answered_before_the_next_one_comes(folder):
    command = [sys.executable, "-m", "xpnet", "predict", "price", "--jsonl"]
    with subprocess.Popen(
        command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        for size in (90, 130):
            process.stdin.write(json.dumps({"size": size, "colour": "red"}) + "\n")
            process.stdin.flush()
            assert list(json.loads(process.stdout.readline())) == ["price"]
        process.stdin.close()
        assert process.stderr.read().splitlines()[-1].startswith("2 rows: ")
        assert process.wait(300) == 0


def test_options_that_do_not_go_with_it(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    for options in (["--out", "o.csv"], ["--input", "new.csv"], ["new.csv"]):
        assert main(["predict", "price", "--jsonl", *options]) == 2
        says(
            capsys.readouterr().err.strip(), "does not go with --jsonl", "reads stdin and writes stdout", "leave it out"
        )
    assert main(["predict", "price", "--jsonl", "--decimal", ","]) == 2
    assert "--decimal goes with a table, not with --jsonl, whose rows are JSON" in capsys.readouterr().err
    assert main(["predict", "price", "new.csv"]) == 2
    says(capsys.readouterr().err.strip(), "xpnet: the following arguments", "are required: --out", "or - for stdout")


def test_an_empty_line_a_mark_of_the_bytes_order_and_no_stdin(folder, answers, monkeypatch, capsys):
    found, _ = answers("digits", [b"\n", b"\xef\xbb\xbf" + json.dumps([0] * 784).encode() + b"\r\n"])
    assert "(Expecting value: line 1 column 1 (char 0))" in found[0]["error"] and len(found[1]["outputs"]) == 10
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["predict", "digits", "--jsonl"]) == 0
    sys.stdin.close()
    assert capsys.readouterr().err.splitlines()[-1].startswith("0 rows")
