"""Real mpiexec: the same bits for every number of processes, in one launch each; needs the extra test-mpi."""

from __future__ import annotations

import json

import mpi_cases
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
