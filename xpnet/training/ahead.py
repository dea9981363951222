"""Run epochs ahead of their records: several by one call of the engine, where nothing changes between them.

Afterwards network and optimizer are put to the end of each epoch in turn, so that records, callbacks and checkpoints
see what they would see if the epochs were run one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence

from xpnet.data.feed import Feed, Whole
from xpnet.engines.engine import Engine
from xpnet.training.callbacks import Callback
from xpnet.training.options import Settings

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
        self._callbacks, self._n_steps = callbacks, settings.n_steps
        copied = memory.owned.nbytes + memory.state.nbytes + memory.keys.nbytes
        self._most = MOST_BYTES // (copied + 8 * n + 64 * self._n_steps)
        self._before, self._seconds = 1, CALL_SECONDS

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
