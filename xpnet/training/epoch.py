"""An epoch of `xpnet.training.loop`: steps in chunks, the guard against divergence, and the moments to resume from."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xpnet.data.dataset import Dataset
from xpnet.data.feed import Blocks, Feed, Orders, draw, feed_of
from xpnet.engines.choice import make_engine
from xpnet.engines.engine import Engine, EpochsRun
from xpnet.network.network import Network
from xpnet.network.parameters import random_generator
from xpnet.parallel.communicator import Single
from xpnet.program.calls import Program
from xpnet.training.ahead import CALL_SECONDS, GROWTH, Lookahead, StepResults, Totals, slots_of, steps_allowed
from xpnet.training.callbacks import Callback
from xpnet.training.evaluation import input_range
from xpnet.training.guard import Guard
from xpnet.training.optimizers import Optimizer
from xpnet.training.options import Settings, run_fingerprint
from xpnet.training.others import Others
from xpnet.training.position import Position
from xpnet.training.records import Moment, Progress, Record


@dataclass(frozen=True)
class EpochDone:
    """An epoch that is over: its progress, why a callback ended it early, and the sums of the validation in its call.

    measured (n_steps, n_results): None where the validation is still to be run.
    """

    progress: Progress
    reason: str | None
    measured: np.ndarray | None = None


class Runner:
    """Runs the epochs of one training, and saves and restores its position.

    feed: gathers the samples of its engine.  whole_feed: reads all samples, also where other processes train on some.
    """

    def __init__(
        self,
        network: Network,
        optimizer: Optimizer,
        dataset: Dataset,
        program: Program,
        settings: Settings,
        callbacks: Sequence[Callback],
        others: Others | None = None,
        beside: int = 0,
    ) -> None:
        """others: the other processes of a training that this one leads.  beside: see `feed_of`."""
        self.settings, n_update = settings, settings.batch * settings.accumulate
        self.feed = feed_of(dataset, network.backend, n_update, program.shards, beside=beside)
        self.engine = engine_for(program, network, self.feed, settings)
        self._others = Others(Single(), network, False) if others is None else others
        self.whole_feed = self.feed
        if isinstance(self.feed, Blocks):
            self.feed.before_loading = self._others.load
            if self.feed.is_partial:
                self.whole_feed = feed_of(dataset, network.backend, settings.batch)
        self._network, self._optimizer, self._callbacks = network, optimizer, callbacks
        self._rng: Orders | None = random_generator(settings.seed, 1) if settings.shuffle else None
        if not isinstance(settings.shuffle, bool):
            self._rng = settings.shuffle
        self._left_out = dataset.n_samples - settings.n_used
        self._guard = Guard(network, optimizer, dataset)
        network.inputs = input_range(dataset)
        self._may_be_left = any(type(callback).on_pause is not Callback.on_pause for callback in callbacks)
        fit = run_fingerprint(network, optimizer, dataset, settings) if self._may_be_left else {}
        self._position = Position(network, optimizer, self.engine, callbacks, self._guard, self._rng, fit)
        self._has_begun = False
        self.look_ahead(is_unwatched=False)
        self.begin(1)

    def look_ahead(self, is_unwatched: bool, measuring: Engine | None = None, is_validated: bool = True) -> None:
        """Decide whether several epochs may be run by one call; see `Lookahead`.  is_validated: after each epoch."""
        self._are_seen = bool(self._callbacks) or is_validated
        self._lookahead = Lookahead(self.engine, self.feed, self.settings, self._callbacks, is_unwatched, measuring)

    def begin(self, epoch: int) -> None:
        """Begin an epoch; what the network holds now becomes its last good state."""
        self._optimizer.attach(self._network, self.engine)
        self._guard.keep()
        self.progress = Progress(epoch, self._order_state())
        if epoch > 1:
            self._guard.accept()

    def end(self, failure: object, *details: object) -> None:
        """Copy the optimizer's state out of the engine; after a failure before the first step all is as before.

        failure: None, or the type of an exception, as for `__exit__`.
        """
        self._optimizer.detach()
        if failure is not None and not self._has_begun:
            self._guard.undo()

    def _order_state(self) -> Any:
        return None if self._rng is None else dict(self._rng.bit_generator.state)

    def epochs(self, history: list[Record], n_left: int) -> Iterator[EpochDone]:
        """Run some of the epochs left, one at least, and yield each with network and optimizer as at its end.

        history: the records so far; the caller appends that of each epoch.  Diverged epochs: see `run`.
        """
        n_epochs = 1 if self.progress.samples else self._lookahead.n_epochs(n_left)  # one that was resumed is run on
        if n_epochs > 1:
            yield from self._run_ahead(n_epochs)
            return
        reason, done = self.run(history), self.progress
        self._lookahead.measured(1, done.seconds)
        self.begin(done.epoch + 1)
        yield EpochDone(done, reason)

    def _run_ahead(self, n_epochs: int) -> Iterator[EpochDone]:
        """Run epochs by one call of the engine, then put network and optimizer to the end of each in turn."""
        try:
            started, begins = time.perf_counter(), [self.progress]
            orders = np.tile(np.arange(self.feed.n_samples), (n_epochs, 1))
            for epoch, order in enumerate(orders, self.progress.epoch + 1):
                draw(order, self._rng)
                begins.append(Progress(epoch, self._order_state() if self._may_be_left else None))
            orders = orders[:, : self.settings.n_used]
            ran = self._run_orders(orders, copies=self._are_seen)
            seconds = time.perf_counter() - started
            self._lookahead.measured(n_epochs, seconds)
            for progress in begins[:-1]:
                progress.seconds = seconds / n_epochs
            totals = self._totals(ran)
            if self._are_seen:
                yield from self._looked_at(ran, totals, begins)
            elif totals.are_finite.all():
                yield from self._not_looked_at(totals, begins, orders)
            else:
                self._guard.rewind()
                self.engine.memory.floats[...] = 0.0  # as at first: where no array lies, infinity times zero may stay
                ran = self._run_orders(orders)
                yield from self._looked_at(ran, self._totals(ran), begins)
            self.begin(self.progress.epoch)
        except BaseException as error:
            self._guard.go_back(error)
            raise

    def _totals(self, ran: EpochsRun) -> Totals:
        weights = self.engine.memory.backend.to_host(ran.owned)
        return Totals(ran.results, weights, self.engine.program.results, self.settings)

    def _run_orders(self, orders: np.ndarray, copies: bool = True) -> EpochsRun:
        self._optimizer.attach(self._network, self.engine)
        self._has_begun = True
        return self._lookahead.run(orders, self._optimizer, self._others, copies)

    def _not_looked_at(self, totals: Totals, begins: list[Progress], orders: np.ndarray) -> Iterator[EpochDone]:
        """Yield each epoch; network and optimizer are as at the end of the last one, which nobody sees before.

        Where the caller goes no further than an epoch, the epochs up to it are run again.
        """
        n_updates, n_samples = self.settings.n_updates, self.feed.n_samples
        self._optimizer.advance(n_updates * len(orders))
        for i, begun in enumerate(begins[:-1]):
            self.progress = begins[i + 1]
            try:
                yield EpochDone(totals.progress(i, begun, n_samples), None)
            except GeneratorExit:
                if i + 1 < len(orders):
                    self._guard.rewind()
                    self._run_orders(orders[: i + 1])
                    self._optimizer.advance(n_updates * (i + 1))
                raise

    def _looked_at(self, ran: EpochsRun, totals: Totals, begins: list[Progress]) -> Iterator[EpochDone]:
        """Yield each epoch with network, optimizer and progress as at its end; raises TrainingDiverged at a bad one."""
        settings, guard = self.settings, self._guard
        arrays = (self._network.owned, ran.owned), (self.engine.state, ran.state), (self.engine.keys, ran.keys)

        def put(epoch: int) -> None:
            for array, copies in arrays:
                array[...] = copies[epoch]

        for i, begun in enumerate(begins[:-1]):
            done = totals.progress(i, begun, self.feed.n_samples)
            if not totals.are_finite[i] and i > 0:
                put(i - 1)
                guard.keep()
                guard.accept()
            self._optimizer.advance(settings.n_updates)
            if not totals.are_finite[i]:
                guard.check_losses(totals.steps.means[i], replace(begun))
                raise guard.diverged(done)
            put(i)
            self._tell(totals.steps.told(i))
            reason = self._reason(done, done.loss / done.weight)
            self.progress = begins[i + 1]
            yield EpochDone(done, reason, None if ran.measured is None else ran.measured[i])

    def run(self, history: list[Record]) -> str | None:
        """Run the rest of the epoch and return why a callback ended it early, or None.

        history: the records so far.  If the training diverges, network and optimizer go back to the last good state.
        """
        try:
            reason = self._run(history)
            self._guard.check_weights(self.progress)
            return reason
        except BaseException as error:
            self._guard.go_back(error)
            raise

    def _run(self, history: list[Record]) -> str | None:
        progress, program = self.progress, self.engine.program
        batch, accumulate = program.per_step, program.accumulate
        size, started = accumulate, time.perf_counter()
        orders = self.feed.parts(self._rng, progress.samples)  # one, or one for each pool of blocks of a file
        for order in orders:
            first, n_samples, position = progress.samples, len(order), 0
            if n_samples % batch:  # the last step of the epoch is short
                order = order[: n_samples - self._left_out]
            while position < len(order):
                chunk_started, step = time.perf_counter(), progress.step
                part = order[position : position + self._chunk_size(size) * batch]
                mean = self._run_chunk(part)
                position += len(part)
                progress.samples = first + position
                reason = self._reason(progress, mean)
                now = time.perf_counter()
                progress.seconds += now - started
                if reason is not None:
                    return reason
                self.pause(history)
                started = time.perf_counter()
                # The first chunk also binds the Program, so its time says little: grow by GROWTH at most.
                fitting = (progress.step - step) * CALL_SECONDS / max(now - chunk_started, 1e-9)
                size = accumulate * max(1, int(min(GROWTH * size, fitting)) // accumulate)
            progress.samples = first + n_samples
        return None

    def _chunk_size(self, size: int) -> int:
        """Return the steps of the next chunk: `size`, or as many as callbacks allow, in whole updates."""
        accumulate = self.engine.program.accumulate
        return accumulate * max(1, -(-steps_allowed(self._callbacks, size) // accumulate))

    def _run_chunk(self, part: np.ndarray) -> float:
        """Run the steps over these samples and add up their losses; returns the mean loss."""
        progress, program, optimizer = self.progress, self.engine.program, self._optimizer
        batch, accumulate = program.per_step, program.accumulate
        count = -(-len(part) // batch)
        optimizer.attach(self._network, self.engine)
        self._has_begun = True
        rows_out = self._others.run(self.engine, self.feed, part, slots_of(optimizer, count, accumulate)[0])
        optimizer.advance(-(-count // accumulate))
        steps = StepResults(rows_out, program.results, batch, len(part))
        self._guard.check_losses(steps.means, progress)
        progress.loss, progress.weight = _add_up(progress.loss, steps.losses), _add_up(progress.weight, steps.weights)
        progress.step += count
        self._tell(steps.told())
        return float(steps.losses.sum() / steps.weights.sum())

    def _tell(self, results: Mapping[str, np.ndarray]) -> None:
        for callback in self._callbacks:
            callback.on_steps({**results})

    def _reason(self, progress: Progress, mean: float) -> str | None:
        """Return why a callback ends the training here, or None.  mean: loss of the steps since the last call."""
        if not self._callbacks:
            return None
        reasons = [callback.on_chunk_end(progress.epoch, progress.step, mean) for callback in self._callbacks]
        return next((text for text in reasons if text is not None), None)

    def pause(self, history: list[Record]) -> None:
        """Tell the callbacks that the run may be left here.  history: the records so far."""
        for callback in self._callbacks:
            callback.on_pause(lambda: self.moment(history))

    def moment(self, history: list[Record]) -> Moment:
        """Return the run at this moment; raises TrainingDiverged if its weights are not finite."""
        return self._position.moment(self.progress, history)

    def restore(self, moment: Moment) -> None:
        """Restore a moment, callbacks included; raises ValueError, before anything changes, if it does not fit."""
        self.progress = self._position.restore(moment)


def engine_for(program: Program, network: Network, feed: Feed, settings: Settings) -> Engine:
    """Return the engine of the steps over the samples of a feed."""
    return make_engine(
        program,
        network.backend,
        network.owned,
        feed.sources,
        settings.engine,
        settings.precision,
        settings.threads,
        settings.blas_threads,
        settings.reduction,
        settings.deterministic,
    )


def _add_up(total: float, values: np.ndarray) -> float:
    """Return the sum from left to right, the same bits however a run is cut into chunks."""
    return float(np.add.accumulate(np.concatenate([[total], values]))[-1])
