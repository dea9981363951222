"""Call machine code on one thread or on several that work together."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np

from xpnet.engines.llvm.blas import Gemm

Function = Callable[[int, int], None]


class Calling:
    """Calls functions of a table and a thread's number.

    threads: that run a function together.  gemm: NumPy's product, if a function calls it; None otherwise.
    pause: address of a C function that yields the processor.
    """

    def __init__(self, threads: int, gemm: Gemm | None) -> None:
        self.threads, self._gemm, self._pause = threads, gemm, _sched_yield()
        self.pause = int(ctypes.cast(self._pause, ctypes.c_void_p).value or 0)

    def function(self, address: int) -> Function:
        """Return the function at an address; the GIL is released during its calls."""
        return ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(address)

    def run(self, function: Function, table: np.ndarray) -> None:
        """Run a function on all threads; an interrupt is raised after they have ended."""
        address = table.ctypes.data
        if self.threads == 1:
            function(address, 0)
            return
        # A thread that began alone would wait for the others for ever, so all begin or none. Not a barrier: a broken
        # one may still let the last thread through.
        gate, are_there = threading.Event(), [False]

        def work(i: int) -> None:
            gate.wait()
            if are_there[0]:
                function(address, i)

        workers = [threading.Thread(target=work, args=(i,)) for i in range(self.threads)]
        with self._gemm.one_thread() if self._gemm is not None else nullcontext():
            try:
                for worker in workers:
                    worker.start()
                are_there[0] = True
            finally:
                gate.set()
                _join(workers)


def _join(workers: list[threading.Thread]) -> None:
    """Wait until the threads have ended, whatever interrupts arrive; then raise the last interrupt."""
    interrupt: KeyboardInterrupt | None = None
    for worker in workers:
        while worker.is_alive():
            try:
                worker.join()
            except KeyboardInterrupt as error:
                interrupt = error
    if interrupt is not None:
        raise interrupt


def _sched_yield() -> Any:
    """Return a C function that yields the processor: the system's sched_yield, or else Python's."""

    def offer() -> int:
        time.sleep(0)
        return 0

    try:
        return ctypes.CDLL(None).sched_yield
    except (AttributeError, OSError, TypeError):  # not a POSIX system
        return ctypes.CFUNCTYPE(ctypes.c_int)(offer)
