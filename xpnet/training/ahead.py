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
from xpnet.training.others import Others
from xpnet.training.records import Progress

CALL_SECONDS = 0.2  # of a call of the engine: between two looks at the clock and at Ctrl-C
GROWTH = 8  # a call lasts at most so many times as long as the one before, whose time may be that of a busy moment
CALL_RATE, FLOPS_RATE = 3e-6, 1e9  # of the first call: seconds of a recorded call, FLOPs a second, rather slow ones
MOST_BYTES = 1 << 25  # of orders and copies of the weights


class Lookahead:
    """Decides how many epochs the next call of the engine runs.

    is_unwatched: whether nobody needs the network between two epochs; see `TrainOptions`.
    measuring: the engine that measures after each epoch, None to leave that to Python.
    engine: what runs several epochs, None where each is run by itself.
    """

    def __init__(
        self,
        engine: Engine,
        feed: Feed,
        settings: Settings,
        callbacks: Sequence[Callback],
        is_unwatched: bool,
        measuring: Engine | None = None,
    ) -> None:
        n, memory = settings.n_used, engine.memory
        may_look = is_unwatched and isinstance(feed, Whole)
        self.engine, self._steps_engine = engine.epochs(n, measuring) if may_look else None, engine
        self._callbacks, self._settings, self._n_steps = callbacks, settings, settings.n_steps
        copied = memory.owned.nbytes + memory.state.nbytes + memory.keys.nbytes
        self._most = MOST_BYTES // (copied + 8 * n + 64 * self._n_steps)
        program = engine.program
        step_seconds = CALL_RATE * len(program.calls) + program.flops / FLOPS_RATE
        self._before, self._seconds = 1, self._n_steps * step_seconds

    def run(self, orders: np.ndarray, optimizer: Optimizer, others: Others, copies: bool = True) -> EpochsRun:
        """Run an epoch for each row of the orders (n_epochs, n), on other processes too.

        copies: whether to copy what each epoch leaves.
        """
        assert self.engine is not None
        slots = slots_of(optimizer, self._n_steps, self._settings.accumulate, len(orders))
        return others.run_epochs(self._steps_engine, self.engine, orders, slots, copies)

    def measured(self, n_epochs: int, seconds: float) -> None:
        """Take the seconds that the last epochs lasted."""
        self._before, self._seconds = n_epochs, seconds / n_epochs

    def n_epochs(self, n_left: int) -> int:
        """Return how many of the epochs left the next call runs; 1 for one by itself, in chunks."""
        if self.engine is None:
            return 1
        by_time = int(CALL_SECONDS / max(self._seconds, 1e-9))
        allowed = steps_allowed(self._callbacks, n_left * self._n_steps) // self._n_steps
        return max(1, min(GROWTH * self._before, by_time, self._most, allowed))


def steps_allowed(callbacks: Sequence[Callback], most: int) -> int:
    """Return how many steps may be run before the callbacks are asked again, at most `most`."""
    limits = (callback.steps_ahead() for callback in callbacks)
    return min([most, *(limit for limit in limits if limit is not None)])


def slots_of(optimizer: Optimizer, n_steps: int, accumulate: int, n_epochs: int = 1) -> np.ndarray:
    """Return the slots (n_epochs, n_steps, n_slots) of the next steps; those of one update share theirs.

    An update takes `accumulate` steps; the last one of an epoch may take fewer.
    """
    n_updates = -(-n_steps // accumulate)
    rows = optimizer.slot_rows(n_epochs * n_updates).reshape(n_epochs, n_updates, -1)
    return rows.repeat(min(accumulate, n_steps), axis=1)[:, :n_steps]


class StepResults:
    """What steps returned: (..., n_steps) of each name.

    samples (n_steps,): of each step, of which the last one may have fewer.  losses, weights: sums over these samples.
    means: losses divided by weights.
    """

    def __init__(self, rows: np.ndarray, names: Sequence[str], batch: int, n: int) -> None:
        """rows (..., n_steps, n_results): of the engine.  batch: samples of a full step.  n: of all steps."""
        self.by_name = {name: rows[..., i] for i, name in enumerate(names)}
        self.samples = np.full(rows.shape[-2], float(batch))
        self.samples[-1] = n - (len(self.samples) - 1) * batch
        self.losses = self.by_name["loss"]
        self.weights = self.by_name.get("weight", np.broadcast_to(self.samples, self.losses.shape))
        self.means = self.losses / self.weights

    def told(self, *epoch: int) -> dict[str, np.ndarray]:
        """Return what callbacks are told of the steps, (n_steps,) of each name.  epoch: its place, if there are any."""
        more = {name: values[epoch] for name, values in self.by_name.items() if name not in ("loss", "weight")}
        return {"loss": self.means[epoch], "samples": self.samples, **more}


class Totals:
    """The losses of several epochs.  steps: their results.

    are_finite (n_epochs,): whether all losses and weights are.
    """

    def __init__(self, results: np.ndarray, weights: np.ndarray, names: Sequence[str], settings: Settings) -> None:
        """results (n_epochs, n_steps, n_results), weights (n_epochs or 1, n): what the epochs left, on the host."""
        self.steps = StepResults(results, names, settings.batch, settings.n_used)
        self.are_finite = np.isfinite(self.steps.means).all(axis=1)
        if not np.isfinite(weights[-1]).all():  # no update makes a weight finite again
            self.are_finite &= np.isfinite(weights).all(axis=1)
        # From left to right, as if the steps were run in chunks.
        sums = (self.steps.losses, self.steps.weights)
        self._losses, self._weights = (np.add.accumulate(part, axis=1)[:, -1].tolist() for part in sums)
        self._last = self.steps.means[:, -1].tolist()

    def progress(self, i: int, begun: Progress, n_samples: int) -> Progress:
        """Return the progress at the end of epoch i.  begun: at its beginning.  n_samples: of its order."""
        sums = self._losses[i], self._weights[i], self._last[i]
        return Progress(begun.epoch, begun.order, len(self.steps.samples), n_samples, *sums, begun.seconds)
