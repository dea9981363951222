"""The few calls by which processes talk to each other, and the one process that talks to nobody.

`communicator("mpi")` is the world of mpiexec, by mpi4py; `communicator("nccl")` adds on GPUs, and talks by MPI.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from xpnet.checks import check_option

__all__ = ["communicator"]

KINDS = ("single", "mpi", "nccl")


class Communicator(Protocol):
    """Processes that call the same methods in the same order.

    name: its kind.  rank: the number of this process, from 0.  size: how many there are.
    """

    @property
    def name(self) -> str:
        """The kind."""
        ...

    @property
    def rank(self) -> int:
        """The number of this process, from 0."""
        ...

    @property
    def size(self) -> int:
        """How many processes there are."""
        ...

    def sum(self, array: Any) -> None:
        """Replace the array of every process by the sum of all, added as the library likes."""

    def exchange(self, sent: Any, sent_counts: Sequence[int], received: Any, counts: Sequence[int]) -> None:
        """Send a part of `sent` to each process, and receive a part of `received` from each, side by side.

        sent, received: flat arrays.  sent_counts, counts: elements for, and of, each process.
        """

    def gather_parts(self, array: Any, counts: Sequence[int]) -> None:
        """Fill a flat array, of which each process has its part of `counts` elements, with the parts of all."""

    def gather(self, value: Any) -> list[Any]:
        """Return the small values of all processes, in order of rank, to every process."""
        ...

    def broadcast(self, value: Any) -> Any:
        """Return the value of process 0 to every process."""
        ...

    def barrier(self) -> None:
        """Return when every process has called it."""

    def abort(self, line: str) -> None:
        """Say a line on stderr and end all processes at once, this one included."""


class Single:
    """One process."""

    name, rank, size = "single", 0, 1

    def sum(self, array: Any) -> None:
        """See `Communicator.sum`."""

    def exchange(self, sent: Any, sent_counts: Sequence[int], received: Any, counts: Sequence[int]) -> None:
        """See `Communicator.exchange`."""
        received[...] = sent

    def gather_parts(self, array: Any, counts: Sequence[int]) -> None:
        """See `Communicator.gather_parts`."""

    def gather(self, value: Any) -> list[Any]:
        """See `Communicator.gather`."""
        return [value]

    def broadcast(self, value: Any) -> Any:
        """See `Communicator.broadcast`."""
        return value

    def barrier(self) -> None:
        """See `Communicator.barrier`."""

    def abort(self, line: str) -> None:
        """Nothing else runs: the error that led here ends this process."""


def follows(communicator: Communicator | None) -> bool:
    """Return whether another process decides, and calls the callbacks.  communicator: None for one process alone."""
    return communicator is not None and communicator.rank > 0


def communicator(kind: str = "mpi") -> Communicator:
    """Return the processes that train together, for `xpnet.train(..., communicator=...)`.

    kind: "mpi", those that mpiexec started, one where it started none; "nccl", the same, each with a GPU, on which NCCL
    adds; "single", this process alone.
    Raises ImportError without mpi4py or an MPI library, or CuPy for "nccl"; RuntimeError in a process that was forked
    from one that uses MPI, and for two processes on one GPU.
    """
    check_option("communicator", kind, KINDS)
    if kind == "single":
        return Single()
    if kind == "mpi":
        from xpnet.parallel.mpi import Mpi

        return Mpi.world()
    from xpnet.parallel.nccl import Nccl

    return Nccl.world()
