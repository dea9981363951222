"""The one timing harness: warm up, synchronise both sides, take turns.

`take_turns` times pieces of work against each other, `limits` tells what a machine does at its best, `machine` what it
is; `xpnet bench` and `benchmarks/` use them. A time is never taken while a device still works.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from xpnet.backend import Backend, BackendUnavailable, probe_gpu

N_SAMPLES = 8192  # of the synthetic data, unless a batch is larger


@dataclass(frozen=True)
class Work:
    """Something to time: `run` starts it, `synchronize` waits until it is done."""

    run: Callable[[], object]
    synchronize: Callable[[], object]


def take_turns(works: Mapping[str, Work], *, repeats: int = 9, seconds: float = 0.1) -> dict[str, list[float]]:
    """Return the seconds a run of each work takes, `repeats` times, the works taking turns.

    Each is warmed up first and then run for about `seconds` a turn, so that noise of the machine meets all alike.
    """
    counts = {name: _runs_for(work, seconds) for name, work in works.items()}
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            times[name].append(_time(work, counts[name]) / counts[name])
    return times


def synthetic_data(
    n_features: int, n_classes: int, batch: int, steps: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows X (n, n_features) in [0, 1), one-hot rows Y (n, n_classes), and an order of steps * batch indices."""
    rng = np.random.default_rng(0)
    n_samples = max(N_SAMPLES, batch)
    X = rng.random((n_samples, n_features), dtype=np.float32)
    Y = np.zeros((n_samples, n_classes), np.float32)
    Y[np.arange(n_samples), rng.integers(0, n_classes, n_samples)] = 1.0
    return X, Y, rng.integers(0, n_samples, steps * batch)


def limits(backend: Backend, *, repeats: int = 5, seconds: float = 0.1) -> dict[str, float]:
    """Return what this machine does at its best: {"flops", "bytes"} a second, of a large product and a large copy.

    repeats, seconds: as for `take_turns`.
    """
    n, xp = 1536, backend.xp
    a, b = (backend.to_device(np.random.default_rng(seed).random((n, n))) for seed in (0, 1))
    out = xp.empty((n, n), dtype=backend.dtype)
    source = backend.zeros(1 << 24)
    target = backend.zeros(1 << 24)

    def copy() -> None:
        target[...] = source

    works = {"flops": Work(lambda: a.dot(b, out), backend.synchronize), "bytes": Work(copy, backend.synchronize)}
    times = take_turns(works, repeats=repeats, seconds=seconds)
    return {"flops": 2.0 * n**3 / min(times["flops"]), "bytes": 2.0 * source.nbytes / min(times["bytes"])}


def machine(version: str) -> dict[str, Any]:
    """Return what computes here as a JSON-ready dict.  version: of xpnet.

    Keys: xpnet, date (UTC), cpu, cores, memory (bytes, or None), system, python, numpy, blas, threads; gpu, cupy,
    cuda_driver and cuda_runtime, which are None without a usable GPU; no_gpu: why there is none, else None.
    """
    facts: dict[str, Any] = {
        "xpnet": version,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "memory": memory(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": blas(),
        "threads": threads(),
        "gpu": None,
        "cupy": None,
        "cuda_driver": None,
        "cuda_runtime": None,
        "no_gpu": None,
    }
    try:
        cupy, facts["gpu"] = probe_gpu()
    except BackendUnavailable as error:
        return {**facts, "no_gpu": str(error)}
    runtime = cupy.cuda.runtime
    driver, toolkit = runtime.driverGetVersion(), runtime.runtimeGetVersion()
    return {**facts, "cupy": cupy.__version__, "cuda_driver": driver, "cuda_runtime": toolkit}


def memory() -> int | None:
    """Bytes of memory that this machine has, or None where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not a POSIX system, or one that does not know
        return None


def blas() -> str:
    """Name and version of the BLAS that NumPy was built with."""
    build = np.show_config(mode="dicts") or {}
    found = build.get("Build Dependencies", {}).get("blas", {})
    return f"{found.get('name', 'unknown')} {found.get('version', '')}".strip()


def threads() -> str:
    """Say what limits the threads of BLAS, and what BLAS says itself where threadpoolctl is installed."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    parts = [f"{name}={os.environ[name]}" for name in names if name in os.environ]
    try:
        from threadpoolctl import threadpool_info  # not a dependency
    except ImportError:
        return ", ".join(parts) or "BLAS is not limited"
    parts += [f"{pool['internal_api']} {pool['num_threads']} threads" for pool in threadpool_info()]
    return ", ".join(parts)


def _runs_for(work: Work, seconds: float) -> int:
    """Warm up, then find how many runs take about `seconds`."""
    _time(work, 1)
    count = 1
    while True:
        elapsed = _time(work, count)
        if elapsed >= seconds / 2 or count >= 1 << 20:
            return max(1, round(count * seconds / max(elapsed, 1e-9)))
        count *= 2


def _time(work: Work, count: int) -> float:
    work.synchronize()
    started = time.perf_counter()
    for _ in range(count):
        work.run()
    work.synchronize()
    return time.perf_counter() - started


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:  # not Linux
        pass
    return platform.processor() or platform.machine() or "unknown"
