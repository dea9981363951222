"""The compiled engine: a run of steps as one call of machine code, printed from the Program and compiled by LLVM.

The gather, every phase and the slots are inside, so that a step costs no Python at all. The arithmetic of elements is
the reference engine's to the bit; sums, products, exponentials and hyperbolic tangents round in other places.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from xpnet.backend import Backend
from xpnet.blas import numpy_gemm
from xpnet.executors.replay import Replay
from xpnet.llvm.step import LINE, TABLE, Library, scratch_floats, step_text
from xpnet.native import load
from xpnet.program import Program

LEAST_FLOPS = 3e6  # of a product on one thread, from which on NumPy's is the faster


class Compiled(Replay):
    """Runs a Program on the CPU as machine code; whatever is not a run of steps goes as in `Replay`.

    The arguments are those of `Replay`.  threads: how many run a step together.
    Raises ImportError without llvmlite: pip install 'xpnet[jit]'.
    """

    def __init__(
        self, program: Program, backend: Backend, owned: Any,
        data: Mapping[str, tuple[Any, float | None]] | None = None, threads: int = 1,
    ) -> None:  # fmt: skip
        self.threads = threads
        super().__init__(program, backend, owned, data)
        self._gemm = numpy_gemm(backend.dtype)
        library = None if self._gemm is None else Library(self._gemm.integer_bits, LEAST_FLOPS)
        scales = {name: scale for name, (_, scale) in self._data.items()}
        self._text = step_text(program, backend.dtype, scales, threads=threads, library=library)
        self.native = load(self._text.text)
        # Without the GIL, as all that ctypes calls.
        self._function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(self.native.address)
        self._flags = np.zeros(LINE * (threads + 1), np.int64)

    def run(self, order: np.ndarray, rows_in: np.ndarray) -> np.ndarray:
        """See `Replay.run`."""
        capacity, n_samples = self.program.capacity, len(order)
        n_steps, rest = -(-n_samples // capacity), n_samples % capacity
        order, rows = self._upload(self._check_order(order), rows_in, n_steps)
        rows_out = np.empty((n_steps, len(self.program.results)), self.backend.dtype)
        numbers = [self._numbers(m) for m in (capacity, rest or capacity)]
        sources = [self._data[name][0] for name, _ in self.program.gathers]
        gemm, pause = self._gemm, ctypes.cast(ctypes.pythonapi.PyErr_CheckSignals, ctypes.c_void_p)
        pause = ctypes.cast(ctypes.CDLL(None).sched_yield, ctypes.c_void_p)
        places = {
            "T": self._owned, "M": self._floats, "U": self._uints, "order": order, "rows_in": rows_out if rows is None else rows,
            "rows_out": rows_out, "numbers": numbers[0], "last_numbers": numbers[1], "flags": self._flags,
        }
        table = np.zeros(len(TABLE) + len(sources), np.int64)
        for i, name in enumerate(TABLE):
            if name == "n_samples":
                table[i] = n_samples
            elif name == "pause":
                table[i] = pause.value
            elif name == "gemm":
                table[i] = 0 if gemm is None else gemm.address
            else:
                table[i] = places[name].ctypes.data
        table[len(TABLE) :] = [source.ctypes.data for source in sources]
        with self._library_threads():
            others = [threading.Thread(target=self._function, args=(table.ctypes.data, i)) for i in range(1, self.threads)]
            for thread in others:
                thread.start()
            self._function(table.ctypes.data, 0)
            for thread in others:
                thread.join()
        return rows_out.astype(np.float64)

    @contextmanager
    def _library_threads(self) -> Iterator[None]:
        if self.threads > 1 and self._gemm is not None:
            with self._gemm.one_thread():
                yield
        else:
            yield

    def _numbers(self, batch: int) -> np.ndarray:
        program = self.program.at(batch)
        values = [program.calls[index].inputs[position] for index, position in self._text.numbers]
        return np.array(values or [0.0], self.backend.dtype)

    def _extra_floats(self, program: Program) -> int:
        return scratch_floats(program, self.threads)
