"""Plain rows in units far from 1 are said before the training, and so are labels that look like numbers."""

from __future__ import annotations

import numpy as np
import pytest

from xpnet.cli import main
from xpnet.data.dataset import Dataset
from xpnet.tables.decisions import lines
from xpnet.tables.magnitudes import said_of_magnitudes

X = np.random.default_rng(3).normal(size=(30, 3))


@pytest.mark.parametrize(
    ("rows", "targets", "said"),
    [
        (X, X[:, 0], []),
        (X * [1, 0, 90], X[:, 0], []),  # a column of zeros, and deviations below 100
        (X * [1, 1e3, 1e-3], X[:, 0] + 1e7, ["features of ", "targets of 1e+07 to 1e+07: taken as they are"]),
        (X, X * [1e300, 1, 1], ["targets of "]),
        ((X > 0).astype(np.uint8) * 255, X[:, :1] * 1e-4, ["targets of "]),  # bytes are scaled
    ],
)
def test_units_far_from_one_are_said(rows, targets, said):
    found = list(lines(said_of_magnitudes(Dataset(rows.T, targets.T))))
    assert len(found) == len(said) and all(map(str.startswith, found, said))
    for line in found:
        name = "X" if line.startswith("features") else "Y"
        assert line.endswith(
            f"(save ({name} - {name}.mean(axis=0)) / {name}.std(axis=0), or train on a table, which is scaled)"
        )
    assert ("(2 of 3 columns are far from 1)" in "".join(found)) == (said[:1] == ["features of "])


def test_a_run_on_files_says_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("X.npy", X * 1e6)
    np.save("Y.npy", np.arange(30) % 3 + 1990)
    argv = ["train", "X.npy", "--labels", "Y.npy", "--epochs", "1", "--hidden", "2", "--engine", "replay"]
    assert main(argv) == 0
    said = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("features of -") for line in said) == 1
    assert (
        "labels: 1993 classes, 3 of them in the rows to train on: if they are numbers to predict, "
        "write them with np.save(path, Y.astype(float))"
    ) in said
