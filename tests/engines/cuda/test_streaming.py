"""Data larger than a GPU's memory, sent while it computes: on a device, or with real CuPy on the executing CUDA."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refusal

import xpnet
from xpnet.data import feed
from xpnet.data.feed import Blocks, Whole, Windows, feed_of
from xpnet.data.staging import Staging
from xpnet.training.memory_plan import memory_plan

N, N_FEATURES = 4001, 40


def samples(dtype="float32"):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 255, (N_FEATURES, N)).astype(dtype)
    return xpnet.Dataset(X, rng.standard_normal((2, N)), rng.random(N))


def network_on(backend):
    return xpnet.Network([N_FEATURES, 5, 2], loss="squared_error", backend=backend, seed=0)


def trained(backend, dataset, **options):
    """The weights after a training, its losses, and the bytes sent in its last epoch."""
    network = network_on(backend)
    history = xpnet.train(network, dataset, xpnet.SGD(1e-6), epochs=2, batch_size=8, **options)
    losses = [[record["train_loss"], record.get("val_loss")] for record in history]
    return backend.to_host(network.owned).tobytes(), losses, history[-1]["bytes_uploaded"]


@pytest.fixture
def small_windows(monkeypatch):
    """Windows of as many samples as an evaluation takes at a time, the least that they have."""
    monkeypatch.setattr(feed, "POOL_BYTES", 60_000)
    monkeypatch.setattr(feed, "BLOCK_BYTES", 30_000)


def total_of_windows(gpu, monkeypatch, left_out=""):
    """The sums of windows, each added up by launches that nobody waits for before all windows are sent."""
    staging = Staging(gpu, {"X": (4, np.dtype("float32"))}, 8)
    if left_out == "steps wait for their copy":
        monkeypatch.setattr(Staging, "_ready", lambda self, half, order: order + half * self._capacity)
    if left_out == "a copy waits for the steps that read its half":
        staging._stream = Left(staging._stream, "wait_event")
    if left_out == "the host waits for a copy":
        staging._copied = [Left(event, "synchronize") for event in staging._copied]
    rows = np.arange(6 * 8 * 4, dtype=np.float32).reshape(6, 8, 4)

    def windows():
        for block in rows:
            yield 8, lambda out, block=block: np.copyto(out["X"], block), np.arange(8)

    totals = gpu.xp.zeros(6, np.float32)
    for i, order in enumerate(staging.ahead(windows())):
        gpu.xp.sum(staging.arrays["X"][order[0] : order[-1] + 1], out=totals[i])
    return gpu.to_host(totals).tolist(), rows.sum(axis=(1, 2)).tolist()


class Left:
    """A stream or an event that leaves out one thing."""

    def __init__(self, kept, name):
        self._kept, self._name = kept, name

    def __getattr__(self, name):
        return (lambda *_: None) if name == self._name else getattr(self._kept, name)

    @property
    def ptr(self):
        return self._kept.ptr


@pytest.mark.parametrize("others_first", [0, 1])
def test_windows_arrive_whatever_the_streams_do_meanwhile(others_first, gpu, driver, monkeypatch):
    with driver.switched(others_first=others_first):
        found, expected = total_of_windows(gpu, monkeypatch)
    assert found == expected


@pytest.mark.parametrize(
    "left_out",
    ["steps wait for their copy", "a copy waits for the steps that read its half", "the host waits for a copy"],
)
def test_each_event_is_needed(left_out, gpu, driver, monkeypatch):
    """Where it is missing, one order of the streams at least gives other sums."""
    are_right = []
    for others_first in (0, 1):
        with monkeypatch.context() as patch, driver.switched(others_first=others_first):
            found, expected = total_of_windows(gpu, patch, left_out)
        are_right.append(found == expected)
    assert not all(are_right)


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_what_does_not_fit_trains_to_the_same_bits(dtype, gpu, driver, small_windows):
    """The memory is that of the plan with whole data, less a byte; the validation fits beside the windows or not."""
    dataset = samples(dtype)
    validation = dataset.subset(slice(0, 2000))
    weights, losses, _ = trained(gpu, dataset, validation=validation)
    gpu.xp.get_default_memory_pool().free_all_blocks()
    network = network_on(gpu)
    planned = memory_plan(network, dataset, xpnet.SGD(1e-6), batch_size=8, validation=validation, early_stopping=True)
    free, total = gpu.xp.cuda.runtime.memGetInfo()
    pinned = driver.pinned_bytes
    row = N_FEATURES * dataset.samples.itemsize + 3 * 4
    for others_first in (0, 1):
        with driver.switched(others_first=others_first, memory=total - free + planned.needed - 1):
            found = trained(gpu, dataset, validation=validation)
            gpu.xp.get_default_memory_pool().free_all_blocks()
        assert found[:2] == (weights, losses)
        assert found[2] >= N * row  # of the training, sent again in each epoch
    gpu.xp.get_default_pinned_memory_pool().free_all_blocks()
    assert driver.pinned_bytes <= pinned  # what was page-locked is given back


def test_a_plan_says_which_data_are_sent_in_windows(gpu, driver, small_windows):
    network, dataset = network_on(gpu), samples()
    gpu.xp.get_default_memory_pool().free_all_blocks()
    whole = memory_plan(network, dataset, xpnet.SGD(), batch_size=8)
    free, total = gpu.xp.cuda.runtime.memGetInfo()
    names = {item.name: item.nbytes for item in whole.items}
    assert names["training X, to gather from"] == N * N_FEATURES * 4 and "training, page-locked" not in names
    with driver.switched(memory=total - free + whole.needed - 1):
        items = {item.name: item for item in memory_plan(network, dataset, xpnet.SGD(), batch_size=8).items}
        chosen = feed_of(dataset, gpu, 8, beside=whole.beside[0])
    assert isinstance(chosen, Windows) and isinstance(feed_of(dataset, gpu, 8), Whole)
    window = 1024
    assert items["training X, to gather from"].nbytes == 2 * window * N_FEATURES * 4
    assert items["training, page-locked"].nbytes == 2 * window * (N_FEATURES + 3) * 4
    assert items["training, page-locked"].place == "host" and "twice" in items["training X, to gather from"].note


def test_a_mapped_file_is_sent_while_the_steps_before_run(gpu, driver, small_windows, tmp_path):
    dataset = samples("uint8")
    np.save(tmp_path / "rows.npy", dataset.samples)
    rows = np.load(tmp_path / "rows.npy", mmap_mode="r")
    mapped = xpnet.Dataset(rows.T, dataset.Y, dataset.weights)
    blocks = feed_of(mapped, gpu, 8)
    assert isinstance(blocks, Blocks) and len(blocks.sources["X"][0]) < 2.2 * 60_000 / (N_FEATURES + 12)
    expected = trained(gpu, dataset, shuffle=False)
    for others_first in (0, 1):
        with driver.switched(others_first=others_first):
            assert trained(gpu, mapped, shuffle=False)[0] == expected[0]


def test_a_batch_that_does_not_fit_is_refused_with_what_needs_the_memory(gpu, driver, monkeypatch):
    network, dataset = network_on(gpu), samples()
    gpu.xp.get_default_memory_pool().free_all_blocks()
    free, total = gpu.xp.cuda.runtime.memGetInfo()
    parts = (
        "MiB are free, most of it for cuBLAS's workspace (32.000)",
        "training X, to gather from",
        "batch_size below 4001",
    )
    with driver.switched(memory=total - free + (33 << 20)), refusal(xpnet.DeviceFull, *parts):
        xpnet.train(network, dataset, xpnet.SGD(), epochs=1, batch_size="all")
    monkeypatch.setattr(type(gpu), "free_memory", lambda self: 1 << 40)  # other processes took it meanwhile
    parts = "Out of memory allocating", "the run needs", "device='cpu'"
    with driver.switched(memory=total - free + 100_000), refusal(xpnet.DeviceFull, *parts):
        xpnet.train(network, dataset, xpnet.SGD(), epochs=1, batch_size=64)
    xpnet.train(network, dataset, xpnet.SGD(1e-6), epochs=1, batch_size=64)  # and now there is room
