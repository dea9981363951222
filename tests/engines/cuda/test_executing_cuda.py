"""The executing CUDA finds what it is there to find: faults that are planted here."""

from __future__ import annotations

import numpy as np
import pytest
from features import FEATURES, run_steps

import xpnet
from xpnet.engines.choice import make_engine
from xpnet.engines.cuda import text as cuda_text
from xpnet.program import loops

SHIFT = """
extern "C" __global__ void shift(float* x, const int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) x[i] = x[(i + 1) % n];
}
"""
TOTAL = """
extern "C" __global__ void total(const float* x, float* out) {
  __shared__ float part[64];
  part[threadIdx.x] = x[blockIdx.x * 64 + threadIdx.x];
  for (int half = 32; half; half /= 2) {
    WAIT
    if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
  }
  if (threadIdx.x == 0) out[blockIdx.x] = part[0];
}
"""
ORDERS = (1, -1, 1_000_003)


def kernel(gpu, text, name):
    return gpu.xp.RawModule(code=text, options=("--fmad=false",)).get_function(name)


def ask(driver):
    """What the driver has to say, which the fixture no_complaints would take for a failure."""
    return driver.complaints()


def test_a_race_between_threads_is_found(gpu, driver):
    shift = kernel(gpu, SHIFT, "shift")
    x = gpu.to_device(np.arange(6))
    with driver.switched(race=1):
        shift((2,), (4,), (x, np.int32(6)))
    assert "race in shift: a thread" in ask(driver)
    with driver.switched(race=1):  # one thread reads what it wrote itself
        shift((1,), (1,), (x, np.int32(1)))
    assert ask(driver) == ""


def test_an_order_that_matters_shows(gpu, driver):
    found = set()
    for order in ORDERS:
        x = gpu.to_device(np.arange(6))
        with driver.switched(order=order):
            kernel(gpu, SHIFT, "shift")((2,), (4,), (x, np.int32(6)))
        found.add(gpu.to_host(x).tobytes())
    assert len(found) > 1


def test_threads_wait_for_each_other_at_a_barrier(gpu, driver):
    x = np.arange(128, dtype=np.float32)
    for order in ORDERS:
        out = gpu.xp.empty(2, np.float32)
        with driver.switched(order=order, race=1):
            kernel(gpu, TOTAL.replace("WAIT", "__syncthreads();"), "total")((2,), (64,), (gpu.to_device(x), out))
        assert gpu.to_host(out).tolist() == x.reshape(2, 64).sum(axis=1).tolist()
    with driver.switched(race=1):
        kernel(gpu, TOTAL.replace("WAIT", ""), "total")((2,), (64,), (gpu.to_device(x), out))
    assert gpu.to_host(out).tolist() != x.reshape(2, 64).sum(axis=1).tolist()
    assert "race in total: a thread" in ask(driver)


@pytest.mark.parametrize("left_out", range(3))
def test_a_team_without_one_of_its_barriers_has_a_race(left_out, gpu, driver, monkeypatch):
    parts = cuda_text._TEAMWORK.split("__syncthreads();")
    text = "__syncthreads();".join(parts[: left_out + 1]) + "__syncthreads();".join(parts[left_out + 1 :])
    monkeypatch.setattr(cuda_text, "_TEAMWORK", text)
    with driver.switched(race=1):
        run_steps(FEATURES["batch normalization"], gpu, 300, 300)
    assert len(parts) == 4 and "race in kernel" in ask(driver)


def test_fresh_memory_is_nan_and_the_queue_is_late(gpu, driver):
    assert np.isnan(gpu.to_host(gpu.xp.empty(1 << 22, np.float32))).all()  # more than CuPy's pool has
    pinned = gpu.xp.cuda.alloc_pinned_memory(16)
    host = np.frombuffer(pinned, np.float32, 4)
    host[...] = 1
    x = gpu.xp.empty(4, np.float32)
    x.set(host)
    host[...] = 2  # before the copy has run
    assert gpu.to_host(x).tolist() == [2, 2, 2, 2]
    with driver.switched(late=0):
        host[...] = 3
        x.set(host)
        host[...] = 4
        assert gpu.to_host(x).tolist() == [3, 3, 3, 3]


def test_denormals_are_kept_where_they_are_not_flushed(gpu, driver):
    tiny = gpu.to_device(np.array([1e-39], np.float32))
    with driver.switched(flush_denormals=0):
        kept = gpu.to_host(gpu.xp.multiply(tiny, 0.5))
    assert kept[0] > 0 == gpu.to_host(gpu.xp.multiply(tiny, 0.5))[0]


def test_what_cuda_refuses_or_leaves_open_is_a_complaint(gpu, driver):
    x, shift = gpu.to_device(np.arange(6)), kernel(gpu, SHIFT, "shift")
    x[1:] = x[:-1]
    assert "overlap: undefined" in ask(driver)
    with pytest.raises(gpu.xp.cuda.driver.CUDADriverError):
        shift((1,), (2048,), (x, np.int32(6)))
    assert ask(driver) == "launch of shift on a grid that CUDA refuses"
    shift((1,), (1,), (np.uint64(x.data.ptr + (1 << 40)), np.int32(1)))
    assert ask(driver) == "launch of shift: argument 0 is no device memory"
    cublas, handle = gpu.xp.cuda.cublas, gpu.xp.cuda.device.get_cublas_handle()
    one, place = np.ones(1, np.float32), x.data.ptr
    with pytest.raises(cublas.CUBLASError):  # a matrix of 3 rows, of which 2 lie between its columns
        cublas.gemmEx(
            *(handle, 0, 0, 3, 1, 1, one.ctypes.data, place, 0, 2),
            *(place, 0, 1, one.ctypes.data, place, 0, 3, cublas.CUBLAS_COMPUTE_32F, -1),
        )
    assert ask(driver) == "a product with a leading dimension that is too small"


def test_a_text_that_nvrtc_refuses_is_refused_as_by_cupy(gpu, driver):
    with pytest.raises(gpu.xp.cuda.compiler.CompileException, match='identifier "y" is undefined'):
        kernel(gpu, 'extern "C" __global__ void f(float* x) { *x = y; }', "f")
    with pytest.raises(gpu.xp.cuda.driver.CUDADriverError, match="CUDA_ERROR_NOT_FOUND"):
        kernel(gpu, SHIFT, "another")


@pytest.mark.parametrize(("optimizer", "streams"), [(xpnet.SGD, (2, 1)), (xpnet.Adam, (5, 3))])
def test_what_nobody_reads_is_not_written(optimizer, streams, gpu, driver, monkeypatch):
    """Of an update the weights, and Adam's averages: not the scaled gradient, the squares and the steps.

    Counted at each access; streams: vectors as long as theta, with all stores and with those that are needed.
    """
    written = []
    for patched in (True, False):
        with monkeypatch.context() as patch:
            if patched:
                patch.setattr(loops, "is_read_after", lambda *_: True)
            network = xpnet.Network([20, 16, 10], backend=gpu, seed=0)
            engine = make_engine(network.training_program(8, optimizer(0.1), False), gpu, network.owned)
        with driver.switched(race=1):
            before = driver.bytes_written
            engine.execute(8, "update")
            gpu.synchronize()
            written.append((driver.bytes_written - before) // 4)
    size = network.architecture.layout.size
    assert [n // size for n in written] == list(streams) and max(n % size for n in written) < 10
