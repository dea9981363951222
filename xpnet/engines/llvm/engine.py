"""The compiled engine: a run of steps as one call of machine code, printed from the Program and compiled by LLVM.

The call includes the gather, every phase and the slots, so that a step executes no Python. Elementwise arithmetic
equals the reference engine's to the bit; sums, products, exponentials, logarithms and hyperbolic tangents round
differently.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from xpnet.backend import Backend
from xpnet.engines.blas import numpy_gemm
from xpnet.engines.engine import Engine
from xpnet.engines.llvm.calling import Calling
from xpnet.engines.llvm.epochs import Epochs
from xpnet.engines.llvm.native import kept, vector_bytes
from xpnet.engines.llvm.run import TABLE, ProgramText, program_text
from xpnet.engines.llvm.sharded import NativeShards
from xpnet.engines.llvm.step import Library
from xpnet.engines.llvm.waiting import address_of, new_flags, pause_function
from xpnet.engines.memory import BySize, Memory
from xpnet.engines.replay import EpochsInTurn, Replay
from xpnet.parallel.reduction import Reduction
from xpnet.program.calls import Program

_T = TypeVar("_T")

# Floating-point operations of a product beyond which NumPy's product on up to two threads is faster than compiled code
# on one thread, and than compiled code on two. Both were measured on two cores of an AMD EPYC.
LEAST_FLOPS, LEAST_FLOPS_ON_TWO = 2e7, 1e8


def text_for(program: Program, backend: Backend, scales: Mapping[str, float | None], threads: int) -> ProgramText:
    """Return the text of a Program for this machine; the arguments are those of `program_text`."""
    gemm, least_flops = numpy_gemm(backend.dtype), LEAST_FLOPS if threads == 1 else LEAST_FLOPS_ON_TWO
    library = None if gemm is None else Library(gemm.integer_bits, least_flops)
    return program_text(program, backend.dtype, scales, threads=threads, library=library, vector_bytes=vector_bytes())


# The columns of a table that differ between epochs, in the order of `tables`, and those that differ between calls.
_ROWS = slice(TABLE.index("order"), TABLE.index("rows_out") + 1)
_CALL = slice(TABLE.index("numbers"), TABLE.index("continues") + 1)


class Compiled(Engine):
    """Runs a Program on the CPU as machine code; `execute` is replayed on the same memory.

    The arguments are those of `Memory`.  threads: the number that run a step together.
    blas_threads: of NumPy's products that one thread calls; None for as many as they have.
    reduction: adds the shards of a step, where the Program is recorded for them; they take one thread.
    Raises ImportError without llvmlite: pip install 'xpnet[jit]'.
    """

    name = "compiled"

    def __init__(
        self,
        program: Program,
        backend: Backend,
        owned: Any,
        data: Mapping[str, tuple[Any, float | None]] | None = None,
        threads: int = 1,
        blas_threads: int | None = None,
        reduction: Reduction | None = None,
    ) -> None:
        self.threads, self.blas_threads, self.gemm = threads, blas_threads, numpy_gemm(backend.dtype)
        self._text = text_for(program, backend, {name: scale for name, (_, scale) in (data or {}).items()}, threads)
        self.calls_blas = self._text.calls_blas
        self.memory = Memory(program, backend, owned, data, self._text.extra_floats)
        self.memory.check_data()
        self._replay = Replay(program, backend, owned, data, memory=self.memory, reduction=reduction)
        self.native = kept(self._text.text)
        self._numbers = BySize[np.ndarray | None](program.capacity)
        used = self.gemm if self.calls_blas else None
        self._shards = NativeShards(self.memory, reduction, self.native, used) if program.shards else None
        if self._shards is None:
            self._table = self._new_table()
        # BLAS's threads are of the whole process, so that they are left alone where no product of it is called.
        self._calling = Calling(threads, used, blas_threads)

    def run(self, order: np.ndarray, rows_in: np.ndarray) -> np.ndarray:
        """See `Engine.run`; a last step whose length the text does not support is replayed."""
        if self._shards is not None:
            address = self.gemm.address if self.gemm else 0
            rows_out = self._shards.run(order, rows_in, self._numbers_of, address)
            return self._replay.run(order, rows_in) if rows_out is None else rows_out
        capacity, rest = self.program.capacity, len(order) % self.program.capacity
        if rest and self._numbers_of(rest) is None:
            n_whole = len(order) // capacity
            if n_whole == 0:
                return self._replay.run(order, rows_in)
            whole = self._run(order[: n_whole * capacity], rows_in[:n_whole], continues=True)
            return np.concatenate([whole, self._replay.run(order[n_whole * capacity :], rows_in[n_whole:])])
        return self._run(order, rows_in)

    def execute(self, batch: int, *phases: str) -> None:
        """See `Engine.execute`."""
        self._replay.execute(batch, *phases)

    def _run(self, order: np.ndarray, rows_in: np.ndarray, continues: bool = False) -> np.ndarray:
        """Run these steps. continues: whether more steps follow, so that the last one need not update."""
        order, rows_in = self.memory.upload(order, rows_in)
        rows_out = self.rows_out(1, len(order))
        self._calling.run(self.native.address, self.tables(order[None], rows_in, rows_out, continues)[0])
        return rows_out[0].astype(np.float64)

    def take_steps(self, order: Any, rows: Any, rows_out: Any, same_slots: bool) -> None:
        """See `Replay.take_steps`."""
        rows_out[...] = self.run(order, np.empty((len(rows_out), 0)) if rows is None else rows)

    def settled(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """See `Replay.settled`; a call of machine code settles what it needs."""
        return function(*arguments)

    def epochs(self, n: int, measuring: Engine | None = None) -> Epochs | EpochsInTurn | None:
        """See `Engine.epochs`."""
        capacity = self.program.capacity
        if self._shards is not None:
            return EpochsInTurn(self, measuring)
        if any(self._numbers_of(m) is None for m in (capacity, n % capacity or capacity)):
            return None
        return Epochs(self, measuring if isinstance(measuring, Compiled) else None, n)

    def rows_out(self, n_epochs: int, n: int) -> np.ndarray:
        """Return the array (n_epochs, n_steps, n_results) for the results of epochs of n samples."""
        shape = (n_epochs, -(-n // self.program.capacity), len(self.program.results))
        return np.empty(shape, self.memory.backend.dtype)

    def tables(
        self, orders: np.ndarray, rows_in: np.ndarray | None, rows_out: np.ndarray, continues: bool = False
    ) -> np.ndarray:
        """Return the tables (n_epochs, width) with which the function runs epochs; all arrays must outlive its calls.

        orders (n_epochs, n), rows_in and rows_out (n_epochs, n_steps, n_slots and n_results), all C-contiguous.
        """
        n_epochs, n = orders.shape
        rows_in = rows_out if rows_in is None else rows_in  # not read without slots
        capacity = self.program.capacity
        whole, last = (self._numbers_of(m) for m in (capacity, n % capacity or capacity))
        assert whole is not None and last is not None
        tables = np.empty((n_epochs, len(self._table)), np.int64)
        tables[:] = self._table
        tables[:, _CALL] = whole.ctypes.data, last.ctypes.data, n, continues
        arrays = orders, rows_in, rows_out
        tables[:, _ROWS] = [rows.ctypes.data for rows in arrays]
        if n_epochs > 1:
            tables[:, _ROWS] += np.outer(np.arange(n_epochs), [rows.strides[0] for rows in arrays])
        return tables

    def _new_table(self) -> np.ndarray:
        """Return a table of `run` with what is the same in all calls."""
        memory, addresses = self.memory, dict.fromkeys(TABLE, 0)
        arrays = {"T": memory.owned, "M": memory.floats, "U": memory.uints}
        if self.threads > 1:
            self._flags = arrays["flags"] = new_flags(self.threads)
            self._pause = pause_function(self._flags)
            addresses["pause"] = address_of(self._pause)
        addresses |= {name: array.ctypes.data for name, array in arrays.items()}
        addresses["gemm"] = self.gemm.address if self.gemm else 0
        data = [memory.data[name][0].ctypes.data for name, _ in memory.gathers]
        return np.array([*addresses.values(), *data], np.int64)

    def _numbers_of(self, batch: int) -> np.ndarray | None:
        """Return the numbers that depend on the batch length; None if the text does not support this length."""
        return self._numbers.get(batch, self._new_numbers)

    def _new_numbers(self, batch: int) -> np.ndarray | None:
        program = self.memory.at(batch)
        if not self._text.sizes.hold_for(program):
            return None
        values = [program.calls[index].inputs[position] for index, position in self._text.numbers]
        return np.array([*values, 0.0], self.memory.backend.dtype)
