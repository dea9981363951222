"""The one timing harness: warm up, synchronise both sides, take turns, report medians, write JSON.

`take_turns` times pieces of work against each other; `benchmark` is the grid behind `xpnet bench`; `benchmarks/` and
its peers use the same functions. A time is never taken while a device still works.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpnet.backend import Backend, BackendUnavailable, select_backend
from xpnet.executors.replay import Replay
from xpnet.network import Network
from xpnet.optimizers import SGD

FORMAT = 1
N_FEATURES, N_CLASSES = 784, 10  # of the benchmark's network, N_FEATURES-width-width-N_CLASSES
N_SAMPLES = 8192


@dataclass(frozen=True)
class Work:
    """Something to time: `run` starts it, `synchronize` waits until it is done, `units` is what one run does."""

    run: Callable[[], object]
    synchronize: Callable[[], object]
    units: int = 1


def take_turns(works: Mapping[str, Work], *, repeats: int = 9, seconds: float = 0.1) -> dict[str, list[float]]:
    """Return the seconds per unit of each work, `repeats` times, the works taking turns.

    Each is warmed up first and then run for about `seconds` a turn, so that noise of the machine meets all alike.
    """
    counts = {name: _runs_for(work, seconds) for name, work in works.items()}
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            times[name].append(_time(work, counts[name]) / (counts[name] * work.units))
    return times


def summary(values: Iterable[float]) -> dict[str, float]:
    """Return {"median", "low", "high"} of some values; low and high are the quartiles."""
    ordered = sorted(values)
    quartiles = statistics.quantiles(ordered, n=4, method="inclusive") if len(ordered) > 1 else ordered * 3
    return {"median": quartiles[1], "low": quartiles[0], "high": quartiles[2]}


def training_work(backend: Backend, sizes: list[int], batch: int, *, steps: int = 16, **network: Any) -> Work:
    """One chunk of `steps` training steps (SGD, each gathering its batch by index) as Work; a unit is a step.

    network: activation, output, loss and so on, as for `Network`.  The data are synthetic and lie on the device.
    """
    net = Network(sizes, backend=backend, **network)
    program = net.training_program(batch, SGD(), False)
    X, Y, order = synthetic_data(sizes[0], sizes[-1], batch, steps)
    data = {"X": (backend.to_device(X), None), "Y": (backend.to_device(Y), None)}
    engine = Replay(program, backend, net.parameters.flat, data)
    rows = SGD(lr=1e-3).slot_rows(steps)  # small, so that thousands of steps on noise stay finite
    return Work(lambda: engine.run(order, rows), backend.synchronize, steps)


def synthetic_data(
    n_features: int, n_classes: int, batch: int, steps: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows X (n, n_features) in [0, 1), one-hot rows Y (n, n_classes), and an order of steps * batch indices."""
    rng = np.random.default_rng(0)
    n_samples = max(N_SAMPLES, batch) if n_features * batch < 1 << 24 else batch
    X = rng.random((n_samples, n_features), dtype=np.float32)
    Y = np.zeros((n_samples, n_classes), np.float32)
    Y[np.arange(n_samples), rng.integers(0, n_classes, n_samples)] = 1.0
    return X, Y, rng.integers(0, n_samples, steps * batch)


def limits(backend: Backend, *, repeats: int = 5) -> dict[str, float]:
    """Return what this machine does at its best: {"flops", "bytes"} a second, of a large product and a large copy."""
    n, xp = 1536, backend.xp
    a, b = (backend.to_device(np.random.default_rng(seed).random((n, n))) for seed in (0, 1))
    out = xp.empty((n, n), dtype=backend.dtype)
    source = backend.zeros(1 << 24)
    target = backend.zeros(1 << 24)

    def copy() -> None:
        target[...] = source

    works = {"flops": Work(lambda: a.dot(b, out), backend.synchronize), "bytes": Work(copy, backend.synchronize)}
    times = take_turns(works, repeats=repeats)
    return {
        "flops": 2.0 * n**3 / min(times["flops"]),
        "bytes": 2.0 * source.nbytes / min(times["bytes"]),
    }


def benchmark(
    widths: Iterable[int], batches: Iterable[int], device: str | None, dtype: str, *, repeats: int = 9,
    tell: Callable[[dict[str, Any]], object] = lambda row: None,
) -> dict[str, Any]:  # fmt: skip
    """Time training steps over a grid of widths and batch sizes on the CPU and, where there is one, the GPU.

    The network is 784-width-width-10, relu, softmax cross-entropy.  tell: called with each row when it is measured.
    Returns a JSON-ready report: machine, limits of each backend, rows, and the crossover of each batch size.
    """
    backends = _backends(device, dtype)
    report: dict[str, Any] = {
        "format": FORMAT, "machine": machine(), "dtype": dtype,
        "backends": {backend.name: backend.describe() for backend in backends},
        "limits": {backend.name: limits(backend) for backend in backends}, "rows": [],
    }  # fmt: skip
    for batch in batches:
        for width in widths:
            works = {b.name: training_work(b, [N_FEATURES, width, width, N_CLASSES], batch) for b in backends}
            for name, times in take_turns(works, repeats=repeats).items():
                step = summary(times)
                row = {"backend": name, "width": width, "batch": batch, "seconds_a_step": step,
                       "samples_a_second": batch / step["median"],
                       "flops_a_second": _step_flops(width, batch) / step["median"]}  # fmt: skip
                report["rows"].append(row)
                tell(row)
    report["crossover"] = {str(batch): crossover(report["rows"], batch) for batch in batches}
    return report


def crossover(rows: list[dict[str, Any]], batch: int) -> int | None:
    """Return the width from which on the GPU is faster at this batch size, or None if it never is, or there is none."""
    speed: dict[int, dict[str, float]] = {}
    for row in rows:
        if row["batch"] == batch:
            speed.setdefault(row["width"], {})[row["backend"]] = row["samples_a_second"]
    found = None
    for width in sorted(speed, reverse=True):
        if speed[width].get("cupy", 0.0) <= speed[width].get("numpy", float("inf")):
            break
        found = width
    return found


def machine() -> dict[str, Any]:
    """Describe this machine and what computes on it, for a report."""
    return {
        "cpu": _cpu_name(), "cores": os.cpu_count(), "system": platform.platform(),
        "python": platform.python_version(), "numpy": np.__version__, "blas": blas(), "threads": threads(),
    }  # fmt: skip


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


def _backends(device: str | None, dtype: str) -> list[Backend]:
    """The CPU and the GPU, or the one that was asked for."""
    if device in ("cpu", "cuda"):
        return [select_backend(device, dtype)]
    try:
        return [select_backend("cpu", dtype), select_backend("cuda", dtype)]
    except BackendUnavailable:
        return [select_backend("cpu", dtype)]


def _step_flops(width: int, batch: int) -> int:
    """Operations of the products of one step: forward, dW, and dA of all layers but the first."""
    first, middle, last = N_FEATURES * width, width * width, width * N_CLASSES
    return 2 * batch * (2 * first + 3 * middle + 3 * last)


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
    except OSError:
        pass
    return platform.processor() or platform.machine()
