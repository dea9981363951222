"""All steps of a run by one cooperative launch: on a device, or with real CuPy on the executing CUDA."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import executing_cuda
import fakecupy
import numpy as np
import pytest
from features import FEATURES, STRUCTURES, asks_for_the_length, network_of, program_of, run_steps

import xpnet
from xpnet import select_backend
from xpnet.backend import Backend
from xpnet.engines.cuda import chunk
from xpnet.engines.cuda.engine import Cuda

DRIVER = executing_cuda.active()
LIMIT = 50e6  # operations of a step
FEW = ("dropout, batch normalization, Adam", "a long norm", "layer normalization", "one wide")


@pytest.fixture
def one_launch(monkeypatch):
    monkeypatch.setattr(Cuda, "ONE_LAUNCH_FLOPS", LIMIT)


def switched(**settings):
    return nullcontext() if DRIVER is None else DRIVER.switched(**settings)


def engine_of(network, batch, optimizer=None):
    data = {"X": (network.backend.to_device(np.ones((64, network.architecture.n_inputs))), None)}
    data["Y"] = (network.backend.to_device(np.ones((64, network.architecture.n_outputs))), None)
    program = network.training_program(batch, optimizer or xpnet.SGD(0.01), False)
    return Cuda(program, network.backend, network.owned, data)


@pytest.mark.parametrize(
    ("name", "batch"),
    [
        pytest.param(name, batch, marks=[pytest.mark.full] * (name not in quick))
        for batch, quick in ((8, STRUCTURES), (300, FEW))
        for name in FEATURES
    ],
)
def test_every_structure_equals_the_launches_of_its_own_in_every_order(name, batch, gpu, one_launch, monkeypatch):
    """To the bit where no product is cuBLAS's; no block reads what another writes before both have waited."""
    n, found = batch * 5 // 2 + 1, []
    for order in (1, -1):
        with switched(order=order, race=order == 1, multiprocessors=1):
            found.append(run_steps(FEATURES[name], gpu, batch, n))
    monkeypatch.setattr(Cuda, "ONE_LAUNCH_FLOPS", 0.0)
    expected = run_steps(FEATURES[name], gpu, batch, n)
    for one, other, third in zip(expected, *found, strict=True):
        scale = max(np.abs(one).max(initial=0), 1e-3)
        assert np.abs(one.astype(float) - other).max(initial=0) <= 3e-5 * scale
        assert other.tobytes() == third.tobytes()


