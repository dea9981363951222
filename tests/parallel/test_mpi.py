"""Real mpiexec: the same bits for every number of processes, in one launch each; needs the extra test-mpi."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import mpi_cases
import pytest

pytest.importorskip("mpi4py", reason="the extra test-mpi is not installed")

pytestmark = pytest.mark.full
LIMIT = 100  # seconds of a launch
MPIEXEC = Path(sys.executable).with_name("mpiexec")


def launch(n, *words, check=True, folder=None):
    """Run Python under mpiexec on n ranks, each on one thread."""
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [MPIEXEC, "-n", str(n), sys.executable, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, env=environment, cwd=folder)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process without MPI makes of all cases, and the folder with the half run."""
    folder = tmp_path_factory.mktemp("alone")
    mpi_cases.run(folder, None)
    return folder, json.loads((folder / "found.json").read_text())


@pytest.mark.parametrize("n", [1, 2, 4])
def test_models_and_histories_are_equal_to_the_byte(n, alone, tmp_path):
    half = tmp_path / mpi_cases.HALF
    half.write_bytes((alone[0] / mpi_cases.HALF).read_bytes())
    launch(n, mpi_cases.__file__, tmp_path)
    found = json.loads((tmp_path / "found.json").read_text())
    assert list(found) == list(alone[1])
    assert {*mpi_cases.OPTIMIZERS, "resumed", "early stopping"} <= set(found)
    for name, parts in found.items():
        for part, expected in zip(parts, alone[1][name], strict=True):
            assert part == expected, name
