"""Send samples to a GPU while it computes with those before them: two halves of device memory, filled in turn.

A window of samples is gathered into page-locked memory of the host, and a stream that does nothing else copies it into
the half that the steps do not read. Events hold the order: a copy waits for the steps that read its half, the steps
wait for their copy, and the host waits for a copy before it writes over what that reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from xpnet.backend import Backend

Rows = dict[str, np.ndarray]  # name of the data -> rows (n, n_columns) in page-locked memory
Window = tuple[int, Callable[[Rows], None], np.ndarray]


class Staging:
    """Two halves of device memory, and as much page-locked memory of the host.

    columns: name of the data -> (numbers a sample, type).  capacity: samples of a half.
    arrays: name of the data -> (2 * capacity, numbers a sample) on the device.  bytes_sent: so far.
    """

    def __init__(self, backend: Backend, columns: Mapping[str, tuple[int, np.dtype[Any]]], capacity: int) -> None:
        self._cuda, self._capacity, self.bytes_sent = backend.xp.cuda, capacity, 0
        self.arrays = {name: backend.xp.empty((2 * capacity, n), dtype=dtype) for name, (n, dtype) in columns.items()}
        self._halves = [
            {name: self._page_locked(capacity, n, dtype) for name, (n, dtype) in columns.items()} for _ in range(2)
        ]
        # A blocking one waits for the default stream, and that for it.
        self._stream = self._cuda.Stream(non_blocking=True)
        self._copied = [self._cuda.Event(disable_timing=True) for _ in range(2)]
        self._read = self._cuda.Event(disable_timing=True)

    def _page_locked(self, capacity: int, n: int, dtype: np.dtype[Any]) -> np.ndarray:
        """Memory that is given back with the array; that of CuPy's pool is kept until the process ends."""
        memory = self._cuda.PinnedMemory(max(1, capacity * n * dtype.itemsize))
        pointer = self._cuda.PinnedMemoryPointer(memory, 0)
        return np.frombuffer(pointer, dtype, capacity * n).reshape(capacity, n)

    def ahead(self, windows: Iterable[Window]) -> Iterator[np.ndarray]:
        """Yield the order of each window, of samples in `arrays`, when the one behind it is on its way.

        windows: number of samples; a function that fills the rows of these names with them; their order.
        """
        half, first = 0, None
        try:
            for n, fill, order in windows:
                self._send(half, n, fill)
                if first is not None:
                    yield self._ready(*first)
                first, half = (half, order), 1 - half
            if first is not None:
                yield self._ready(*first)
        finally:
            self._stream.synchronize()  # neither memory is given back before the copies between them are over

    def _send(self, half: int, n: int, fill: Callable[[Rows], None]) -> None:
        self._copied[half].synchronize()
        rows = {name: array[:n] for name, array in self._halves[half].items()}
        fill(rows)
        self._read.record(self._cuda.get_current_stream())
        self._stream.wait_event(self._read)
        for name, array in rows.items():
            start = half * self._capacity
            self.arrays[name][start : start + n].set(array, self._stream)
            self.bytes_sent += array.nbytes
        self._copied[half].record(self._stream)

    def _ready(self, half: int, order: np.ndarray) -> np.ndarray:
        self._cuda.get_current_stream().wait_event(self._copied[half])
        return order + half * self._capacity
