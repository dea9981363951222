"""Processes that mpiexec started, by mpi4py."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

VARIABLES = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK")  # in which an mpiexec gives a process its rank


class Mpi:
    """The processes of an MPI communicator; arrays are NumPy's, those of a GPU go by the host.

    name, rank, size: see `Communicator`.
    """

    name = "mpi"

    def __init__(self, comm: Any, in_place: Any) -> None:
        self._comm, self._in_place, self._process = comm, in_place, os.getpid()
        self.rank, self.size = int(comm.Get_rank()), int(comm.Get_size())

    @classmethod
    def world(cls) -> Mpi:
        """Return the processes that one mpiexec started."""
        mpi = _library()
        return cls(mpi.COMM_WORLD, mpi.IN_PLACE)

    def __deepcopy__(self, memo: dict[int, Any]) -> Mpi:
        return self  # as in a clone of an estimator

    def __reduce__(self) -> Any:
        return Mpi.world, ()

    def sum(self, array: Any) -> None:
        """See `Communicator.sum`."""
        host = _on_host(array)
        self._here().Allreduce(self._in_place, host)
        _return(host, array)

    def exchange(self, sent: Any, sent_counts: Sequence[int], received: Any, counts: Sequence[int]) -> None:
        """See `Communicator.exchange`."""
        host = _on_host(received)
        self._here().Alltoallv([_on_host(sent), sent_counts], [host, counts])
        _return(host, received)

    def gather_parts(self, array: Any, counts: Sequence[int]) -> None:
        """See `Communicator.gather_parts`."""
        host = _on_host(array)
        self._here().Allgatherv(self._in_place, [host, counts])
        _return(host, array)

    def gather(self, value: Any) -> list[Any]:
        """See `Communicator.gather`."""
        values: list[Any] = self._here().allgather(value)
        return values

    def broadcast(self, value: Any) -> Any:
        """See `Communicator.broadcast`."""
        return self._here().bcast(value)

    def barrier(self) -> None:
        """See `Communicator.barrier`."""
        self._here().Barrier()

    def abort(self, line: str) -> None:
        """See `Communicator.abort`."""
        os.write(2, f"xpnet: {line}\n".encode())
        self._comm.Abort(1)
        os._exit(1)  # while the others are being ended

    def _here(self) -> Any:
        """Return MPI's communicator, unless this process was forked from the one that it belongs to."""
        if os.getpid() != self._process:
            raise RuntimeError(
                f"MPI belongs to process {self._process}, and this is process {os.getpid()}, a fork of it; needed is "
                "a process that mpiexec started: train outside of multiprocessing, or take communicator=None there"
            )
        return self._comm


def is_started_by_mpiexec() -> bool:
    """Return whether an mpiexec started this process."""
    return any(name in os.environ for name in VARIABLES)


def rank_given() -> int:
    """Return the rank that an mpiexec gave this process, without a word to the others; 0 where none did."""
    found = next((os.environ[name] for name in VARIABLES if name in os.environ), "0")
    return int(found) if found.isdecimal() else 0


def _library() -> Any:
    """Return mpi4py's MPI; raises ImportError that names the extra."""
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise ImportError(
            f"communicator='mpi' needs mpi4py, and it is not installed ({error}). Run: pip install 'xpnet[mpi-local]', "
            "or 'xpnet[mpi]' where the machine has an MPI"
        ) from None
    except RuntimeError as error:  # mpi4py looks for the library by its names
        raise ImportError(
            f"communicator='mpi' needs an MPI library, and mpi4py finds none ({' '.join(str(error).split())}). "
            "Run: pip install 'xpnet[mpi-local]'"
        ) from None
    return MPI


def _on_host(array: Any) -> np.ndarray:
    return array if isinstance(array, np.ndarray) else np.asarray(array.get())


def _return(host: np.ndarray, array: Any) -> None:
    """Write a result that was computed on the host into the array of a GPU that it belongs to."""
    if host is not array:
        array.set(host)
