"""Prebound launches with CuPy itself: on a device, or with real CuPy on the executing CUDA."""

from __future__ import annotations

import numpy as np
import pytest
from features import FEATURES, network_of, program_of, run_steps
from refusals import refusal

import xpnet
from xpnet import select_backend
from xpnet.engines.choice import check_deterministic, make_engine
from xpnet.engines.cuda.engine import Cuda
from xpnet.engines.cuda.launching import LAUNCH_PARAMETERS, PRODUCT_PARAMETERS, Prebound, takes

NAMES = ("optimizer SGD", "layer normalization", "dropout, batch normalization, Adam")
TF32_TOLERANCE = 8.1e-4  # of a vector's maximum, three steps


def test_cupy_has_the_bindings_that_are_bound(gpu):
    """By name and parameters; where it has others, its wrappers launch."""
    network = network_of({}, gpu)
    assert type(Cuda(program_of({}, network, 4), gpu, network.owned)._launcher) is Prebound
    cuda = gpu.xp.cuda
    assert takes(cuda.driver.launchKernel, LAUNCH_PARAMETERS) and takes(cuda.cublas.gemmEx, PRODUCT_PARAMETERS)


@pytest.mark.parametrize("name", NAMES)
def test_the_wrappers_compute_the_same(name, gpu, monkeypatch):
    prebound = run_steps(FEATURES[name], gpu, 8, 21)
    monkeypatch.setattr("xpnet.engines.cuda.launching.LAUNCH_PARAMETERS", "other")
    wrapped = run_steps(FEATURES[name], gpu, 8, 21)
    for one, other in zip(prebound, wrapped, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_tf32_is_near_fp32_and_repeats_itself(name, gpu):
    def in_tf32(*arguments):
        return Cuda(*arguments, precision="tf32")

    full, first, second = (run_steps(FEATURES[name], gpu, 8, 21, make=make) for make in (make_engine, in_tf32, in_tf32))
    assert [array.tobytes() for array in first] == [array.tobytes() for array in second]
    for one, other in zip(full, first, strict=True):
        scale = max(np.abs(one).max(initial=0), 1e-3)
        assert np.abs(one.astype(float) - other).max(initial=0) < TF32_TOLERANCE * scale


def test_launches_go_to_the_stream_that_is_current(gpu):
    stream, found = gpu.xp.cuda.Stream(non_blocking=True), []
    for context in (gpu.xp.cuda.Stream.null, stream):
        with context:
            found.append(run_steps(FEATURES["optimizer Adam"], gpu, 8, 21))
            context.synchronize()
    assert [array.tobytes() for array in found[0]] == [array.tobytes() for array in found[1]]


def test_nvrtc_compiles_a_text_once(gpu, monkeypatch, tmp_path):
    """For one sample, up to 256, up to 1,024 and more: of twelve capacities four."""
    compiler, asked = gpu.xp.cuda.compiler, []
    compile_program = compiler.compile_using_nvrtc
    monkeypatch.setattr(
        compiler, "compile_using_nvrtc", lambda *given, **n: asked.append(1) or compile_program(*given, **n)
    )
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path))
    network = network_of({"hidden": (4, 3)}, gpu)
    for n in (1, 2, 3, 5, 9, 17, 33, 65, 129, 257, 513, 1025):
        network.forward(gpu.to_device(np.ones((6, n))))
    assert len(asked) == len(list(tmp_path.glob("*.cubin"))) <= 4


def test_every_capacity_has_its_own_places(gpu):
    """Engines of one text side by side, each with buffers of its own length."""
    network, cpu = network_of({}, gpu), network_of({}, xpnet.select_backend("cpu"))
    X = np.random.default_rng(0).standard_normal((6, 300)).astype(np.float32)
    for n in (1, 2, 20, 200, 300, 20, 1):
        found = gpu.to_host(network.predict(gpu.to_device(X[:, :n])))
        np.testing.assert_allclose(found, cpu.predict(X[:, :n]), rtol=1e-4, atol=1e-6)


def test_a_deterministic_run_has_products_and_a_handle_of_its_own(backend, monkeypatch):
    """On a GPU, so that nothing else enters into them; on a CPU a run is the same without, and does not speak of it."""
    rng = np.random.default_rng(0)
    dataset = xpnet.Dataset(rng.standard_normal((4, 30)), rng.standard_normal((2, 30)))
    found, on_gpu, made = [], backend.device != "cpu", []
    if on_gpu:
        cublas = backend.xp.cuda.cublas
        create = cublas.create
        monkeypatch.setattr(cublas, "create", lambda: made.append(1) or create())
    for deterministic in (True, True, False):
        network = xpnet.Network([4, 5, 2], loss="squared_error", backend=backend, seed=0)
        options = {"epochs": 2, "batch_size": 8, "validation": dataset, "deterministic": deterministic}
        history = xpnet.train(network, dataset, xpnet.Adam(0.01), **options)
        found.append(backend.to_host(network.owned).tobytes())
        assert history[-1].get("deterministic") == (True if on_gpu and deterministic else None)
    assert found[0] == found[1] == found[2]
    assert len(made) == (6 if on_gpu else 0)  # of two runs: for the steps, the validation and record 0


def test_what_a_deterministic_run_excludes_is_refused(backend):
    dataset = xpnet.Dataset(np.ones((4, 30)), np.ones((2, 30)))
    network = xpnet.Network([4, 5, 2], loss="squared_error", backend=backend, seed=0)
    for name, value, needed in (("precision", "tf32", "products in full, 'fp32'"), ("engine", "replay", "'auto'")):
        if backend.device != "cpu":
            parts = "deterministic is True", f"{name} is '{value}'", needed, f"leave {name} out"
            with refusal(ValueError, *parts):
                xpnet.train(network, dataset, xpnet.SGD(), epochs=1, deterministic=True, **{name: value})
    with refusal(ValueError, "reduction is 'fast'", "sums of one order, 'fixed'", "leave reduction out"):
        check_deterministic("auto", backend, "fp32", "fast")
    check_deterministic("replay", select_backend("cpu"), "fp32", "fixed")
