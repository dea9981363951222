"""Which device a run has if none was asked for: by counts of its Program, told, and the same for the same run."""

from __future__ import annotations

import sys

import fakecupy
import hostcuda
import numpy as np
import pytest
from refusals import refusal

import xpnet
from xpnet import Adam, Callback, Checkpoint, Dataset, Network
from xpnet.engines import placing
from xpnet.engines.placing import place
from xpnet.program.grouping import launches


@pytest.fixture
def gpu_here(monkeypatch):
    """A GPU, which "auto" may find."""
    monkeypatch.delenv("XPNET_DEVICE", raising=False)
    monkeypatch.setitem(sys.modules, "cupy", fakecupy)


def program_of(sizes, batch=32):
    return Network(sizes, device="cpu").training_program(batch, xpnet.SGD(), False)


def labelled(n=23):
    rng = np.random.default_rng(4)
    return Dataset.from_labels(rng.random((6, n)), rng.integers(0, 3, n), 3)


def test_work_decides(gpu_here):
    """784-100-200-10 at batch 32 has 19 million operations in 16 launches; 2-9-6-2 takes less time than one launch."""
    small, middle, large = program_of([2, 9, 6, 2], 4), program_of([784, 30, 10], 32), program_of([784, 100, 200, 10])
    assert [place(program, "float32").device for program in (small, middle, large)] == ["cpu", "cpu", "cuda"]
    assert place(small, "float32").reason.startswith("auto: 0.0")
    assert "take less time than a launch" in place(small, "float32").reason
    n_launches = len(launches(middle)) + 1
    assert f"faster from some {n_launches * 0.4:.2g} MFLOP in {n_launches} launches" in place(middle, "float32").reason
    flops = sum(call.flops for call in large.calls)
    reason = place(large, "float32").reason
    assert (
        reason
        == f"auto: {flops / 1e6:.3g} MFLOP a step in 16 launches (estimated to be faster); Fake GPU answered the probe"
    )
    assert place(large, "float64").dtype == np.float64


def test_a_gpu_must_repay_its_start(gpu_here):
    program = program_of([784, 100, 200, 10])
    gained = sum(call.flops for call in program.calls) / 1e11 - 16 * 4e-6
    least = int(2.0 / gained) + 1
    assert [place(program, "float32", n).device for n in (least - 1, least)] == ["cpu", "cuda"]
    assert f"{least - 1:,} steps of" in place(program, "float32", least - 1).reason


def test_what_needs_a_device_decides_first(gpu_here):
    small, large = program_of([2, 9, 6, 2]), program_of([784, 100, 200, 10])
    assert place(large, "float32", engine="compiled").device == "cpu"
    assert place(small, "float32", precision="tf32").device == "cuda"
    assert place(small, "float32", engine="cuda").device == "cuda"  # of a run to resume
    assert place(small, "float32", engine="replay").device == "cpu"
    assert "needs a GPU" in place(small, "float32", precision="tf32").reason


def test_a_gpu_is_probed_only_where_it_repays(gpu_here, monkeypatch):
    with fakecupy.counts.measure() as cost:
        place(program_of([2, 9, 6, 2]), "float32")
    assert not cost
    monkeypatch.setitem(sys.modules, "cupy", None)
    found = place(program_of([784, 100, 200, 10]), "float32")
    assert found.device == "cpu" and found.reason.startswith("CuPy is not installed")


def test_a_network_is_placed_by_a_step_of_32_samples(gpu_here, monkeypatch, tmp_path):
    assert [Network(sizes).backend.device for sizes in ([2, 9, 6, 2], [784, 100, 200, 10])] == ["cpu", "cuda"]
    network = Network([784, 100, 200, 10], device="auto", dtype="float64")
    assert (network.backend.device, network.backend.dtype, network.device_is_open) == ("cuda", np.float64, True)
    assert Network([2, 3], device="cuda:1").backend.number == 1 and not Network([2, 3], device="cpu").device_is_open
    monkeypatch.setenv("XPNET_DEVICE", "cpu")
    assert Network([784, 100, 200, 10]).backend.device == "cpu" and not Network([2, 3]).device_is_open
    network.save(tmp_path / "m")
    assert Network.load(tmp_path / "m").backend.device == "cpu"
    loaded = Network.load(tmp_path / "m", device="cuda", dtype="float64")
    assert (loaded.backend.device, loaded.backend.dtype) == ("cuda", np.float64)
    with refusal(ValueError, "backend is cpu", "device is 'cuda'", "a backend has both", "pass backend="):
        Network([2, 3], backend=xpnet.select_backend("cpu"), device="cuda")


