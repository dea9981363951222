"""Add the messages of all shards of a step, in one order whichever process computed them.

The order is that of a binary tree over the shards. Each process adds what lies whole within its own shards, so that it
sends one message, or a few where the number of processes is no power of two. Then each adds a range of the messages'
elements, and all gather these: the bytes that it sends are those of an all-reduce.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from xpnet.checks import check_option
from xpnet.parallel.communicator import Communicator
from xpnet.program.shards import Shards, shards_of

FIXED, FAST = "fixed", "fast"
REDUCTIONS = (FIXED, FAST)
SHARDS = 8  # of a step's batch where the reduction is fixed


class Tree:
    """Adds arrays of one length in the order of a binary tree over the places 0, 1, 2, ...

    Arrays come in order of their places; `added` keeps the sums of the largest whole subtrees so far.
    """

    def __init__(self, xp: Any) -> None:
        self._xp = xp
        self._spare: list[Any] = []
        self.added: list[tuple[int, int, Any]] = []  # first place, places, sum

    def begin(self) -> None:
        """Forget all sums."""
        self._spare += [array for _, _, array in self.added]
        self.added = []

    def add(self, first: int, count: int, array: Any) -> None:
        """Add the sum of the places from `first` on; the array is read, not kept."""
        node, is_own = array, False
        while self.added:
            start, places, before = self.added[-1]
            if places != count or start % (2 * count):
                break
            self.added.pop()
            self._xp.add(before, node, out=before)
            if is_own:
                self._spare.append(node)
            first, count, node, is_own = start, 2 * count, before, True
        if not is_own:
            node = self._spare.pop() if self._spare else self._xp.empty_like(array)
            node[...] = array
        self.added.append((first, count, node))

    def finish(self, out: Any) -> None:
        """Write the sum of all places into `out`, the rest of an incomplete tree from the right."""
        total = self.added[-1][2]
        for _, _, before in reversed(self.added[:-1]):
            self._xp.add(before, total, out=total)
        out[...] = total
        self.begin()


class Reduction:
    """Adds the messages of the shards of a step over all processes.

    communicator: of the processes.  kind: "fixed" or "fast".
    """

    def __init__(self, communicator: Communicator, kind: str = FIXED) -> None:
        self.communicator, self.kind = communicator, check_option("reduction", kind, REDUCTIONS)

    def shards(self, batch: int) -> Shards:
        """Return the shards of a batch of that many samples: as many as processes where the reduction is fast."""
        count = SHARDS if self.kind == FIXED else self.communicator.size
        return shards_of(batch, count, self.communicator.rank, self.communicator.size)

    def over(self, shards: Shards, message: Any, xp: Any) -> Sum:
        """Return what adds the messages of one step after the other.

        message (n,): of a shard, and of all after `Sum.finish`.
        """
        return (FixedSum if self.kind == FIXED else FastSum)(self.communicator, shards, message, xp)


class FastSum:
    """Adds by the library's all-reduce; every process has one shard."""

    def __init__(self, communicator: Communicator, shards: Shards, message: Any, xp: Any) -> None:
        self._communicator, self._message = communicator, message

    def add(self, number: int) -> None:
        """The message is that of the one shard already."""

    def finish(self) -> None:
        """Replace the message by the sum over all processes."""
        self._communicator.sum(self._message)

    def merge(self, sums: list[Any]) -> None:
        """Make the message the sum over all processes.  sums: of this one."""
        self._message[...] = sums[0]
        self.finish()


class FixedSum:
    """Adds in the order of the tree over all shards."""

    def __init__(self, communicator: Communicator, shards: Shards, message: Any, xp: Any) -> None:
        self._communicator, self._message, self._xp = communicator, message, xp
        self._own, self._all, self._first = Tree(xp), Tree(xp), shards.first
        if communicator.size > 1:
            self._plan(shards)

    def _plan(self, shards: Shards) -> None:
        """Lay out what goes to whom: a range of elements to each process, of each of its sums."""
        size, rank, n = self._communicator.size, self._communicator.rank, self._message.size
        ranks = [shards_of(shards.batch, shards.count, i, size) for i in range(size)]
        self._subtrees = [subtrees(one.first, one.last) for one in ranks]
        self._starts = [i * n // size for i in range(size + 1)]
        self._counts = [end - start for start, end in pairwise(self._starts)]
        own, mine = len(self._subtrees[rank]), self._counts[rank]
        self._sent_counts = [own * count for count in self._counts]
        self._received_counts = [len(one) * mine for one in self._subtrees]
        self._received = self._xp.empty(sum(self._received_counts), dtype=self._message.dtype)
        self._sent = None if own == 1 else self._xp.empty(own * n, dtype=self._message.dtype)

    def add(self, number: int) -> None:
        """Take the message of this process's next shard.  number: of the shard among all."""
        self._own.add(number, 1, self._message)

    def finish(self) -> None:
        """Replace the message by the sum over all shards."""
        if self._communicator.size == 1:
            self._own.finish(self._message)
            return
        self.merge([array for _, _, array in self._own.added])
        self._own.begin()

    def merge(self, sums: list[Any]) -> None:
        """Make the message the sum over all shards.  sums: of this process's subtrees."""
        self._communicator.exchange(self._packed(sums), self._sent_counts, self._received, self._received_counts)
        rank, place = self._communicator.rank, 0
        mine = self._counts[rank]
        for nodes in self._subtrees:
            for first, count in nodes:
                self._all.add(first, count, self._received[place : place + mine])
                place += mine
        self._all.finish(self._message[self._starts[rank] : self._starts[rank + 1]])
        self._communicator.gather_parts(self._message, self._counts)

    def _packed(self, sums: list[Any]) -> Any:
        """Return the sums of this process, the ranges of each other process side by side."""
        if self._sent is None:
            return sums[0]
        place = 0
        for start, end in pairwise(self._starts):
            for array in sums:
                self._sent[place : place + end - start] = array[start:end]
                place += end - start
        return self._sent


Sum = FixedSum | FastSum


def subtrees(first: int, last: int) -> list[tuple[int, int]]:
    """Return the largest whole subtrees of the places from `first` up to `last`: (first place, places) of each."""
    found: list[tuple[int, int]] = []
    while first < last:
        count = first & -first or 1 << (last - first).bit_length()
        while first + count > last:
            count //= 2
        found.append((first, count))
        first += count
    return found


def check_ranks(reduction: Reduction, n_samples: int) -> None:
    """Refuse more processes than shards or than samples, which would have nothing to do."""
    size = reduction.communicator.size
    if reduction.kind == FIXED and size > SHARDS:
        raise ValueError(
            f"{size} processes train together and reduction='fixed' has {SHARDS} shards of a step, one each at most; "
            f"start {SHARDS} or fewer, or take reduction='fast'"
        )
    if size > n_samples:
        raise ValueError(
            f"{size} processes train together and a step has {n_samples} sample{'s' * (n_samples > 1)}, one each at "
            f"least; start {n_samples} or fewer, or give more samples a step"
        )
