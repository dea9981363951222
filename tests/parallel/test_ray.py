"""Searches of scikit-learn's over the processes of Ray; needs the extra test-searches."""

from __future__ import annotations

import os
import tempfile

import joblib
import pytest
from searching import searches

ray = pytest.importorskip("ray", reason="the extra ray is not installed")

pytestmark = [pytest.mark.full, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def cluster():
    """Ray with two processes of one thread each; its sockets need a short path."""
    with tempfile.TemporaryDirectory(prefix="ray") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")  # which would leave a file in the home of who tests
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join([os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")]))
        options = {"include_dashboard": False, "configure_logging": False, "log_to_driver": False}
        ray.init(num_cpus=2, _temp_dir=folder, **options)
        yield
        ray.shutdown()


def test_searches_find_what_they_find_alone(cluster):
    from ray.util.joblib import register_ray

    alone = searches()
    register_ray()
    with joblib.parallel_backend("ray"):
        assert searches() == alone

    @ray.remote
    def ran():
        return os.getpid(), os.environ.get("OMP_NUM_THREADS")

    found = dict(ray.get([ran.remote() for _ in range(4)]))
    assert os.getpid() not in found and {*found.values()} == {"1"}, "two workers do not take each other's cores"
