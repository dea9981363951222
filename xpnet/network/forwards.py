"""When and how a network's predictions go by machine code: once what replay has lost repays the compiling.

That is decided by counts, of calls, samples and operations, so that the same predictions are compiled in every run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np

from xpnet.backend import Backend
from xpnet.cores import usable_cores
from xpnet.engines.choice import compiling_cost, compiling_gain, forward_code
from xpnet.engines.llvm.forward import Forward, ForwardCode
from xpnet.network.idle_engines import IdleEngines, Loan
from xpnet.program.calls import Program

BLOCK_SAMPLES = 256  # of a step of machine code: so many rows and what layers make of them stay in cache
THREAD_FLOPS = 4e7  # of a thread at least: to start one takes as long as some 1e7

Array = Any


class Forwards:
    """The machine code of a network's forward passes, and what replay has lost without it.

    owned: the network's flat vector.  idle: lends the memory of each call.
    record(kind, capacity): records the `inference_program`.
    """

    def __init__(self, backend: Backend, owned: Any, idle: IdleEngines, record: Callable[[str, int], Program]) -> None:
        self._backend, self._owned, self._idle, self._record = backend, owned, idle, record
        self._losses: dict[tuple[str, int], _Loss] = {}
        self._compiling = threading.Lock()
        self._n_trainings = 0

    def run(self, kind: str, X: Array) -> Array | None:
        """Return the results (n_outputs, n_samples) of a kind for X (n_inputs, n_samples); None to have it replayed."""
        key = _key(kind, X.shape[1])
        loss = self._losses.get(key)
        if loss is None or loss.code is None or self._n_trainings:
            return None
        return self._run(key, loss.code, X.T).T

    def replays(self, kind: str, n_samples: int, program: Program) -> bool:
        """Count a prediction of a kind that this Program replays; return False if it has become due to be compiled."""
        if self._n_trainings or self._backend.device != "cpu":
            return True
        key = _key(kind, n_samples)
        loss = self._losses.get(key)
        if loss is None:
            loss = self._losses.setdefault(key, _Loss(compiling_cost(program)))
        loss.add(-(-n_samples // program.capacity), program)
        if loss.is_due and self._compiling.acquire(blocking=False):  # other threads replay meanwhile
            try:
                if loss.is_due:
                    loss.end(forward_code(self._record(*key), self._backend))
            finally:
                self._compiling.release()
        return loss.code is None

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """Have all predictions within replayed, so that a training's records depend on nothing but the training."""
        self._n_trainings += 1
        try:
            yield
        finally:
            self._n_trainings -= 1

    def _run(self, key: tuple[str, int], code: ForwardCode, rows: np.ndarray) -> np.ndarray:
        n_samples, capacity = len(rows), key[1]
        if n_samples <= capacity:
            with self._lend(key, code) as forward:
                if n_samples <= forward.n_few:
                    return forward.few(rows)
        results = np.empty((n_samples, code.n_outputs), self._backend.dtype)

        def run(part: slice) -> None:
            with self._lend(key, code) as forward:
                forward.many(rows[part], results[part])

        n_threads = _n_threads(code, n_samples)
        share = -(-n_samples // (n_threads * capacity)) * capacity  # whole blocks, so that bits depend on no thread
        first, *others = (slice(start, start + share) for start in range(0, n_samples, share))
        if not others:
            run(first)
            return results
        with ThreadPoolExecutor(len(others)) as pool:
            begun = [pool.submit(run, part) for part in others]
            run(first)
            for part in begun:
                part.result()
        return results

    def _lend(self, key: tuple[str, int], code: ForwardCode) -> Loan[Forward]:
        return self._idle.lend(("code", *key), lambda: Forward(code, self._backend, self._owned))


def _key(kind: str, n_samples: int) -> tuple[str, int]:
    """Return the kind and the capacity of the Program for that many samples."""
    return kind, 1 if n_samples == 1 else BLOCK_SAMPLES


def _n_threads(code: ForwardCode, n_samples: int) -> int:
    """Return the threads for that many samples: no more than BLAS may use."""
    most = int(code.flops * n_samples / THREAD_FLOPS)
    return 1 if most < 2 or code.gemm is None else max(1, min(most, code.gemm.own_threads(), usable_cores()))


class _Loss:
    """What replay has lost against machine code, in seconds by counts, and the code, once it is there.

    cost: the seconds of compiling.
    """

    def __init__(self, cost: float) -> None:
        self._seconds, self._cost = 0.0, cost
        self._gains: dict[int, float] = {}
        self.code: ForwardCode | None = None

    def add(self, n_steps: int, program: Program) -> None:
        """Count steps that were replayed."""
        gain = self._gains.get(program.capacity)
        if gain is None:
            gain = self._gains[program.capacity] = compiling_gain(program)
        self._seconds += n_steps * gain

    @property
    def is_due(self) -> bool:
        """Whether the loss repays the compiling, even if the cache holds the code: it is not to decide which bits."""
        return self._seconds > self._cost

    def end(self, code: ForwardCode | None) -> None:
        """Take the code that was due; without any, all is replayed from now on."""
        self.code, self._cost = code, float("inf")
