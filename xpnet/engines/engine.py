"""What every engine can do: the six methods that callers of a Program's engine use, whichever it is.

An engine holds one `Memory` and none is built on another: `Replay`, `Cuda` (CUDA) and `Compiled` (LLVM).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Protocol

import numpy as np

from xpnet.engines.memory import Memory
from xpnet.program.calls import Program


class Engine(Protocol):
    """Runs a Program on one backend.

    name: of the engine, as records tell it.  memory: the arrays that it works on.
    """

    name: str
    memory: Memory

    @abstractmethod
    def run(self, order: np.ndarray, rows_in: np.ndarray) -> np.ndarray:
        """Run a step for every `capacity` samples of `order`; the last step may be short.

        A Program that accumulates has its update where `Program.has_update` says so.
        order (n,): indices into the gathered data.  rows_in (n_steps, n_slots), float64: what each step's slots hold.
        Returns rows_out (n_steps, n_results) on the host, float64.
        Both travel once: one upload before the first step, one read after the last.
        """

    @abstractmethod
    def execute(self, batch: int, *phases: str) -> None:
        """Run these phases, or all of them, on the first `batch` samples of the buffers as they are."""

    def feed(self, batch: int, **arrays: Any) -> None:
        """Copy device arrays (n, batch) into the buffers of these names, in place of a gather."""
        for name, array in arrays.items():
            self.memory.view(name, batch)[...] = array

    def read(self, name: str, batch: int) -> Any:
        """Return the buffer of that name as the math sees it: a view, valid until the next step.

        On NumPy a vector that is only summed up may stay unwritten, such as the losses of the samples.
        """
        return self.memory.view(name, batch)

    def set_slots(self, row: np.ndarray) -> None:
        """Fill the slots (n_slots,) for the next `execute`."""
        self.memory.set_slots(row)

    def read_results(self) -> dict[str, float]:
        """Return the results of the last `execute`, by name; one read from the device."""
        return self.memory.read_results()

    @property
    def program(self) -> Program:
        """The Program that it runs."""
        return self.memory.program

    @property
    def state(self) -> Any:
        """What lives on from step to step besides theta and statistics; writable, to take up a run where it was."""
        return self.memory.state

    @property
    def keys(self) -> Any:
        """The uint32 numbers that live on from step to step, such as dropout's keys; writable."""
        return self.memory.keys

    @property
    def bytes_uploaded(self) -> int:
        """Bytes that have gone to the device: constants, indices and slots."""
        return self.memory.bytes_uploaded
