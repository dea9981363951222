"""Ranks that are threads of this process: a communicator for tests without MPI."""

from __future__ import annotations

import threading
from itertools import accumulate

import numpy as np

PATIENCE = 20  # seconds that a rank waits for the others


class Aborted(BaseException):
    """A rank has ended all of them."""


class Ranks:
    """What the ranks of one test share."""

    def __init__(self, size):
        self.size, self.barrier = size, threading.Barrier(size, timeout=PATIENCE)
        self.given = [None] * size
        self.lines = []

    def run(self, function):
        """Call `function(communicator)` on each rank; returns the results, an exception where one was raised."""
        found = [None] * self.size

        def work(rank):
            try:
                found[rank] = function(Rank(self, rank))
            except BaseException as error:
                found[rank] = error

        threads = [threading.Thread(target=work, args=(rank,)) for rank in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        return found


class Rank:
    """The communicator of one of them; counts the elements that it sends to others."""

    name = "threads"

    def __init__(self, ranks, rank):
        self._ranks, self.rank, self.size, self.sent = ranks, rank, ranks.size, 0

    def __deepcopy__(self, memo):
        return self

    def gather(self, value):
        ranks = self._ranks
        ranks.given[self.rank] = value
        self._wait()
        found = list(ranks.given)
        self._wait()
        return found

    def broadcast(self, value):
        return self.gather(value)[0]

    def barrier(self):
        self.gather(None)

    def sum(self, array):
        array[...] = np.sum(self.gather(array.copy()), axis=0)
        self.sent += array.size

    def exchange(self, sent, sent_counts, received, counts):
        starts = [0, *accumulate(sent_counts)]
        parts = [sent[start : start + count].copy() for start, count in zip(starts, sent_counts, strict=False)]
        found = [mine[self.rank] for mine in self.gather(parts)]
        assert [part.size for part in found] == list(counts)
        received[...] = np.concatenate(found)
        self.sent += sum(count for peer, count in enumerate(sent_counts) if peer != self.rank)

    def gather_parts(self, array, counts):
        start = sum(counts[: self.rank])
        array[...] = np.concatenate(self.gather(array[start : start + counts[self.rank]].copy()))
        self.sent += counts[self.rank] * (self.size - 1)

    def abort(self, line):
        self._ranks.lines.append(line)
        self._ranks.barrier.abort()
        raise Aborted

    def _wait(self):
        try:
            self._ranks.barrier.wait()
        except threading.BrokenBarrierError:
            raise Aborted from None
