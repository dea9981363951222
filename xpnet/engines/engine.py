"""The methods of every engine.

An engine holds one `Memory`, and none inherits from another: `Replay`, `Cuda` (CUDA) and `Compiled` (LLVM).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from xpnet.engines.memory import Memory
from xpnet.program.calls import Program


@dataclass(frozen=True)
class EpochsRun:
    """What epochs left, a row an epoch.

    results (n_epochs, n_steps, n_results), float64.
    owned, state, keys: copies at the end of each epoch, on the engine's device; without copies one row, what it holds.
    measured (n_epochs, n_steps, n_results) of the measuring engine, float64; None without one.
    """

    results: np.ndarray
    owned: Any
    state: Any
    keys: Any
    measured: np.ndarray | None


class RunsEpochs(Protocol):
    """Runs several epochs by one call, to the same bits as `Engine.run` for one after the other."""

    def run(self, orders: np.ndarray, rows_in: np.ndarray, copies: bool = True) -> EpochsRun:
        """Run an epoch for each row of `orders`.

        orders (n_epochs, n): indices into the gathered data.  rows_in (n_epochs, n_steps, n_slots), float64.
        copies: whether to copy what each epoch leaves. The next call may write over them.
        """


class Engine(Protocol):
    """Runs a Program on one backend.

    name: the engine's, as in records.  memory: the arrays that it works on.
    """

    name: str
    memory: Memory

    @abstractmethod
    def run(self, order: np.ndarray, rows_in: np.ndarray) -> np.ndarray:
        """Run a step for every `capacity` samples of `order`; the last step may be short.

        Updates follow the steps for which `Program.has_update` is true.
        order (n,): indices into the gathered data.  rows_in (n_steps, n_slots), float64: the slots of each step.
        Returns rows_out (n_steps, n_results) on the host, float64.
        There is one upload before the first step and one read after the last.
        """

    @abstractmethod
    def execute(self, batch: int, *phases: str) -> None:
        """Run these phases, or all of them, on the first `batch` samples of the buffers as they are."""

    def epochs(self, n: int, measuring: Engine | None = None) -> RunsEpochs | None:
        """Return what runs several epochs of n samples by one call; None where the engine runs each by itself.

        measuring: an engine on the same weights that runs over all its data after each epoch, if it can in that call.
        """
        return None

    def feed(self, batch: int, **arrays: Any) -> None:
        """Copy device arrays (n, batch) into the buffers of these names, instead of gathering."""
        for name, array in arrays.items():
            self.memory.view(name, batch)[...] = array

    def read(self, name: str, batch: int) -> Any:
        """Return the buffer of that name in the shape of the math: a view, valid until the next step.

        What no later call reads may stay unwritten, unless it is the network's, state, a result or an output.
        """
        return self.memory.view(name, batch)

    def set_slots(self, row: np.ndarray) -> None:
        """Fill the slots (n_slots,) for the next `execute`."""
        self.memory.set_slots(row)

    def read_results(self) -> dict[str, float]:
        """Return the results of the last `execute` by name, in one read from the device."""
        return self.memory.read_results()

    @property
    def program(self) -> Program:
        """The Program."""
        return self.memory.program

    @property
    def state(self) -> Any:
        """The floats besides theta and statistics that persist between steps; writable, to resume a run."""
        return self.memory.state

    @property
    def keys(self) -> Any:
        """The uint32 numbers that persist between steps, such as dropout's keys; writable."""
        return self.memory.keys

    @property
    def bytes_uploaded(self) -> int:
        """Bytes uploaded to the device so far: constants, indices and slots."""
        return self.memory.bytes_uploaded
