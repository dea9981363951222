"""How samples reach an engine: whole, or a mapped file in blocks, and that a file larger than memory trains."""

from __future__ import annotations

import os
import subprocess
import sys

import fakecupy
import numpy as np
import pytest
from refusals import says

import xpnet
from xpnet import Dataset
from xpnet.data import feed
from xpnet.data.feed import Blocks, Whole, Windows, feed_of

N, N_FEATURES = 1003, 5


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of about 20 rows, 4 of them held at a time."""
    monkeypatch.setattr(feed, "BLOCK_BYTES", 20 * 32)
    monkeypatch.setattr(feed, "POOL_BYTES", 4 * 20 * 32)


def mapped(tmp_path, dtype="float32", scale=None, weighted=False):
    """(Dataset in a file, the same in memory); every row is told by its first two features."""
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 200, size=(N, N_FEATURES)).astype(dtype)
    rows[:, 0], rows[:, 1] = np.arange(N) % 100, np.arange(N) // 100
    path = tmp_path / "rows.npy"
    np.save(path, rows)
    labels, weights = rng.integers(3, size=N), rng.random(N) if weighted else None
    in_file = np.load(path, mmap_mode="r")
    return tuple(Dataset.from_labels(X.T, labels, weights=weights, scale=scale) for X in (in_file, rows))


def seen(feed, backend, rng):
    """What an epoch gathers, part by part: lists of {name: rows on the host}."""
    return [
        {name: backend.to_host(rows)[order] for name, (rows, _) in feed.sources.items()} for order in feed.parts(rng)
    ]


@pytest.mark.pairwise(dtype=["uint8", "float32", "float64", "int16"], weighted=[False, True])
def test_an_epoch_sees_every_sample_once_with_its_own_target(backend, tmp_path, small_blocks, dtype, weighted):
    in_file, in_memory = mapped(tmp_path, dtype, weighted=weighted)
    blocks, whole = feed_of(in_file, backend, 8), feed_of(in_memory, backend, 8)
    assert isinstance(blocks, Blocks) and isinstance(whole, Whole)
    parts = seen(blocks, backend, np.random.default_rng(1))
    assert len(parts) > 5
    together = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    (expected,) = seen(whole, backend, None)
    number = (together["X"][:, 0] + 100.0 * together["X"][:, 1]).astype(int)
    assert sorted(number) == list(range(N)) and (number != np.arange(N)).mean() > 0.9
    for name, rows in expected.items():
        assert together[name].dtype == rows.dtype
        np.testing.assert_array_equal(together[name], rows[number])
    assert blocks.sources["X"][1] == whole.sources["X"][1] == in_memory.scale


def test_blocks_are_bounded_and_mix_places_far_apart(tmp_path, small_blocks):
    backend = xpnet.select_backend("cpu", "float32")
    blocks = Blocks(mapped(tmp_path)[0], backend, 8)
    assert blocks.block % 8 == 0
    assert len(blocks.sources["X"][0]) <= 4 * blocks.block
    parts = seen(blocks, backend, np.random.default_rng(0))
    numbers = [(part["X"][:, 0] + 100 * part["X"][:, 1]).astype(int) for part in parts]
    assert [len(part) % 8 != 0 for part in numbers].count(True) <= 1  # the file's short end, wherever it falls
    assert np.median([np.ptp(part) for part in numbers]) > N / 3  # of the file's length, in one pool
    assert (abs(np.diff(numbers[0])) > 1).mean() > 0.9  # and within it no two neighbours stay together


def test_in_the_file_s_own_order_training_is_bit_equal_to_training_in_memory(backend, tmp_path, small_blocks):
    results = []
    for dataset in mapped(tmp_path, "uint8", weighted=True):
        network = xpnet.Network([N_FEATURES, 7, 3], backend=backend)
        history = xpnet.train(network, dataset, xpnet.SGD(0.1), epochs=2, batch_size=8, shuffle=False)
        results.append((backend.to_host(network.parameters.flat), history[-1]))
    assert np.array_equal(results[0][0], results[1][0])
    assert results[0][1]["steps"] == results[1][1]["steps"] == -(-N // 8)
    assert results[0][1]["train_loss"] == pytest.approx(results[1][1]["train_loss"], rel=1e-12)


def test_shuffled_training_repeats_with_its_seed_and_learns(float64_cpu, tmp_path, small_blocks):
    weights, losses = [], []
    for seed in (0, 0, 1):
        network = xpnet.Network([N_FEATURES, 7, 3], backend=float64_cpu)
        dataset = mapped(tmp_path, "uint8")[0]
        history = xpnet.train(network, dataset, xpnet.SGD(0.1), epochs=2, batch_size=8, seed=seed, validation=dataset)
        weights.append(network.parameters.flat.copy())
        losses.append(history.column("val_loss"))
    assert np.array_equal(weights[0], weights[1]) and not np.array_equal(weights[0], weights[2])
    assert losses[0][-1] < losses[0][0]


def test_evaluation_of_a_mapped_file_equals_that_in_memory(backend, tmp_path, small_blocks):
    network = xpnet.Network([N_FEATURES, 7, 3], backend=backend)
    in_file, in_memory = (xpnet.evaluate(network, dataset) for dataset in mapped(tmp_path, "int16", weighted=True))
    assert in_file.keys() == in_memory.keys() and in_file["correct"] == in_memory["correct"]
    assert in_file["loss"] == pytest.approx(in_memory["loss"], rel=1e-6)


def test_uploads_are_counted(fake_gpu, tmp_path, small_blocks):
    in_file, _ = mapped(tmp_path, "uint8")
    blocks = Blocks(in_file, fake_gpu, 8)
    list(blocks.parts(None))
    assert blocks.bytes_uploaded == N * (N_FEATURES + 3 * 4)
    network = xpnet.Network([N_FEATURES, 3], backend=fake_gpu)
    history = xpnet.train(network, in_file, xpnet.SGD(0.1), epochs=1, batch_size=8)
    assert history[0]["bytes_uploaded"] >= blocks.bytes_uploaded <= history[1]["bytes_uploaded"]


def test_accumulated_updates_do_not_end_with_a_pool(float64_cpu, tmp_path, small_blocks):
    """A block holds whole updates, so that those over a mapped file are those over the data in memory."""
    in_file, in_memory = mapped(tmp_path, "uint8", weighted=True)
    assert feed_of(in_file, float64_cpu, 24)._n_held * feed_of(in_file, float64_cpu, 24).block < N
    networks = [xpnet.Network([N_FEATURES, 4, 3], backend=float64_cpu, seed=1) for _ in range(2)]
    xpnet.train(networks[0], in_file, xpnet.Adam(), epochs=2, batch_size=8, accumulate=3, shuffle=False)
    xpnet.train(networks[1], in_memory, xpnet.Adam(), epochs=2, batch_size=24, shuffle=False)
    np.testing.assert_allclose(*(network.parameters.flat for network in networks), rtol=1e-10, atol=1e-12)


def test_a_rate_is_searched_on_a_mapped_file(float64_cpu, tmp_path, small_blocks):
    in_file, _ = mapped(tmp_path, "uint8")
    network = xpnet.Network([N_FEATURES, 3], backend=float64_cpu)
    found = xpnet.find_lr(network, in_file, xpnet.SGD(), lr_end=0.01, n_steps=200, batch_size=16)
    assert len(found.losses) == 200 and np.isfinite(found.losses).all()
    assert found.suggestion is None  # the labels are random, so the loss only scatters


@pytest.mark.parametrize("skip", [0, 520])
def test_data_beyond_a_gpu_s_memory_come_in_windows_of_the_same_order(fake_gpu, tmp_path, monkeypatch, skip):
    monkeypatch.setattr(feed, "POOL_BYTES", 100 * 32)
    monkeypatch.setattr(feed, "BATCH", 64)
    _, in_memory = mapped(tmp_path, "uint8", weighted=True)
    whole = feed_of(in_memory, fake_gpu, 8)
    monkeypatch.setitem(fakecupy.memory, "free", N * (N_FEATURES + 16) + 99)
    assert isinstance(feed_of(in_memory, fake_gpu, 8, beside=99), Whole)
    windows = feed_of(in_memory, fake_gpu, 8, beside=100)
    assert isinstance(windows, Windows)
    for batch in (1, 64):
        found = {name: [] for name in whole.sources}
        for order in windows.parts(np.random.default_rng(1), skip, batch):
            assert len(order) % batch == 0 or len(order) % 64 == (N - skip) % 64
            for name, (rows, _) in windows.sources.items():
                found[name].append(fake_gpu.to_host(rows)[order])
        (order,) = whole.parts(np.random.default_rng(1), skip)
        assert len(found["X"]) > 3
        for name, (rows, scale) in whole.sources.items():
            np.testing.assert_array_equal(np.concatenate(found[name]), fake_gpu.to_host(rows)[order])
            assert windows.sources[name][1] == scale
    assert windows.bytes_uploaded == 2 * (N - skip) * (N_FEATURES + 16)


# What a mapped Dataset is, and refuses


def test_a_mapped_dataset_copies_nothing_and_says_what_it_is(tmp_path):
    in_file, in_memory = mapped(tmp_path, "int16")
    assert in_file.is_mapped and not in_memory.is_mapped
    assert isinstance(in_file.samples.base, np.memmap) or np.shares_memory(in_file.samples, in_file.X)
    assert in_file.samples.dtype == np.int16 and not in_file.samples.flags.writeable
    assert "mapped" in repr(in_file) and "mapped" not in repr(in_memory)
    tail = in_file.subset(slice(900, None))
    assert tail.is_mapped and tail.n_samples == 103 and np.shares_memory(tail.samples, in_file.samples)
    assert not in_file.subset([5, 3]).is_mapped
    assert not Dataset(np.asarray(np.load(tmp_path / "rows.npy", mmap_mode="r")).T, in_memory.Y).is_mapped
    assert next(in_file.batches(4))[0].dtype == np.float32


@pytest.mark.parametrize(
    "copy", [lambda rows: rows.astype("f8"), lambda rows: rows.copy(), lambda rows: rows[[3, 1, 2]]]
)
def test_a_copy_of_a_map_is_no_map(tmp_path, copy):
    mapped(tmp_path)
    rows = copy(np.load(tmp_path / "rows.npy", mmap_mode="r"))
    assert not Dataset(rows.T, np.zeros(len(rows))).is_mapped


@pytest.mark.parametrize("in_file", [False, True], ids=["in memory", "mapped"])
def test_numbers_beyond_float32_are_refused_before_they_are_infinite(tmp_path, in_file):
    rows = np.ones((50, 2))
    rows[7, 1] = -1e300
    np.save(tmp_path / "rows.npy", rows)
    rows = np.load(tmp_path / "rows.npy", mmap_mode="r" if in_file else None)
    network = xpnet.Network([2, 1], loss="squared_error", backend=xpnet.select_backend("cpu", "float32"))
    for X, Y, name in ((rows.T, np.zeros(50), "X"), (np.ones((2, 50)), np.full(50, 1e300), "Y")):
        with pytest.raises(ValueError) as refusal:
            xpnet.train(network, Dataset(X, Y), xpnet.SGD(), epochs=1, batch_size=8)
        says(refusal, f"{name} holds a number of size 1e+300", "too large for float32", "dtype='float64'")


def test_refusals(float64_cpu, tmp_path):
    in_file, in_memory = mapped(tmp_path)
    with pytest.raises(ValueError) as refusal:
        in_file.split(0.1)
    says(refusal, "split would copy", "out of a mapped file", "dataset.subset(slice(0, n))")
    for datasets in ((in_file,), (in_memory, in_file)):
        with pytest.raises(ValueError) as refusal:
            xpnet.standardize(*datasets)
        says(refusal, "standardize would hold", "of a mapped file in memory", "write a standardized file")
    with pytest.raises(ValueError) as refusal:
        network = xpnet.Network([N_FEATURES, 3], backend=float64_cpu)
        xpnet.train(network, in_file, xpnet.SGD(), epochs=1, batch_size="all")
    says(refusal, "batch_size is 'all'", "mapped file", "batch_size=128")
    with pytest.raises(ValueError) as refusal:
        Dataset(np.load(tmp_path / "rows.npy", mmap_mode="r"), np.zeros(N_FEATURES))
    says(refusal, "X is a memmap", "does not hold samples as rows", "np.save(path, np.ascontiguousarray(X.T))")
    rows = np.load(tmp_path / "rows.npy")
    rows[17, 2] = np.nan
    np.save(tmp_path / "nan.npy", rows)
    with pytest.raises(ValueError) as refusal:
        Dataset(np.load(tmp_path / "nan.npy", mmap_mode="r").T, np.zeros(N))
    says(refusal, "feature 2, sample 17")


# Larger than memory

LIMITED = """
import resource, sys
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
import numpy as np
import xpnet
import xpnet.data.feed
xpnet.data.feed.POOL_BYTES = 16 << 20  # so that the file can be smaller too
try:
    np.load(sys.argv[1])
