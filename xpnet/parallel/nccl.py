"""Processes with a GPU each: NCCL, by cupyx.distributed, moves and adds their arrays; MPI does all else."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from xpnet.backend import import_cupy
from xpnet.parallel.mpi import Mpi


class Nccl:
    """The processes of an MPI communicator, whose arrays lie on GPUs.

    name, rank, size: see `Communicator`.
    mpi: of the same processes.  backend: cupyx.distributed's.  nccl: the module cupy.cuda.nccl, for its groups.
    """

    name = "nccl"

    def __init__(self, mpi: Mpi, backend: Any, nccl: Any) -> None:
        self._mpi, self._backend, self._nccl = mpi, backend, nccl
        self.rank, self.size = mpi.rank, mpi.size
        self.gather, self.broadcast, self.barrier, self.abort = mpi.gather, mpi.broadcast, mpi.barrier, mpi.abort

    @classmethod
    def world(cls) -> Nccl:
        """Return the processes that one mpiexec started; each takes the GPU of its number on its machine."""
        mpi = Mpi.world()
        cupy, distributed = _libraries()
        cupy.cuda.Device(own_gpu(mpi, cupy.cuda.runtime.getDeviceCount())).use()
        backend = distributed.init_process_group(mpi.size, mpi.rank, backend="nccl", use_mpi=True)
        return cls(mpi, backend, cupy.cuda.nccl)

    def __deepcopy__(self, memo: dict[int, Any]) -> Nccl:
        return self

    def __reduce__(self) -> Any:
        return Nccl.world, ()

    def sum(self, array: Any) -> None:
        """See `Communicator.sum`."""
        self._backend.all_reduce(array, array)

    def exchange(self, sent: Any, sent_counts: Sequence[int], received: Any, counts: Sequence[int]) -> None:
        """See `Communicator.exchange`."""
        sent_starts, starts = ([0, *accumulate(one)] for one in (sent_counts, counts))
        self._nccl.groupStart()  # else each would wait for the other to receive
        for peer in range(self.size):
            self._backend.send(sent[sent_starts[peer] : sent_starts[peer + 1]], peer)
            self._backend.recv(received[starts[peer] : starts[peer + 1]], peer)
        self._nccl.groupEnd()

    def gather_parts(self, array: Any, counts: Sequence[int]) -> None:
        """See `Communicator.gather_parts`."""
        starts = [0, *accumulate(counts)]
        self._nccl.groupStart()
        for peer in range(self.size):
            self._backend.broadcast(array[starts[peer] : starts[peer + 1]], peer)
        self._nccl.groupEnd()


def own_gpu(mpi: Mpi, n_gpus: int) -> int:
    """Return the number of the GPU that belongs to this process, counted on its machine.

    Raises RuntimeError on every process if a machine has more of them than GPUs.
    """
    found = mpi.gather((socket.gethostname(), n_gpus))
    for host, gpus in dict(found).items():
        ranks = [rank for rank, (its, _) in enumerate(found) if its == host]
        if len(ranks) > gpus:
            raise RuntimeError(
                f"{host} has {len(ranks)} ranks and {gpus} GPU{'s' * (gpus != 1)}, and NCCL needs one for each; "
                f"start {gpus} there, or take communicator='mpi'"
            )
    return [rank for rank, (its, _) in enumerate(found) if its == found[mpi.rank][0]].index(mpi.rank)


def _libraries() -> tuple[Any, Any]:
    cupy = import_cupy()
    try:
        import cupyx.distributed
    except ImportError as error:
        raise ImportError(
            f"communicator='nccl' needs CuPy with NCCL, and this one has none ({error}). "
            "Run: pip install 'xpnet[cuda13]'"
        ) from None
    return cupy, cupyx.distributed
