"""The cut of a step's batch into shards, of which each process of a training computes some."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class Shards:
    """The batch of a step, cut into `count` shards; this process computes those from `first` up to `last`.

    batch: samples of a step.
    All shards have `size` samples, but the last ones may have fewer or none. The cut depends on the batch and the count
    alone, so that it is the same for every number of processes.
    """

    batch: int
    count: int
    first: int
    last: int

    @property
    def size(self) -> int:
        """Samples of a full shard."""
        return -(-self.batch // self.count)

    @property
    def is_all(self) -> bool:
        """Whether this process computes all of them."""
        return (self.first, self.last) == (0, self.count)

    def sizes(self, n: int) -> set[int]:
        """Return the sizes of the shards of a step of n samples that are not empty."""
        return {size for size in (min(n, self.size), n % self.size) if size}

    def places(self, n: int) -> np.ndarray:
        """Return the places, in an order of n samples, of those that this process computes with."""
        places = np.arange(n)
        shard = places % self.batch // self.size
        return places[(shard >= self.first) & (shard < self.last)]

    def own(self, n: int) -> list[tuple[int, int]]:
        """Return where this process's shards of a step of n samples begin and end, counted in the step."""
        bounds = [min(i * self.size, n) for i in range(self.first, self.last + 1)]
        return list(pairwise(bounds))


def shards_of(batch: int, count: int, rank: int, n_ranks: int) -> Shards:
    """Return the shards of one of several processes: shards side by side, as many as others or one more or less."""
    return Shards(batch, count, rank * count // n_ranks, (rank + 1) * count // n_ranks)
