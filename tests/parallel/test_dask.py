"""Searches of scikit-learn's over the processes of a Dask cluster; needs the extra test-searches."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import joblib
import numpy as np
import pytest
from searching import GRID, X, Y, model, searches
from sklearn.model_selection import GridSearchCV

import xpnet

distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")

pytestmark = [pytest.mark.full, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """A cluster of two processes of one thread each."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = str(tmp_path_factory.mktemp("dask"))
        options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
        with distributed.LocalCluster(**options, local_directory=folder) as cluster, distributed.Client(cluster) as one:
            yield one


def test_searches_find_what_they_find_alone(client):
    alone = searches()
    with joblib.parallel_backend("dask", scatter=[X, Y]):
        assert searches() == alone
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


PAGES = Path(__file__).parents[2]


def block_with(page, words):
    """The block of a page that holds these words."""
    blocks = (PAGES / page).read_text(encoding="utf-8").split("```")[1::2]
    (found,) = [block.partition("\n")[2] for block in blocks if words in block]
    return found


def test_each_worker_of_the_guide_has_a_gpu_of_its_own(tmp_path):
    """Its commands start workers that see one GPU each, and its lines search on both."""
    lines = block_with("ci/guide/machines.md", "CUDA_VISIBLE_DEVICES").splitlines()
    starts = [line.split() for line in lines if line.startswith("CUDA_VISIBLE_DEVICES")]
    assert len(starts) == 2
    options = {"n_workers": 0, "dashboard_address": None, "local_directory": str(tmp_path)}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        workers = []
        try:
            for variable, *words in starts:
                name, _, number = variable.partition("=")
                words = [cluster.scheduler_address if word == "scheduler:8786" else word for word in words]
                more = ["--local-directory", str(tmp_path), "--no-dashboard"]
                start, environment = [sys.executable, "-m", *words, *more], os.environ | {name: number}
                workers.append(subprocess.Popen(start, env=environment, stderr=subprocess.DEVNULL))
            client.wait_for_workers(2, timeout=60)
            seen = client.run(lambda: (os.environ["CUDA_VISIBLE_DEVICES"], os.environ["OPENBLAS_NUM_THREADS"]))
            assert sorted(seen.values()) == [("0", "1"), ("1", "1")]
            names = {"joblib": joblib, "GridSearchCV": GridSearchCV, "xpnet": xpnet, "X": X, "y": Y}
            for page, words in (("ci/guide/machines.md", "import joblib"), ("README.md", "scatter=")):
                text = block_with(page, words)
                for call in ('Client("scheduler:8786")', "Client()"):
                    text = text.replace(call, f"Client({cluster.scheduler_address!r})", 1)
                exec(text, names)
                names["client"].close()
            assert names["search"].best_score_ > 0.5
        finally:
            for worker in workers:
                worker.terminate()
                worker.wait(30)
