"""Every command that prints, where stdout is ASCII and paths are not."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest

from xpnet import plots
from xpnet.cli import _parser, main

PLACE, ESCAPED = "é\udcff", r"\xe9\udcff"  # a letter beyond ASCII, and a byte that is no letter
DATA = ["X.npy", "--labels", "Y.npy", "--layers", "3,2", "--device", "cpu"]


@pytest.fixture
def ascii_main(tmp_path, monkeypatch):
    """Run a command in a folder; returns its exit code and what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plots, "save", lambda ax, path: Path(path).touch())  # a picture takes a second

    def run(*argv):
        out, err = io.BytesIO(), io.BytesIO()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding="ascii"))
            patch.setattr(sys, "stderr", io.TextIOWrapper(err, encoding="ascii"))
            code = main(argv)
            sys.stdout.flush()
            sys.stderr.flush()
            return code, out.getvalue().decode("ascii"), err.getvalue().decode("ascii")

    return run


@pytest.mark.full
def test_every_command_prints_paths_that_stdout_cannot_encode(ascii_main):
    np.save("X.npy", np.random.default_rng(0).random((40, 3)))
    np.save("Y.npy", np.arange(40) % 2)
    code, out, err = ascii_main("train", *DATA, "--epochs", "1", "--out", PLACE)
    assert code == 0, err
    assert f"-> {ESCAPED}" in out and f"-> {ESCAPED}" in err
    done, commands = set(), set(next(part.choices for part in _parser()._actions if part.choices))
    bench = ["--widths", "32", "--batches", "32", "--repeats", "1", "--seconds", "0.001", "--features", "4"]
    for argv, told in (
        (["train", "--resume", PLACE, "--epochs", "2"], f"-> {ESCAPED}"),
        (["train", "--resume", PLACE, "--epochs", "2", "--json"], '"run": "\\u00e9\\udcff"'),
        (["evaluate", PLACE, "--device", "cpu"], "validation"),
        (["predict", PLACE, "X.npy", "--out", f"{PLACE}.csv", "--device", "cpu"], f"-> {ESCAPED}.csv"),
        (["plot", PLACE, "--device", "cpu"], f"{ESCAPED}/loss.png"),
        (["describe", PLACE], "affine"),
        (["export", PLACE, "--out", f"{PLACE}.h"], f"{ESCAPED}.h"),
        (["report", PLACE, "--out", f"{PLACE}.html"], f"{ESCAPED}.html"),
        (["info"], "numpy"),
        (["find-lr", *DATA, "--steps", "10", "--plot", f"{PLACE}.png"], "lr"),
        (["bench", *bench, "--device", "cpu", "--out", f"{PLACE}.json"], "no crossover"),
        (["bench", "--compare", f"{PLACE}.json", f"{PLACE}.json"], ESCAPED),
    ):
        code, out, err = ascii_main(*argv)
        assert told in out, (argv, code, out, err)
        done.add(argv[0])
    assert done == commands - {"tune"}  # which needs Optuna: see tests/tuning
    code, out, err = ascii_main("evaluate", f"{PLACE}/nowhere")
    assert code == 1 and f"xpnet: {ESCAPED}/nowhere is not a run directory" in err


@pytest.mark.full
def test_names_of_a_table_that_stdout_cannot_encode(ascii_main):
    rows = "".join(f"{i},{'äb'[i % 2]}\n" for i in range(40))
    Path("t.csv").write_text(f"é,ü\n{rows}", encoding="utf-8")
    train = ["train", "t.csv", "--device", "cpu", "--epochs", "1"]
    code, _, err = ascii_main(*train, "--target", "ü", "--folds", "2", "--plan", "--out", "run")
    assert code == 0 and r"'\xfc' is b, \xe4" in err and r"\xe9" in err
    code, out, err = ascii_main("evaluate", "run", "t.csv")
    assert code == 0 and "accuracy" in out, err
    code, out, _ = ascii_main("predict", "run", "t.csv", "--out", "p.csv")
    assert code == 0 and "ä" in Path("p.csv").read_text(encoding="utf-8")
    code, _, err = ascii_main(*train, "--target", "ö", "--out", "no")
    assert code != 0 and r"there is no column '\xf6'; the columns are \xe9, \xfc" in err
