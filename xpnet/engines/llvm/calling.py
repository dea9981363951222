"""Call machine code on one thread or on several that work together.

The other threads are Python's, but wait within machine code, without the GIL: a call wakes them in microseconds, and
between calls they sleep. They start at the first call and end with the object that calls.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from xpnet.engines.blas import Gemm, products_on
from xpnet.engines.llvm.native import Native, kept
from xpnet.engines.llvm.sequence import END, call_entries, sequence_text
from xpnet.engines.llvm.waiting import address_of, new_flags, pause_function

Function = Callable[[int, int], None]


def function_at(address: int) -> Function:
    """Return the function of a table and a thread's number at an address; the GIL is released during its calls."""
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(address)


class Calling:
    """Calls functions of a table and a thread's number.

    threads: that run a function together.  gemm: NumPy's product, if a function calls it; None otherwise.
    blas_threads: of such a product where one thread runs the function; None for as many as NumPy's has.
    """

    def __init__(self, threads: int, gemm: Gemm | None, blas_threads: int | None = None) -> None:
        self.threads, self._gemm = threads, gemm
        self._blas_threads = blas_threads if threads == 1 else 1
        self._workers: Workers | None = None

    @cached_property
    def native(self) -> Native:
        """The code that runs a list of functions; one thread needs none to run a single one."""
        return kept(sequence_text(self.threads))

    def run(self, address: int, table: np.ndarray) -> None:
        """Run the function at an address on all threads."""
        if self.threads == 1:
            with products_on(self._gemm, self._blas_threads):
                function_at(address)(table.ctypes.data, 0)
        else:
            self.run_list(call_entries(address, table[None], self.threads))

    def run_list(self, entries: np.ndarray) -> None:
        """Run a list (n, ENTRY) of functions and copies; an interrupt is raised after its end."""
        if self.threads == 1:
            head = np.array([len(entries), entries.ctypes.data, 0, 0], np.int64)
            with products_on(self._gemm, self._blas_threads):
                function_at(self.native.address)(head.ctypes.data, 0)
            return
        if self._workers is None or self._workers.process != os.getpid():  # a forked child has no threads but one
            self._workers = Workers(self.threads, self.native)
        workers = self._workers
        with products_on(self._gemm, self._blas_threads):
            workers.run(entries)
        if not workers.can_sleep:
            workers.end()
            self._workers = None


class Workers:
    """The threads beside the calling one, which wait for lists; they end with this object.

    threads: of all, the calling one included.  native: of `sequence_text(threads)`.
    process: to which they belong.  can_sleep: whether they sleep while they wait.
    """

    def __init__(self, threads: int, native: Native) -> None:
        self.process, flags = os.getpid(), new_flags(threads)
        self.can_sleep = bool(flags[2])
        pause = pause_function(flags)
        self._call = function_at(native.address)
        places = flags.ctypes.data, address_of(pause)
        self._head = np.array([0, 0, *places], np.int64)
        shared = _Shared(self._call, self._head, (flags, pause, native))
        self._running = shared.running
        self.end = weakref.finalize(self, _end, shared, self.process)
        _start(shared, threads)

    def run(self, entries: np.ndarray) -> None:
        """Run a list of functions and copies on all threads."""
        with self._running:
            self._head[:2] = len(entries), entries.ctypes.data
            self._call(self._head.ctypes.data, 0)


@dataclass
class _Shared:
    """What the threads share.

    head: of the list.  used: what else the code reads.  are_there: whether all have begun.  running: held in a list.
    """

    call: Function
    head: np.ndarray
    used: tuple[Any, ...]
    are_there: bool = False
    running: threading.Lock = field(default_factory=threading.Lock)


def _start(shared: _Shared, threads: int) -> None:
    """Start all threads or none: one that began alone would wait for the others for ever."""
    gate = threading.Event()  # not a barrier: a broken one may still let the last thread through

    def work(number: int) -> None:
        gate.wait()
        if shared.are_there:
            shared.call(shared.head.ctypes.data, number)

    workers = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(1, threads)]
    try:
        for worker in workers:
            worker.start()
        shared.are_there = True
    finally:
        gate.set()


def _end(shared: _Shared, process: int) -> None:
    """Let the threads end, in the process that they belong to: a forked child has none of them.

    If a daemon thread is in a list while the interpreter exits, its threads end with the process: a second first
    thread would wait for ever. The lock is kept, so that no list begins after the end.
    """
    if shared.are_there and process == os.getpid() and shared.running.acquire(blocking=False):
        shared.are_there = False
        shared.head[0] = END
        shared.call(shared.head.ctypes.data, 0)
