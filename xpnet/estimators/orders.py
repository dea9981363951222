"""The orders of the samples that scikit-learn draws, so that a `random_state` means in `fit` what it means there."""

from __future__ import annotations

from typing import Any

import numpy as np


class ScikitOrders:
    """Draws the order of each epoch by shuffling that of the epoch before.

    rng: what scikit-learn would draw from.  It stays as it is, since `train` may draw for more epochs than it runs;
    `follow` brings it to where scikit-learn would leave it.
    """

    def __init__(self, rng: np.random.RandomState) -> None:
        self._rng, self._start = rng, rng.get_state(legacy=False)
        self.bit_generator = self  # whose state a checkpoint keeps
        self._begin()

    def _begin(self) -> None:
        self._copy = np.random.RandomState()
        self._copy.set_state(self._start)
        self._order: Any = None
        self._n_drawn = 0

    def shuffle(self, order: np.ndarray) -> None:
        """Put the order (n,) of the next epoch in the place of 0, 1, 2, ..."""
        order[...] = self._next(len(order))

    def _next(self, n: int) -> np.ndarray:
        drawn = self._copy.permutation(n)
        self._order = drawn if self._order is None else self._order[drawn]
        self._n_drawn += 1
        return self._order

    @property
    def state(self) -> dict[str, Any]:
        """What `state = ...` goes back to: how many orders of how many samples were drawn."""
        return {"orders": self._n_drawn, "samples": 0 if self._order is None else len(self._order)}

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self._begin()
        for _ in range(state["orders"]):
            self._next(state["samples"])

    def follow(self, n_epochs: int, n: int) -> None:
        """Draw from `rng` what scikit-learn draws in so many epochs of n samples."""
        for _ in range(n_epochs):
            self._rng.permutation(n)
