"""What a GPU computes, waits for and holds: on a device, or with real CuPy on the executing CUDA."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace

import executing_cuda
import hostcuda
import numpy as np
import pytest
from features import FEATURES, STRUCTURES, network_of, run_steps

import xpnet
from xpnet import backend as backends
from xpnet import select_backend
from xpnet.engines.choice import make_engine
from xpnet.engines.cuda.engine import Cuda, CudaEpochs
from xpnet.engines.cuda.launching import compiled
from xpnet.engines.replay import Replay

DRIVER = executing_cuda.active()
TOLERANCES = {"float32": 1e-5, "float64": 1e-12}  # of the vector's maximum, a step
ORDERS = (1, 1_000_003)  # of blocks and threads: as numbered, shuffled


def switched(**settings):
    """The executing CUDA under other switches; a device has none."""
    return nullcontext() if DRIVER is None else DRIVER.switched(**settings)


def agree(expected, found, tolerance):
    for one, other in zip(expected, found, strict=True):
        scale = max(np.abs(one).max(initial=0), 1e-3)
        assert one.shape == other.shape and np.abs(one.astype(float) - other).max(initial=0) <= 3 * tolerance * scale


@pytest.mark.parametrize(("batch", "dtype"), [(8, "float32"), (300, "float64")])
@pytest.mark.parametrize("name", FEATURES)
def test_every_feature_equals_the_cpu_in_every_order(name, batch, dtype, gpu):
    """Three steps, the last of another length, by threads and by teams of them.

    Between two barriers no thread reads what another writes, so no order changes a bit.
    """
    gpu, n = replace(gpu, dtype=np.dtype(dtype)), batch * 5 // 2 + 1
    found = []
    for order in ORDERS:
        with switched(order=order, race=order == 1):
            found.append(run_steps(FEATURES[name], gpu, batch, n))
    agree(run_steps(FEATURES[name], select_backend("cpu", dtype), batch, n), found[0], TOLERANCES[dtype])
    for other in found[1:]:
        assert [array.tobytes() for array in found[0]] == [array.tobytes() for array in other]


def test_samples_are_read_by_vectors_and_to_the_same_bits(gpu, driver):
    """Of 8 numbers two vectors each; an array that begins between two vectors is read number by number."""
    X, found, vectors = np.random.default_rng(0).standard_normal((64, 8)), [], []
    for shift in (0, 1):
        memory = gpu.xp.empty(64 * 8 + 1, np.float32)
        memory[shift : shift + 512] = gpu.to_device(X).reshape(-1)
        network = xpnet.Network([8, 5, 2], loss="squared_error", backend=gpu, seed=0)
        data = {"X": (memory[shift : shift + 512].reshape(64, 8), None), "Y": (gpu.to_device(X[:, :2]), None)}
        engine = make_engine(network.training_program(16, xpnet.SGD(0.1), False), gpu, network.owned, data)
        before = driver.vectors_read
        with driver.switched(race=1):
            found.append(engine.run(np.arange(64), np.full((4, 1), 0.1)).tobytes())
        vectors.append(driver.vectors_read - before)
    assert found[0] == found[1] and vectors == [64 * 2, 0]


@pytest.mark.in_turn(name=STRUCTURES, dtype=list(TOLERANCES))
def test_calls_one_by_one_equal_the_cpu(name, dtype, gpu):
    pair = select_backend("cpu", dtype), replace(gpu, dtype=np.dtype(dtype))
    agree(*(run_steps(FEATURES[name], on, 8, 21, make=Replay) for on in pair), TOLERANCES[dtype])


@pytest.mark.parametrize(
    ("normalization", "options"),
    [(None, {"clip_norm": 0.1}), ("batch", {"l1": 1e-3}), ("layer", {"max_norm": 0.5, "ema": 0.9})],
    ids=["plain", "batch", "layer"],
)
def test_sums_of_teams_have_no_race(normalization, options, gpu):
    """Layers and batches beyond the length from which on a sum is that of many threads, and a long vector's norm."""
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((300, 3)), np.eye(260)[rng.integers(260, size=300)]
    weights = []
    for on in (select_backend("cpu", "float32"), gpu):
        network = xpnet.Network([3, 260, 260], backend=on, seed=2, normalization=normalization, dropout=0.3)
        data = {"X": (on.to_device(X), None), "Y": (on.to_device(Y), None)}
        optimizer = xpnet.SGD(0.1, **options)
        engine = make_engine(network.training_program(300, optimizer, False), on, network.owned, data)
        optimizer.attach(network, engine)
        with switched(race=1):
            engine.run(np.arange(300), optimizer.slot_rows(1))
        weights.append(on.to_host(network.owned))
    agree([weights[0]], [weights[1]], TOLERANCES["float32"])


