"""Run epochs ahead of their records: several by one call of the engine, where nothing changes between them.

Afterwards network and optimizer are put to the end of each epoch in turn, so that records, callbacks and checkpoints
see what they would see if the epochs were run one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xpnet.data.feed import Feed, Whole
from xpnet.engines.engine import Engine, EpochsRun
from xpnet.training.callbacks import Callback
from xpnet.training.optimizers import Optimizer
from xpnet.training.options import Settings
from xpnet.training.records import Progress

CALL_SECONDS = 0.2  # of a call of the engine: between two looks at the clock and at Ctrl-C
GROWTH = 8  # a call lasts at most so many times as long as the one before, whose time may be that of a busy moment
MOST_BYTES = 1 << 25  # of orders and copies of the weights


class Lookahead:
    """Decides how many epochs the next call of the engine runs.

    is_alone: whether nobody but the callbacks sees the network between two epochs.
    measuring: the engine that measures after each epoch, None to leave that to Python.
    engine: what runs several epochs, None where each is run by itself.
    """

    def __init__(
        self,
        engine: Engine,
        feed: Feed,
        settings: Settings,
        callbacks: Sequence[Callback],
        is_alone: bool,
        measuring: Engine | None = None,
    ) -> None:
        n, memory = settings.n_used, engine.memory
        may_look = is_alone and isinstance(feed, Whole) and all(callback.only_watches for callback in callbacks)
        self.engine = engine.epochs(n, measuring) if may_look else None
        self._callbacks, self._settings, self._n_steps = callbacks, settings, settings.n_steps
        copied = memory.owned.nbytes + memory.state.nbytes + memory.keys.nbytes
        self._most = MOST_BYTES // (copied + 8 * n + 64 * self._n_steps)
        self._before, self._seconds = 1, CALL_SECONDS

    def run(self, orders: np.ndarray, optimizer: Optimizer) -> EpochsRun:
        """Run an epoch for each row of the orders (n_epochs, n)."""
        assert self.engine is not None
        settings, n_epochs = self._settings, len(orders)
        count, accumulate = settings.n_steps, settings.accumulate
        rows = optimizer.slot_rows(n_epochs * settings.n_updates).reshape(n_epochs, settings.n_updates, -1)
        return self.engine.run(orders, rows.repeat(min(accumulate, count), axis=1)[:, :count])

    def measured(self, n_epochs: int, seconds: float) -> None:
        """Take the seconds that the last epochs lasted."""
        self._before, self._seconds = n_epochs, seconds / n_epochs

    def n_epochs(self, n_left: int) -> int:
        """Return how many of the epochs left the next call runs; 1 for one by itself, in chunks."""
        if self.engine is None:
            return 1
        limits = (callback.steps_ahead() for callback in self._callbacks)
        allowed = [limit // self._n_steps for limit in limits if limit is not None]
        by_time = int(CALL_SECONDS / max(self._seconds, 1e-9))
        return max(1, min([n_left, GROWTH * self._before, by_time, self._most, *allowed]))


class Totals:
    """The losses of several epochs.

    results: name -> (n_epochs, n_steps).  samples (n_steps,): of each step.  means (n_epochs, n_steps): of each step.
    are_finite (n_epochs,): whether all losses and weights are.
    """

    def __init__(self, ran: EpochsRun, names: Sequence[str], settings: Settings) -> None:
        self._settings = settings
        self.results = {name: ran.results[..., i] for i, name in enumerate(names)}
        self.samples = np.full(settings.n_steps, float(settings.batch))
        self.samples[-1] = settings.n_used - (settings.n_steps - 1) * settings.batch
        losses = self.results["loss"]
        weights = self.results.get("weight", np.broadcast_to(self.samples, losses.shape))
        self.means = losses / weights
        self.are_finite = np.isfinite(self.means).all(axis=1) & np.isfinite(ran.owned).all(axis=1)
        # From left to right, as if the steps were run in chunks.
        self._losses, self._weights = (np.add.accumulate(part, axis=1)[:, -1].tolist() for part in (losses, weights))
        self._last = self.means[:, -1].tolist()

    def progress(self, i: int, begun: Progress, n_samples: int) -> Progress:
        """Return the progress at the end of epoch i.  begun: at its beginning.  n_samples: of its order."""
        sums = self._losses[i], self._weights[i], self._last[i]
        return Progress(begun.epoch, begun.order, self._settings.n_steps, n_samples, *sums, begun.seconds)