def test_a_run_is_one_launch_and_a_shorter_last_step_another(gpu, driver, one_launch):
    network = xpnet.Network([20, 16, 10], backend=gpu, seed=0)
    engine = engine_of(network, 8)
    counted = []
    for n in (8 * 5, 8 * 20, 8 * 20 + 3):
        before = driver.launches, driver.products
        engine.run(np.arange(n) % 64, np.full((-(-n // 8), 1), 0.1))
        counted.append((driver.launches - before[0], driver.products - before[1]))
    assert counted == [(1, 0), (1, 0), (2, 0)]


def test_epochs_of_full_steps_are_one_launch_together(gpu, driver, one_launch):
    """Where nobody looks between them; else one each, and a copy of what each leaves."""
    n_launches = []
    for n, copies in ((64, False), (64, True), (60, False)):
        engine = engine_of(xpnet.Network([20, 16, 10], backend=gpu, seed=0), 8)
        orders = np.stack([np.random.default_rng(epoch).permutation(64)[:n] for epoch in range(3)])
        before = driver.launches
        ran = engine.epochs(n).run(orders, np.full((3, 8, 1), 0.1), copies)
        n_launches.append(driver.launches - before)
        alone = engine_of(xpnet.Network([20, 16, 10], backend=gpu, seed=0), 8)
        results = np.stack([alone.run(order, np.full((8, 1), 0.1)) for order in orders])
        np.testing.assert_array_equal(ran.results, results)
        np.testing.assert_array_equal(gpu.to_host(ran.owned)[-1], gpu.to_host(alone.memory.owned))
    assert n_launches == [1, 3, 6]


def test_the_grid_is_no_larger_than_what_is_resident(gpu, driver, one_launch):
    """The executing CUDA holds two blocks on each multiprocessor, and refuses more."""
    network = xpnet.Network([40, 64, 10], backend=gpu, seed=0)
    blocks = []
    for multiprocessors in (1, 132):
        with driver.switched(multiprocessors=multiprocessors):
            blocks.append(engine_of(network, 32)._chunk.n_blocks)
    assert blocks == [2, 13]  # of 256 elements of theta each


@pytest.mark.parametrize("left_out", range(10))
def test_each_barrier_is_needed(left_out, gpu, driver, one_launch, monkeypatch):
    """The race check proves both sides: none above with those that are there, and one without any of them."""
    printed = chunk.chunk_source

    def without(*given):
        source = printed(*given)
        parts = source.text.split("grid_barrier(arrived);")
        assert len(parts) == 1 + 10
        text = "grid_barrier(arrived);".join(parts[: left_out + 1])
        return replace(source, text=text + ";" + "grid_barrier(arrived);".join(parts[left_out + 1 :]))

    monkeypatch.setattr("xpnet.engines.cuda.engine.chunk_source", without)
    network = xpnet.Network([20, 18, 17], backend=gpu, seed=0)
    with driver.switched(race=1, multiprocessors=1):
        engine_of(network, 8).run(np.arange(24), np.full((3, 1), 0.1))
    assert "race in chunk" in driver.complaints()


def test_blocks_that_do_not_all_wait_are_a_complaint(gpu, driver):
    text = """
#ifndef grid_barrier
static __device__ void grid_barrier(unsigned* arrived) {}
#endif
extern "C" __global__ void apart(unsigned* arrived) { if (blockIdx.x) grid_barrier(arrived); }
"""
    function = gpu.xp.RawModule(code=text).get_function("apart")
    launch, arguments = gpu.xp.cuda.driver.launchCooperativeKernel, chunk.Arguments([gpu.zeros(2, np.uint32)])
    launch(function.kernel.ptr, 2, 1, 1, 4, 1, 1, 0, 0, arguments.address)
    assert "threads wait for ever" in driver.complaints()


def test_a_length_that_the_text_does_not_serve_is_launched_by_itself(gpu, one_launch):
    double = asks_for_the_length()
    found = []
    for on in (select_backend("cpu", "float32"), gpu):
        network = xpnet.Network([4, 5, 3], activation=double, backend=on, seed=0)
        data = {"X": (on.to_device(np.ones((11, 4))), None), "Y": (on.to_device(np.eye(3)[np.arange(11) % 3]), None)}
        engine = xpnet.engines.choice.make_engine(
            network.training_program(8, xpnet.SGD(0.1), False), on, network.owned, data
        )
        found.append(engine.run(np.arange(11), np.full((2, 1), 0.1)))
    np.testing.assert_allclose(*found, rtol=1e-5)


@pytest.mark.parametrize(
    ("optimizer", "options", "n_waits"),
    [(xpnet.SGD, {}, 14), (xpnet.Adam, {}, 13), (xpnet.Adam, {"dropout": 0.2, "normalization": "batch"}, 13)],
)
def test_the_blocks_wait_where_a_phase_needs_another(optimizer, options, n_waits):
    """Of 16, 17 and 17 launches a step: two gradients of one dZ need not wait for each other, nor what is single."""
    network = xpnet.Network([784, 100, 200, 10], backend=select_backend("cpu"), **options)
    program = network.training_program(32, optimizer(0.1), False)
    waits = chunk.waits_of(program, chunk.launches(program))
    assert sum(waits.launches) + waits.gather == n_waits


def test_without_cooperative_launches_a_step_is_its_launches(one_launch):
    """The fake GPU has none."""
    gpu = Backend("cupy", "cuda", fakecupy, np.dtype("float32"), "fake")
    network = network_of({}, gpu)
    assert Cuda(program_of({}, network, 4), gpu, network.owned)._chunk is None


def test_as_long_as_no_device_has_shown_a_gain_no_step_is_small_enough():
    assert Cuda.ONE_LAUNCH_FLOPS == 0
