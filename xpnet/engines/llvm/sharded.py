"""Run steps shard by shard as machine code, with the sum over several processes between their phases."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np

from xpnet.engines.blas import Gemm
from xpnet.engines.llvm.calling import Calling
from xpnet.engines.llvm.native import Native
from xpnet.engines.llvm.shards import TABLE, additions_of
from xpnet.engines.memory import Memory
from xpnet.parallel.communicator import Single
from xpnet.parallel.reduction import Reduction

Numbers = Callable[[int], "np.ndarray | None"]  # by the samples of a shard; None for a length that the text lacks


class NativeShards:
    """Runs a Program that is recorded for shards as machine code.

    native: of `xpnet.engines.llvm.shards.run_shards`.  gemm: the product that it calls, None for none.
    """

    def __init__(self, memory: Memory, reduction: Reduction | None, native: Native, gemm: Gemm | None) -> None:
        program = memory.program
        assert program.shards is not None
        self._memory, self._shards, self._native = memory, program.shards, native
        self._calling = Calling(1, gemm, 1)
        message = memory.view("message", program.capacity)
        self._sum = (reduction or Reduction(Single())).over(program.shards, message, np)
        additions = additions_of(program.shards)
        self._rows = np.empty((program.shards.last - program.shards.first, message.size), message.dtype)
        self._roots = [self._rows[row] for row in additions.roots]
        self._error: BaseException | None = None
        self._function = ctypes.CFUNCTYPE(ctypes.c_int64)(self._add)
        self._arrays = {"additions": additions.pairs, "ends": additions.ends, "rows": self._rows}
        self._arrays |= {"T": memory.owned, "M": memory.floats, "U": memory.uints}

    def run(self, order: np.ndarray, rows_in: np.ndarray, numbers: Numbers, gemm: int) -> np.ndarray | None:
        """Return what `Engine.run` returns; None if a shard has a length that the text does not support.

        gemm: address of the product.
        """
        memory, program, shards = self._memory, self._memory.program, self._shards
        order, rows = memory.upload(order, rows_in)
        n, n_steps = len(order), len(rows_in)
        last = n - (n_steps - 1) * shards.batch
        found = {size: numbers(size) for count in (shards.batch, last) for size in shards.sizes(count)}
        if any(values is None for values in found.values()):
            return None
        bounds = np.empty((n_steps, len(self._rows), 3), np.int64)
        bounds[:-1], bounds[-1] = self._bounds(shards.batch, found), self._bounds(last, found)
        bounds[:, :, :2] += shards.batch * np.arange(n_steps)[:, None, None]
        rows_out = np.empty((n_steps, len(program.results)), memory.backend.dtype)
        arrays = self._arrays | {"order": order, "rows_out": rows_out, "bounds": bounds, "rows_in": rows_out}
        if rows is not None:
            arrays["rows_in"] = rows
        values = {"n_samples": n, "n_steps": n_steps, "count": len(self._rows), "gemm": gemm}
        values |= {name: array.ctypes.data for name, array in arrays.items()}
        values["numbers"] = next(iter(found.values())).ctypes.data  # type: ignore[union-attr]
        values["sums"] = 0 if shards.is_all else ctypes.cast(self._function, ctypes.c_void_p).value or 0
        data = [memory.data[name][0].ctypes.data for name, _ in memory.gathers]
        self._calling.run(self._native.address, np.array([*(values[name] for name in TABLE), *data], np.int64))
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return rows_out.astype(np.float64)

    def _bounds(self, count: int, found: dict[int, np.ndarray | None]) -> np.ndarray:
        """Return (start, end, address of numbers) of each of this process's shards of a step of `count` samples."""
        rows = np.zeros((len(self._rows), 3), np.int64)
        for i, (start, end) in enumerate(self._shards.own(count)):
            its = found.get(end - start)
            rows[i] = start, end, 0 if its is None else its.ctypes.data
        return rows

    def _add(self) -> int:
        """Add what the other processes have; an error ends the run."""
        try:
            self._sum.merge(self._roots)
        except BaseException as error:  # would be lost between machine code and Python
            self._error = error
            return 1
        return 0
