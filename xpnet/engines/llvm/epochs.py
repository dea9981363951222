"""Several epochs of a training by one call of machine code: steps, copies of what they leave, measurements.

After the steps of each epoch its weights and the optimizer's state are copied, and another engine may measure the
weights, so that afterwards every epoch can be looked at as if nothing had been run since.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from xpnet.engines.blas import Gemm
from xpnet.engines.engine import EpochsRun
from xpnet.engines.llvm.calling import Calling
from xpnet.engines.llvm.native import Native
from xpnet.engines.llvm.sequence import call_entries, copy_entries, interleaved
from xpnet.engines.memory import Memory


class Steps(Protocol):
    """What an engine of machine code gives to be run by another call than its own; see `Compiled`."""

    memory: Memory
    native: Native
    threads: int
    blas_threads: int | None
    gemm: Gemm | None
    calls_blas: bool

    def rows_out(self, n_epochs: int, n: int) -> np.ndarray:
        """Return the array for the results of epochs of n samples."""

    def tables(self, orders: np.ndarray, rows_in: np.ndarray | None, rows_out: np.ndarray) -> np.ndarray:
        """Return the tables with which the function runs epochs."""


class Epochs:
    """Runs epochs of n samples of an engine, each followed by a measurement with another one, if there is one.

    Both have as many threads.
    Arrays, and the list of what is run on them, stay for calls of as many epochs or fewer.
    """

    def __init__(self, engine: Steps, measuring: Steps | None, n: int) -> None:
        self._engine, self._measuring, self._n = engine, measuring, n
        engines = [engine] if measuring is None else [engine, measuring]
        calls = [each for each in engines if each.calls_blas][:1]  # two that call it do so on as many threads
        gemm, blas_threads = (calls[0].gemm, calls[0].blas_threads) if calls else (None, None)
        self._calling = Calling(engine.threads, gemm, blas_threads)
        self._room, self._has_copies = 0, False

    def run(self, orders: np.ndarray, rows_in: np.ndarray, copies: bool = True) -> EpochsRun:
        """Run an epoch for each row of `orders`; see `RunsEpochs.run`."""
        n_epochs, (orders, rows) = len(orders), self._engine.memory.check_epochs(orders, rows_in)
        if n_epochs > self._room or copies != self._has_copies:
            self._make_room(n_epochs, rows, copies)
        self._orders[:n_epochs] = orders
        if rows is not None and self._rows is not None:
            self._rows[:n_epochs] = rows
        self._calling.run_list(self._list[: n_epochs * len(self._list) // self._room])
        results, *measured = (rows[:n_epochs].astype(np.float64) for rows in self._results)
        owned, state, keys = (rows_of[:n_epochs] for rows_of in self._copies)
        return EpochsRun(results, owned, state, keys, measured[0] if measured else None)

    def _make_room(self, n_epochs: int, rows: np.ndarray | None, copies: bool) -> None:
        """Make arrays and the list for that number of epochs.  rows: slots of the first call, None without any."""
        engine, measuring, memory = self._engine, self._measuring, self._engine.memory
        self._orders, self._rows = np.empty((n_epochs, self._n), np.int64), None if rows is None else rows.copy()
        self._results, sources = [engine.rows_out(n_epochs, self._n)], (memory.owned, memory.state, memory.keys)
        self._copies = [np.empty((n_epochs, array.size), array.dtype) if copies else array[None] for array in sources]
        self._tables = [engine.tables(self._orders, self._rows, self._results[0])]
        parts = [call_entries(engine.native.address, self._tables[0], engine.threads)]
        pairs = zip(sources, self._copies, strict=True) if copies else ()
        parts += [copy_entries(array, rows_of) for array, rows_of in pairs if array.size]
        if measuring is not None:
            n = measuring.memory.n_samples
            self._whole = np.broadcast_to(np.arange(n), (n_epochs, n))
            self._results.append(measuring.rows_out(n_epochs, n))
            self._tables.append(measuring.tables(self._whole, None, self._results[1]))
            parts.append(call_entries(measuring.native.address, self._tables[1], measuring.threads))
        self._list, self._room, self._has_copies = interleaved(parts), n_epochs, copies