except MemoryError:
    print("does not fit")
rows = np.load(sys.argv[1], mmap_mode="r")
dataset = xpnet.Dataset.from_labels(rows.T, np.arange(len(rows)) % 10)
network = xpnet.Network([784, 16, 10], backend=xpnet.select_backend("cpu"))
history = xpnet.train(network, dataset, xpnet.SGD(0.01), epochs=1, batch_size=512)
print(history[-1]["steps"], history[-1]["train_loss"] < history[0]["train_loss"])
"""


@pytest.mark.full
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_DATA limits memory on Linux alone")
def test_a_file_four_times_the_memory_limit_trains(tmp_path):
    limit = 120 << 20  # `ulimit -d`: private memory, not maps of files
    n_samples = 4 * limit // (784 * 4) + 1
    rows = np.lib.format.open_memmap(tmp_path / "big.npy", mode="w+", dtype=np.float32, shape=(n_samples, 784))
    for label in range(10):
        rows[label::10, label] = 1.0  # written to all pages of the file, and something to learn
    rows.flush()
    assert (tmp_path / "big.npy").stat().st_size >= 4 * limit
    # With one thread, OpenBLAS takes less for itself.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", LIMITED, tmp_path / "big.npy", str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["does not fit", f"{-(-n_samples // 512)} True"]
