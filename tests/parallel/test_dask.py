"""Searches of scikit-learn's over the processes of a Dask cluster; needs the extra test-mpi."""

from __future__ import annotations

import os
import warnings

import joblib
import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV, cross_val_score

import xpnet

distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")

pytestmark = [pytest.mark.full, pytest.mark.filterwarnings("ignore")]
X, Y = make_classification(300, 8, random_state=0)
GRID = {"hidden_layer_sizes": [(4,), (8,)], "alpha": [1e-4, 1e-2]}


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """A cluster of two processes of one thread each."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = str(tmp_path_factory.mktemp("dask"))
        options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
        with distributed.LocalCluster(**options, local_directory=folder) as cluster, distributed.Client(cluster) as one:
            yield one


def model():
    return xpnet.MLPClassifier(max_iter=3, random_state=0, engine="replay")


def searches():
    """The scores of every kind of search."""
    grid = GridSearchCV(model(), GRID, cv=2).fit(X, Y)
    drawn = RandomizedSearchCV(model(), GRID, n_iter=2, cv=2, random_state=1).fit(X, Y)
    crossed = cross_val_score(model(), X, Y, cv=3)
    network = grid.best_estimator_.network_
    return [*grid.cv_results_["mean_test_score"], *drawn.cv_results_["mean_test_score"], *crossed], network.owned


def test_searches_find_what_they_find_alone(client):
    alone, weights = searches()
    with joblib.parallel_backend("dask", scatter=[X, Y]):
        found, network = searches()
    assert found == alone and network.tobytes() == weights.tobytes()
    ran = client.run(lambda: (os.getpid(), os.environ.get("OPENBLAS_NUM_THREADS")))
    assert len({pid for pid, _ in ran.values()} - {os.getpid()}) == 2
    assert {threads for _, threads in ran.values()} == {"1"}, "two workers do not take each other's cores"


def test_data_are_sent_once(client):
    """What is scattered lies with the workers, and tasks name it."""
    big = np.random.default_rng(0).normal(size=(20_000, 8))
    target = (big[:, 0] > 0).astype(int)
    with joblib.parallel_backend("dask", scatter=[big, target]):
        GridSearchCV(model().set_params(max_iter=1), GRID, cv=2, refit=False).fit(big, target)
        held = client.run_on_scheduler(lambda dask_scheduler: [task.nbytes for task in dask_scheduler.tasks.values()])
    assert sum(size >= big.nbytes for size in held) == 1
