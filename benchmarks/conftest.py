"""Backends to benchmark on, and this machine's own limits, which every result is held against."""

from __future__ import annotations

import pytest

from xpnet import bench
from xpnet.backend import BackendUnavailable, select_backend


def _devices() -> list[str]:
    try:
        select_backend("cuda")
    except BackendUnavailable:
        return ["cpu"]
    return ["cpu", "cuda"]


@pytest.fixture(params=[(device, dtype) for device in _devices() for dtype in ("float32", "float64")], ids="-".join)
def backend(request):
    return select_backend(*request.param)


@pytest.fixture(scope="session")
def limits(request):
    """FLOP/s and bytes/s of a large product and a large copy, by backend; measured once, in this very run."""
    measured: dict[str, dict[str, float]] = {}

    def of(backend):
        key = backend.describe()
        if key not in measured:
            measured[key] = bench.limits(backend)
        return measured[key]

    return of


@pytest.fixture
def timed(benchmark, backend, limits):
    """Time `run` (checked beforehand) with a synchronised device, and report rates beside the time.

    flops, bytes: what one run computes and moves, counted from the Program.
    """

    def measure(run, *, flops, bytes):
        def synchronised():
            run()
            backend.synchronize()

        benchmark(synchronised)
        if benchmark.stats is None:  # --benchmark-disable: ran once, for its check
            return
        seconds, best = benchmark.stats.stats.median, limits(backend)
        benchmark.extra_info.update(
            GFLOP_per_s=round(flops / seconds / 1e9, 2), GB_per_s=round(bytes / seconds / 1e9, 2),
            of_flops_limit=round(flops / seconds / best["flops"], 4),
            of_bytes_limit=round(bytes / seconds / best["bytes"], 4),
        )  # fmt: skip

    return measure
