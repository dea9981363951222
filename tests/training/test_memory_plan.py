"""The memory plan, held against what a run really takes."""

from __future__ import annotations

import os
import subprocess
import sys

import fakecupy
import numpy as np
import pytest
from refusals import refusal

import xpnet
import xpnet.data.feed
from xpnet.training.memory_plan import describe_plan, memory_plan

MEASURE = r"""
import re
import numpy as np
import xpnet
import xpnet.data.feed
from xpnet.training.memory_plan import memory_plan

def peak():  # of this program alone; ru_maxrss would begin at what pytest holds
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", open("/proc/self/status").read())[1])

def data(rng, n):
    rows = rng.random((n, 784), dtype=np.float32)
    return xpnet.Dataset.from_labels(rows.T, rng.integers(10, size=n))

rng, backend = np.random.default_rng(0), xpnet.select_backend("cpu")
warm = np.ones((512, 512), np.float32)  # BLAS takes buffers of its own at its first large product
warm @ warm
del warm
before = peak()
training, validation = data(rng, 8_192), data(rng, 1_024)
network = xpnet.Network([784, 1024, 1024, 10], backend=backend)
optimizer = xpnet.SGD(0.01)
plan = memory_plan(network, training, optimizer, batch_size=8192, validation=validation).items
xpnet.train(network, training, optimizer, epochs=1, batch_size=8192, validation=validation)
print(sum(item.nbytes for item in plan), peak() - before)
"""


