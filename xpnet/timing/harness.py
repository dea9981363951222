"""The one timing harness: warm up, synchronise both sides, take turns.

`take_turns` times pieces of work against each other, `limits` measures a machine at its best; `xpnet bench` and
`benchmarks/` use them. A time is never taken while a device still works.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from xpnet.backend import Backend

N_SAMPLES = 8192  # of the synthetic data, unless a batch is larger


@dataclass(frozen=True)
class Work:
    """Something to time: `run` starts it, `synchronize` waits until it is done."""

    run: Callable[[], object]
    synchronize: Callable[[], object]


def take_turns(works: Mapping[str, Work], *, repeats: int = 9, seconds: float = 0.1) -> dict[str, list[float]]:
    """Return the seconds a run of each work takes, `repeats` times, the works taking turns.

    Each is warmed up first and then run for about `seconds` a turn, so that noise of the machine affects all alike.
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