@pytest.fixture
def long_runs(gpu_here, monkeypatch):
    """A launch costs nothing, and 20 steps repay a GPU."""
    if hostcuda.compiler() is None:
        pytest.skip("no C++ compiler to run generated CUDA text with")
    monkeypatch.setattr(placing, "LAUNCH_SECONDS", 0.0)
    monkeypatch.setattr(placing, "CPU_FLOPS", 1.0)
    program = Network([6, 7, 3], dropout=0.2, device="cpu").training_program(5, Adam(), False)
    flops = sum(call.flops for call in program.calls)
    monkeypatch.setattr(placing, "START_SECONDS", 20.0 * flops)


def test_train_moves_a_network_whose_device_is_open(long_runs):
    """With the optimizer's state: as if it had stayed on the CPU."""
    fixed, moving = (Network([6, 7, 3], dropout=0.2, **where) for where in ({"device": "cpu"}, {}))
    assert moving.backend.device == "cuda"
    optimizers, seen = (Adam(0.01), Adam(0.01)), []
    for epochs in (2, 6, 1):  # of 5 steps
        for network, optimizer in zip((fixed, moving), optimizers, strict=True):
            history = xpnet.train(network, labelled(), optimizer, epochs=epochs, batch_size=5, engine="replay")
        seen.append(moving.backend.device)
        assert {record["device"].partition(" ")[0] for record in history} == {seen[-1]}
        np.testing.assert_allclose(moving.backend.to_host(moving.owned), fixed.owned, rtol=0, atol=1e-5)
    assert seen == ["cpu", "cuda", "cpu"] and optimizers[0].steps_done == optimizers[1].steps_done == 45
    assert "10 steps of" in xpnet.train(moving, labelled(), Adam(), epochs=2, batch_size=5)[0]["device"]
    assert "device" not in xpnet.train(fixed, labelled(), Adam(), epochs=1)[0]


def test_a_network_takes_the_masks_of_its_steps_along(long_runs):
    moving, fixed = Network([6, 7, 3], dropout=0.5), Network([6, 7, 3], dropout=0.5, device="cpu")
    optimizers = Adam(0.01), Adam(0.01)
    for backend in (xpnet.select_backend("cuda"), xpnet.select_backend("cpu")):
        moving.move(backend)
        for network, optimizer in zip((moving, fixed), optimizers, strict=True):
            X, Y = (network.backend.to_device(array) for array in (labelled(5).X, labelled(5).Y))
            xpnet.step(network, optimizer, X, Y)
        optimizers = Adam(0.01), Adam(0.01)  # only `train` moves an optimizer
        keys = moving.backend.to_host(moving.step_keys)
        np.testing.assert_array_equal(keys, fixed.step_keys)
        np.testing.assert_allclose(moving.backend.to_host(moving.owned), fixed.owned, rtol=0, atol=1e-5)


def test_a_run_goes_on_where_it_was(long_runs, tmp_path):
    """Also for so few epochs that by themselves they would have the CPU."""

    class Stop(Callback):
        def on_chunk_end(self, epoch, step, loss):
            return "enough" if epoch == 2 else None

    options = {"batch_size": 5, "resume": None}
    first = Network([6, 7, 3])
    xpnet.train(first, labelled(), Adam(), **options | {"epochs": 60}, callbacks=[Checkpoint(tmp_path / "c"), Stop()])
    again = Network([6, 7, 3], device="auto")
    history = xpnet.train(again, labelled(), Adam(), **options | {"epochs": 3, "resume": tmp_path / "c"})
    assert again.backend.device == "cuda" and set(history.column("engine")) == {"cuda"}
    assert "needs a GPU" in again.backend.reason