def test_float32_results_below_the_normal_numbers_are_0(gpu):
    """CuPy compiles all with -ftz=true, behind xpnet's own options."""
    tiny = gpu.to_device(np.array([1e-39, -1e-39, 1e-37], np.float32))
    assert gpu.to_host(gpu.xp.multiply(tiny, 0.5)).tolist() == [0, 0, np.float32(1e-37) * np.float32(0.5)]


def test_an_array_of_the_host_may_be_changed_once_it_is_uploaded(gpu, monkeypatch):
    monkeypatch.setattr(backends, "BLOCK_BYTES", 256)
    for shape in ((4, 3), (200, 3)):  # at once, and block by block
        host = np.ones(shape, np.float32)
        uploaded = gpu.to_device(host)
        host[...] = np.nan
        assert (gpu.to_host(uploaded) == 1).all()


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_large_array_is_uploaded_in_blocks_and_page_locks_nothing(transposed, dtype, backend, request, monkeypatch):
    monkeypatch.setattr(backends, "BLOCK_BYTES", 1000)
    host = np.arange(1800, dtype=dtype).reshape(90, 20)
    host = host.T if transposed else host
    before = 0 if DRIVER is None else DRIVER.pinned_bytes
    found = backend.to_device(host)
    assert found.dtype == backend.dtype and found.flags.c_contiguous != transposed
    np.testing.assert_array_equal(backend.to_host(found), host)
    assert (0 if DRIVER is None else DRIVER.pinned_bytes) == before


def test_a_training_run_waits_for_results_and_for_the_check_of_its_epochs(gpu, driver, monkeypatch):
    """Once a call of the engine, to read its results, and once for the weights, which are finite or not.

    Where a callback that does more than watch looks, each epoch is run by itself.
    """
    rng = np.random.default_rng(0)
    dataset = xpnet.Dataset(rng.standard_normal((4, 64)), rng.standard_normal((2, 64)))
    network = xpnet.Network([4, 5, 2], loss="squared_error", backend=gpu, seed=0)
    runs = []
    for kind in (Cuda, CudaEpochs):
        monkeypatch.setattr(kind, "run", lambda *given, run=kind.run, kind=kind: runs.append(kind) or run(*given))
    before = driver.reads
    xpnet.train(network, dataset, xpnet.SGD(0.01), epochs=20, batch_size=8)
    n_calls = runs.count(CudaEpochs)
    assert 1 < n_calls < 10 and driver.reads - before == 2 * len(runs) and len(runs) < 20
    runs.clear()
    before = driver.reads
    for _ in xpnet.training.loop.epochs(network, dataset, xpnet.SGD(0.01), epochs=5, batch_size=8):
        pass
    assert CudaEpochs not in runs and len(runs) >= 5 and driver.reads - before == len(runs) + 5


class Watching(xpnet.Callback):
    """A callback for which each epoch's weights are put back."""

    only_watches = True


