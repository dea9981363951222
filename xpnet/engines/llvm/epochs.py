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
    """Runs epochs of an engine, each followed by a measurement with another one of as many threads, if there is one."""

    def __init__(self, engine: Steps, measuring: Steps | None) -> None:
        self._engine, self._measuring = engine, measuring
        engines = [engine] if measuring is None else [engine, measuring]
        calls = [each for each in engines if each.calls_blas][:1]  # two that call it do so on as many threads
        gemm, blas_threads = (calls[0].gemm, calls[0].blas_threads) if calls else (None, None)
        self._calling = Calling(engine.threads, gemm, blas_threads)

    def run(self, orders: np.ndarray, rows_in: np.ndarray) -> EpochsRun:
        """Run an epoch for each row of `orders`; see `RunsEpochs.run`."""
        engine, measuring, memory, n_epochs = self._engine, self._measuring, self._engine.memory, len(orders)
        orders, rows = memory.check_epochs(orders, rows_in)
        out = engine.rows_out(n_epochs, orders.shape[1])
        tables = engine.tables(orders, rows, out)
        parts = [call_entries(engine.native.address, tables, engine.threads)]
        sources = memory.owned, memory.state, memory.keys
        kept = [np.empty((n_epochs, array.size), array.dtype) for array in sources]
        parts += [copy_entries(array, copies) for array, copies in zip(sources, kept, strict=True) if array.size]
        measured = None
        if measuring is not None:
            order = np.broadcast_to(np.arange(measuring.memory.n_samples), (n_epochs, measuring.memory.n_samples))
            measured = measuring.rows_out(n_epochs, measuring.memory.n_samples)
            their_tables = measuring.tables(order, None, measured)
            parts.append(call_entries(measuring.native.address, their_tables, measuring.threads))
        self._calling.run_list(interleaved(parts))
        rows_of = None if measured is None else measured.astype(np.float64)
        return EpochsRun(out.astype(np.float64), kept[0], kept[1], kept[2], rows_of)
