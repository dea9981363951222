"""Real mpiexec: the same bits for every number of processes, in one launch each; needs the extra test-mpi."""

from __future__ import annotations

import json

import mpi_cases
import numpy as np
import pandas as pd
import pytest
from launching import launch

pytest.importorskip("mpi4py", reason="the extra test-mpi is not installed")

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process without MPI makes of all cases, and the folder with the half run."""
    folder = tmp_path_factory.mktemp("alone")
    mpi_cases.run(folder, None)
    return folder, json.loads((folder / "found.json").read_text())


@pytest.mark.parametrize("n", [1, 2, 4])
def test_models_and_histories_are_equal_to_the_byte(n, alone, tmp_path):
    (tmp_path / mpi_cases.HALF).write_bytes((alone[0] / mpi_cases.HALF).read_bytes())
    launch((n, mpi_cases.__file__, tmp_path))
    found = json.loads((tmp_path / "found.json").read_text())
    assert list(found) == list(alone[1])
    assert {*mpi_cases.OPTIMIZERS, "resumed", "early stopping"} <= set(found)
    for name, parts in found.items():
        for part, expected in zip(parts, alone[1][name], strict=True):
            assert part == expected, name


FOLDERS = """
import sys
from xpnet.cli import main
from xpnet.tables import arrays
arrays.POOL_BYTES = 0
for words in eval(sys.argv[2]):
    code = main([*words, "--out", f"{sys.argv[1]}-{words[1]}"])
    assert code == 0, code
"""


def test_folders_of_rows_and_of_a_table_are_data_sets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(3)
    X, labels = rng.normal(size=(90, 4)).astype(np.float32), rng.integers(3, size=90)
    frame = pd.DataFrame(X, columns=list("abcd")).assign(kind=labels)
    (tmp_path / "pairs").mkdir(), (tmp_path / "stored").mkdir()
    for name, rows in {"0": slice(0, 33), "1": slice(33, 90)}.items():
        np.save(f"pairs/X-{name}.npy", X[rows])
        np.save(f"pairs/y-{name}.npy", labels[rows])
        frame[rows].to_parquet(f"stored/{name}.parquet", index=False)
    options = ["--epochs", "3", "--engine", "replay", "--quiet", "--hidden", "7", "--reduction", "fixed"]
    runs = [["train", "pairs", *options], ["train", "stored", "--target", "kind", "--ensemble", "1", *options]]
    for name, ranks in {"alone": 1, "two": 2}.items():
        launch((ranks, "-c", FOLDERS, name, repr(runs)))
    for folder in ("pairs", "stored"):
        found = [(tmp_path / f"{name}-{folder}" / "model.safetensors").read_bytes() for name in ("alone", "two")]
        assert found[0] == found[1], folder