@pytest.mark.full
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read in /proc")
def test_the_sum_is_within_ten_percent_of_the_growth_of_peak_memory():
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # each thread more has a buffer of its own
    command = [sys.executable, "-c", MEASURE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    planned, grown = map(int, done.stdout.split())
    assert planned > 200e6
    assert abs(planned - grown) < 0.1 * grown, (planned, grown)


@pytest.fixture
def dataset():
    rng = np.random.default_rng(0)
    labels, weights = rng.integers(3, size=100), rng.random(100)
    return xpnet.Dataset.from_labels(rng.random((6, 100)).astype(np.float32), labels, weights=weights)


def sizes(plan):
    return {item.name: item.nbytes for item in plan}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_buffer_has_its_name_and_size(dataset, dtype):
    backend = xpnet.select_backend("cpu", dtype)
    network = xpnet.Network([6, 7, 3], backend=backend)
    plan = sizes(memory_plan(network, dataset, xpnet.SGD(), batch_size=20, others=[dataset]).items)
    n = backend.dtype.itemsize
    expected = {
        "training X": 6 * 100 * 4,
        "training Y": 3 * 100 * 4,
        "training weights": 100 * 8,
        "other Y": 3 * 100 * 4,
        "training weights, to gather from": 100 * n,
        "theta": network.parameters.flat.size * n,
        "last good theta": network.parameters.flat.size * n,
        "step gradient": network.parameters.flat.size * n,
        "step X": 6 * 20 * n,
        "step Z1, A1": 7 * 20 * n,
        "step Z2": 3 * 20 * n,
        "step dA1": 7 * 20 * n,
        "step dZ1": 7 * 20 * n,
        "step w": 20 * n,
        "step mask": 7 * 20,
        "step constants": 7 * 20 * n,
        "record 0 Z1, A1": 7 * 100 * n,
        "order": 8 * 100,
    }
    assert expected.items() <= plan.items()
    assert ("training X, to gather from" in plan) == (dtype == "float64")  # only there is a copy made


def test_the_state_of_an_optimizer_and_accumulation_are_counted(dataset):
    network = xpnet.Network([6, 7, 3], backend=xpnet.select_backend("cpu"))
    plan = sizes(memory_plan(network, dataset, xpnet.Adam(ema=0.9), batch_size=20, accumulate=3).items)
    theta = network.parameters.flat.nbytes
    assert plan["step m"] == plan["step v"] == plan["step scratch"] == plan["step accumulated"] == theta
    assert plan["step ema"] == theta + 4 and 3 * theta < plan["last good state"] < 3 * theta + 500


def test_what_a_program_holds_is_counted_once(dataset):
    """All lines of a step but the engine's own, and padding aside, are the engine's arena."""
    network = xpnet.Network([6, 70, 50, 3], backend=xpnet.select_backend("cpu"))
    program = network.training_program(64, xpnet.SGD(), True)
    plan = sizes(memory_plan(network, dataset, xpnet.SGD(), batch_size=64).items)
    besides = ("step mask", "step constants")
    counted = sum(nbytes for name, nbytes in plan.items() if name.startswith("step ") and name not in besides)
    arena = 4 * (program.n_floats - program.n_owned)
    assert arena - 64 * len(program.buffers) <= counted <= arena


def test_a_mapped_file_is_held_a_pool_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(xpnet.data.feed, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(xpnet.data.feed, "POOL_BYTES", 4000)
    np.save(tmp_path / "X.npy", np.zeros((5000, 6), np.uint8))
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    dataset = xpnet.Dataset(mapped.T, np.zeros(5000))
    network = xpnet.Network([6, 1], loss="squared_error", backend=xpnet.select_backend("cpu"))
    plan = sizes(memory_plan(network, dataset, xpnet.SGD(), batch_size=10).items)
    block = 100  # of 6 + 4 bytes
    assert plan["training X, to gather from"] == 4 * block * 6 and plan["order"] == 4 * block * 8
    assert plan["step X in uint8"] == 10 * 6 and "training X" not in plan


def test_batch_norm_and_early_stopping_are_counted(dataset):
    network = xpnet.Network([6, 7, 3], normalization="batch", backend=xpnet.select_backend("cpu"))
    plan = sizes(memory_plan(network, dataset, xpnet.Adam(), batch_size=20, early_stopping=True).items)
    assert plan["theta"] == plan["last good theta"] == plan["best theta"] == network.owned.nbytes
    assert "best theta" not in sizes(memory_plan(network, dataset, xpnet.Adam(), batch_size=20).items)


def test_on_a_gpu_all_data_are_uploaded(fake_gpu, dataset):
    plan = memory_plan(xpnet.Network([6, 3], backend=fake_gpu), dataset, xpnet.SGD(), validation=dataset).items
    on_device = {item.name: item.nbytes for item in plan if item.place == "device"}
    for part in ("training", "validation"):
        assert on_device[f"{part} X, to gather from"] == 6 * 100 * 4
        assert on_device[f"{part} Y, to gather from"] == 3 * 100 * 4
    assert "step mask" not in on_device


class OutOfMemoryError(MemoryError):
    """As CuPy's."""


class Filling(xpnet.Callback):
    def __init__(self, error):
        self._error = error

    def on_train_begin(self, network, epochs, n_steps):
        raise self._error


def test_what_a_gpu_has_no_room_for_is_refused(fake_gpu, dataset, monkeypatch):
    network = xpnet.Network([6, 3], backend=fake_gpu)
    plan = sizes(memory_plan(network, dataset, xpnet.SGD(), validation=dataset).items)
    assert plan["cuBLAS's workspace"] == 32 << 20 and plan["CUDA's context"] == 512 << 20
    assert plan["uploads, page-locked"] == 1024  # of 100 indices
    monkeypatch.setitem(fakecupy.memory, "free", 1 << 20)
    parts = "1.000 MiB are free", "most of it for cuBLAS's workspace (32.000)", "batch_size below 32"
    with refusal(xpnet.DeviceFull, *parts):
        xpnet.train(network, dataset, xpnet.SGD(), epochs=1)
    monkeypatch.setitem(fakecupy.memory, "free", 1 << 40)
    parts = "memory is full (Out of memory allocating 512 bytes)", "the run needs 32.0", "device='cpu'"
    with refusal(xpnet.DeviceFull, *parts):
        callbacks = [Filling(OutOfMemoryError("Out of memory allocating 512 bytes."))]
        xpnet.train(network, dataset, xpnet.SGD(), epochs=1, callbacks=callbacks)
    with pytest.raises(MemoryError, match="of the host"):
        xpnet.train(network, dataset, xpnet.SGD(), epochs=1, callbacks=[Filling(MemoryError("of the host"))])


def test_describe_plan_lists_all_and_sums_up(dataset):
    network = xpnet.Network([6, 7, 3], backend=xpnet.select_backend("cpu"))
    plan = memory_plan(network, dataset, xpnet.SGD(), batch_size=20).items
    *lines, last = describe_plan(plan).split("\n")
    assert [line.split("  ")[0] for line in lines] == [item.name for item in plan]
    assert last.split() == ["sum", f"{sum(item.nbytes for item in plan) / 2**20:,.3f}", "MiB"]
