"""Every command that prints, where stdout is ASCII and paths are not."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest

from xpnet import plots
from xpnet.cli import main

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
    bench = ["--widths", "32", "--batches", "32", "--repeats", "1", "--seconds", "0.001", "--features", "4"]
    for argv, told in (
        (["train", "--resume", PLACE, "--epochs", "2"], f"-> {ESCAPED}"),
        (["train", "--resume", PLACE, "--epochs", "2", "--json"], '"run": "\\u00e9\\udcff"'),
        (["evaluate", PLACE, "--device", "cpu"], "validation"),
        (["predict", PLACE, "X.npy", "--out", f"{PLACE}.csv", "--device", "cpu"], f"-> {ESCAPED}.csv"),
        (["plot", PLACE, "--device", "cpu"], f"{ESCAPED}/loss.png"),
        (["describe", PLACE], "affine"),
        (["info"], "numpy"),
        (["find-lr", *DATA, "--steps", "10", "--plot", f"{PLACE}.png"], "lr"),
        (["bench", *bench, "--device", "cpu", "--out", f"{PLACE}.json"], "no crossover"),
        (["bench", "--compare", f"{PLACE}.json", f"{PLACE}.json"], ESCAPED),
    ):
        code, out, err = ascii_main(*argv)
        assert told in out, (argv, code, out, err)
    code, out, err = ascii_main("evaluate", f"{PLACE}/nowhere")
    assert code == 1 and f"xpnet: {ESCAPED}/nowhere is not a run directory" in err
