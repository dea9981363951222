"""A model of a step on many ranks: the step of one, and what its message costs on a network.

It measures nothing on a network: what it says of many machines is arithmetic, and is to be marked as that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

SLOW, FAST = 20e-6, 2e-6  # seconds of a message's way: by TCP over Ethernet, and by remote access to memory
FAST_FROM = 100.0  # Gbit/s from which on networks are taken to be of the second kind


@dataclass(frozen=True)
class Wire:
    """A network between ranks.  gbits: Gbit/s of each rank.  latency: seconds of a message's way."""

    gbits: float
    latency: float

    @classmethod
    def of(cls, gbits: float) -> Wire:
        """Return a network of that speed with the latency that is usual for it."""
        return cls(gbits, FAST if gbits >= FAST_FROM else SLOW)

    def seconds(self, n_bytes: float, ranks: int) -> float:
        """Return how long ranks take to add a message: a reduce-scatter and an all-gather, by halves.

        Source: Thakur, Rabenseifner and Gropp (2005), Optimization of Collective Communication Operations in MPICH.
        """
        rounds, share = math.ceil(math.log2(ranks)), (ranks - 1) / ranks
        return 2.0 * rounds * self.latency + 2.0 * share * n_bytes / (self.gbits * 1e9 / 8.0)


def step_seconds(one: float, n_bytes: float, ranks: int, wire: Wire) -> float:
    """Return the seconds of a step in which each rank computes as many samples as one did alone.

    one: seconds of a step of one rank.  n_bytes: of the message.
    """
    return one + wire.seconds(n_bytes, ranks)