@pytest.mark.parametrize("watched", [False, True])
def test_epochs_by_one_call_are_those_of_one_after_the_other(watched, gpu):
    """With short last steps, updates of several steps, dropout's keys and an optimizer's state."""
    rng = np.random.default_rng(0)
    dataset = xpnet.Dataset(rng.standard_normal((4, 61)), rng.standard_normal((2, 61)))
    found = []
    for is_alone in (False, True):
        network = xpnet.Network([4, 5, 2], loss="squared_error", backend=gpu, seed=0, dropout=0.2)
        options = {"epochs": 9, "batch_size": 8, "accumulate": 3, "is_alone": is_alone}
        options |= {"callbacks": [Watching()]} if watched else {}
        records = list(xpnet.training.loop.epochs(network, dataset, xpnet.Adam(0.01), **options))
        found.append((gpu.to_host(network.owned).tobytes(), [record["train_loss"] for record in records]))
    assert found[0] == found[1]


def test_a_run_launches_what_is_counted_and_allocates_no_more_for_more_steps(gpu, driver):
    """784-100-200-10 at batch 32: 8 products, 7 kernels and a gather a step; one more gather takes the last results."""
    network = xpnet.Network([784, 100, 200, 10], backend=gpu, seed=0)
    rng = np.random.default_rng(0)
    data = {
        "X": (gpu.to_device(rng.random((64, 784))), None),
        "Y": (gpu.to_device(np.eye(10)[np.arange(64) % 10]), None),
    }
    engine = make_engine(network.training_program(32, xpnet.SGD(0.01), False), gpu, network.owned, data)
    counted = []
    for steps in (1, 10, 20):
        before = driver.launches, driver.products, driver.uploads, driver.reads, driver.allocations
        engine.run(np.arange(32 * steps) % 64, np.full((steps, 1), 0.1))
        after = driver.launches, driver.products, driver.uploads, driver.reads, driver.allocations
        counted.append(np.subtract(after, before).tolist())
    assert np.subtract(counted[2], counted[1])[:4].tolist() == [80, 80, 0, 0]
    assert counted[1][0] == 81 and counted[1][3] == 1 and counted[2][4] == 0


class Recorded:
    """CuPy's bindings of NVRTC, and the options that it was given."""

    def __init__(self, bindings):
        self._bindings, self.options = bindings, []

    def __getattr__(self, name):
        return getattr(self._bindings, name)

    def compileProgram(self, program, options):
        self.options.append(options)
        self._bindings.compileProgram(program, options)


def test_nvrtc_is_given_the_options_that_texts_are_tested_with(gpu, monkeypatch):
    compiler = gpu.xp.cuda.compiler
    recorded = Recorded(compiler.nvrtc)
    monkeypatch.setattr(compiler, "nvrtc", recorded)
    monkeypatch.setenv("CUPY_CACHE_IN_MEMORY", "1")  # so that it compiles, whatever is on the disk
    compiled(gpu.xp, 'extern "C" __global__ void nothing() {}', Cuda.OPTIONS).get_function("nothing")
    others = re.compile(r"-I.*|-arch=sm_\d+")
    assert sorted(o for o in recorded.options[-1] if not others.fullmatch(o)) == sorted(hostcuda.NVRTC_OPTIONS)


def test_a_search_holds_the_modules_of_its_network_alone(gpu, driver):
    """Programs that differ are texts that differ: an engine's module goes with it."""
    run_steps({"hidden": (7, 2)}, gpu, 8, 16)
    before = driver.modules
    for width in (3, 4, 5, 6):
        run_steps({"hidden": (width, 2)}, gpu, 8, 16)
    assert driver.modules - before <= 1


def test_cupy_tf32_is_said_and_changes_no_step(gpu, monkeypatch):
    network, wanted = network_of({}, gpu), run_steps({}, gpu, 8, 21)
    assert network.backend is gpu and "CUPY_TF32" not in select_backend("cuda").reason
    monkeypatch.setenv("CUPY_TF32", "1")
    assert "CUPY_TF32 is set" in select_backend("cuda").reason
    assert "CUPY_TF32" not in select_backend("cuda", "float64").reason
    found = run_steps({}, gpu, 8, 21)
    assert [array.tobytes() for array in found] == [array.tobytes() for array in wanted]


def test_the_command_line_trains_there(gpu, tmp_path):
    command = [sys.executable, "-m", "xpnet", "train", "--device", "cuda", "--epochs", "1", "--layers", "784,20,10"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
