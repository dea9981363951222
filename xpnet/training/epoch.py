"""An epoch of `xpnet.training.loop`: steps in chunks, the guard against divergence, and the moments to resume from."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xpnet.data.dataset import Dataset
from xpnet.data.feed import feed_of
from xpnet.engines.choice import make_engine
from xpnet.engines.engine import Engine, EpochsRun
from xpnet.network.network import Network
from xpnet.network.parameters import random_generator
from xpnet.program.calls import Program
from xpnet.training.ahead import Lookahead
from xpnet.training.callbacks import Callback
from xpnet.training.checkpoint import frozen, load_states, states_of, thawed
from xpnet.training.evaluation import input_range
from xpnet.training.optimizers import Optimizer
from xpnet.training.options import Settings, run_fingerprint
from xpnet.training.records import History, Moment, Progress, Record
from xpnet.training.schedules import Constant

CHUNK_SECONDS = 0.2  # between two looks at the clock, the losses and Ctrl-C
LAST_GOOD = "last_good."  # prefix of the tensors of an epoch's beginning


class TrainingDiverged(ArithmeticError):
    """The loss became NaN or infinite at the step named; the network holds the weights of the epoch before."""


@dataclass(frozen=True)
class EpochDone:
    """An epoch that is over: its progress, why a callback ended it early, and the sums of the validation in its call.

    measured (n_steps, n_results): None where the validation is still to be run.
    """

    progress: Progress
    reason: str | None
    measured: np.ndarray | None = None


class Runner:
    """Runs the epochs of one training, and saves and restores its position; feed: gathers the samples of its engine."""

    def __init__(
        self,
        network: Network,
        optimizer: Optimizer,
        dataset: Dataset,
        program: Program,
        settings: Settings,
        callbacks: Sequence[Callback],
    ) -> None:
        self.settings = settings
        self.feed = feed_of(dataset, network.backend, settings.batch * settings.accumulate)
        self.engine = make_engine(
            program,
            network.backend,
            network.owned,
            self.feed.sources,
            settings.engine,
            settings.precision,
            settings.threads,
        )
        self._network, self._optimizer, self._callbacks = network, optimizer, callbacks
        network.inputs = input_range(dataset)
        self._fit = run_fingerprint(network, optimizer, dataset, settings)
        self._rng = random_generator(settings.seed, 1) if settings.shuffle else None
        self._leaves_out = settings.n_used < dataset.n_samples
        self._last_good, self._last_state = network.owned.copy(), optimizer.snapshot()
        self.look_ahead(is_alone=False)
        self.begin(1)

    def look_ahead(self, is_alone: bool, measuring: Engine | None = None) -> None:
        """Decide whether several epochs may be run by one call; see `Lookahead`."""
        self._lookahead = Lookahead(self.engine, self.feed, self.settings, self._callbacks, is_alone, measuring)

    def begin(self, epoch: int) -> None:
        """Begin an epoch; what the network holds now becomes its last good state."""
        self._optimizer.attach(self._network, self.engine)
        self._keep()
        self.progress = Progress(epoch, self._order_state())

    def _keep(self) -> None:
        self._last_good[...] = self._network.owned
        del self._last_state  # before the next one is made
        self._last_state = self._optimizer.snapshot()

    def _order_state(self) -> Any:
        return None if self._rng is None else dict(self._rng.bit_generator.state)

    def epochs(self, history: list[Record], n_left: int) -> Iterator[EpochDone]:
        """Run some of the epochs left, one at least, and yield each with network and optimizer as at its end.

        history: the records so far; the caller appends that of each epoch.  Diverged epochs: see `run`.
        """
        n_epochs = self._lookahead.n_epochs(n_left)
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
            yield from self._looked_at(*self._ran_ahead(n_epochs))
            self.begin(self.progress.epoch)
        except BaseException as error:
            self._return_if_diverged(error)
            raise

    def _ran_ahead(self, n_epochs: int) -> tuple[EpochsRun, list[Progress]]:
        """Run epochs; return what they left, and the progress at the beginning of each and after the last."""
        engine, optimizer, settings = self._lookahead.engine, self._optimizer, self.settings
        assert engine is not None
        started, begins, orders = time.perf_counter(), [self.progress], []
        for i in range(1, n_epochs + 1):
            orders.append(next(self.feed.parts(self._rng))[: settings.n_used])
            begins.append(Progress(self.progress.epoch + i, self._order_state()))
        optimizer.attach(self._network, self.engine)
        count, accumulate = settings.n_steps, settings.accumulate
        rows = optimizer.slot_rows(n_epochs * settings.n_updates).reshape(n_epochs, settings.n_updates, -1)
        ran = engine.run(np.stack(orders), rows.repeat(min(accumulate, count), axis=1)[:, :count])
        seconds = time.perf_counter() - started
        self._lookahead.measured(n_epochs, seconds)
        for progress in begins:
            progress.seconds = seconds / n_epochs
        return ran, begins

    def _looked_at(self, ran: EpochsRun, begins: list[Progress]) -> Iterator[EpochDone]:
        """Yield each epoch with network, optimizer and progress as at its end; raises TrainingDiverged at a bad one."""
        settings, owned, state, keys = self.settings, self._network.owned, self.engine.state, self.engine.keys
        results = {name: ran.results[..., i] for i, name in enumerate(self.engine.program.results)}
        samples = np.full(settings.n_steps, float(settings.batch))
        samples[-1] = settings.n_used - (settings.n_steps - 1) * settings.batch
        losses = results["loss"]
        weights = results.get("weight", np.broadcast_to(samples, losses.shape))
        means = losses / weights
        totals, total_weights = (np.add.accumulate(values, axis=1)[:, -1].tolist() for values in (losses, weights))
        last = means[:, -1].tolist()
        are_finite = np.isfinite(means).all(axis=1) & np.isfinite(ran.owned).all(axis=1)
        for i, begun in enumerate(begins[:-1]):
            done = Progress(
                begun.epoch,
                begun.order,
                settings.n_steps,
                self.feed.n_samples,
                totals[i],
                total_weights[i],
                last[i],
                begun.seconds,
            )
            if not are_finite[i]:
                if i > 0:
                    self._keep()
                self._optimizer.advance(settings.n_updates)  # for the rate in the message; taken back
                self.progress = replace(begun, seconds=0.0)
                self._check_losses(means[i])
                self.progress = done
                raise self._diverged()
            owned[...], state[...], keys[...] = ran.owned[i], ran.state[i], ran.keys[i]
            self._optimizer.advance(settings.n_updates)
            self._tell_steps({name: values[i] for name, values in results.items()}, means[i], samples)
            reason = self._reason(done, done.loss / done.weight)
            self.progress = begins[i + 1]
            measured = None if ran.measured is None else ran.measured[i]
            yield EpochDone(done, reason, measured)

    def run(self, history: list[Record]) -> str | None:
        """Run the rest of the epoch and return why a callback ended it early, or None.

        history: the records so far.  If the training diverges, network and optimizer go back to the last good state.
        """
        try:
            reason = self._run(history)
            self._check_weights()
            return reason
        except BaseException as error:
            self._return_if_diverged(error)
            raise

    def _return_if_diverged(self, error: BaseException) -> None:
        """Restore the last good state; Ctrl-C too may come while the loss diverges."""
        if isinstance(error, TrainingDiverged) or not self._is_finite():
            self._network.owned[...] = self._last_good
            self._optimizer.restore(self._last_state)

    def _run(self, history: list[Record]) -> str | None:
        progress, program = self.progress, self.engine.program
        batch, accumulate = program.capacity, program.accumulate
        size, started = accumulate, time.perf_counter()
        orders = self.feed.parts(self._rng, progress.samples)  # one, or one for each pool of blocks of a file
        for order in orders:
            first, n_samples, position = progress.samples, len(order), 0
            order = order[: n_samples - n_samples % batch * self._leaves_out]
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
                # The first chunk also binds the Program, so its time says little: grow by 8 at most.
                fitting = (progress.step - step) * CHUNK_SECONDS / max(now - chunk_started, 1e-9)
                size = accumulate * max(1, int(min(8 * size, fitting)) // accumulate)
            progress.samples = first + n_samples
        return None

    def _chunk_size(self, size: int) -> int:
        """Return the steps of the next chunk: `size`, or as many as callbacks allow, in whole updates."""
        accumulate = self.engine.program.accumulate
        limits = (callback.steps_ahead() for callback in self._callbacks)
        steps = min([size, *(limit for limit in limits if limit is not None)])
        return accumulate * max(1, -(-steps // accumulate))

    def _run_chunk(self, part: np.ndarray) -> float:
        """Run the steps over these samples and add up their losses; returns the mean loss."""
        progress, program, optimizer = self.progress, self.engine.program, self._optimizer
        batch, accumulate = program.capacity, program.accumulate
        count = -(-len(part) // batch)
        n_updates = -(-count // accumulate)
        optimizer.attach(self._network, self.engine)
        rows_out = self.engine.run(part, optimizer.slot_rows(n_updates).repeat(min(accumulate, count), axis=0)[:count])
        optimizer.advance(n_updates)
        results = dict(zip(program.results, rows_out.T, strict=True))
        n_samples = np.full(count, float(batch))
        n_samples[-1] = len(part) - (count - 1) * batch
        losses, weights = results["loss"], results.get("weight", n_samples)
        self._check_losses(losses / weights)
        progress.loss, progress.weight = _add_up(progress.loss, losses), _add_up(progress.weight, weights)
        progress.step += count
        self._tell_steps(results, losses / weights, n_samples)
        return float(losses.sum() / weights.sum())

    def _tell_steps(self, results: Mapping[str, np.ndarray], means: np.ndarray, n_samples: np.ndarray) -> None:
        told = {name: values for name, values in results.items() if name not in ("loss", "weight")}
        for callback in self._callbacks:
            callback.on_steps({"loss": means, "samples": n_samples, **told})

    def _reason(self, progress: Progress, mean: float) -> str | None:
        """Return why a callback ends the training here, or None.  mean: loss of the steps since the last call."""
        reasons = [callback.on_chunk_end(progress.epoch, progress.step, mean) for callback in self._callbacks]
        return next((text for text in reasons if text is not None), None)

    def pause(self, history: list[Record]) -> None:
        """Tell the callbacks that the run may be left here.  history: the records so far."""
        for callback in self._callbacks:
            callback.on_pause(lambda: self.moment(history))

    def moment(self, history: list[Record]) -> Moment:
        """Return the run at this moment; raises TrainingDiverged if its weights are not finite."""
        self._check_weights()
        optimizer, last_state = self._optimizer, self._last_state
        callbacks, tensors = states_of(self._callbacks, self._network.backend)
        backend = self._network.backend
        tensors |= frozen("", backend, self._network.owned, optimizer.snapshot())
        if self.progress.step:
            tensors |= frozen(LAST_GOOD, backend, self._last_good, last_state)
        return Moment(
            fit=self._fit,
            progress=replace(self.progress),
            steps_done=optimizer.steps_done,
            last_good_steps=last_state.steps_done if self.progress.step else optimizer.steps_done,
            lr=optimizer.lr if _has_constant_lr(optimizer) else None,
            callbacks=callbacks,
            history=list(history),
            tensors=tensors,
        )

    def restore(self, moment: Moment) -> None:
        """Restore a moment, callbacks included.

        Raises ValueError, before network or optimizer change, if its arrays or its callbacks' states do not fit.
        """
        like = {"owned": self._network.owned, "state": self.engine.state, "keys": self.engine.keys}
        owned, now = thawed("", moment, moment.steps_done, self._network, like)
        last_good, last_state = owned, now
        if moment.progress.step:
            last_good, last_state = thawed(LAST_GOOD, moment, moment.last_good_steps, self._network, like)
        if self._rng is not None:
            try:
                self._rng.bit_generator.state = moment.progress.order
            except (ValueError, TypeError, KeyError, OverflowError):
                raise ValueError(
                    "the checkpoint's random state belongs to another generator; start again without resume"
                ) from None
        load_states(self._callbacks, moment, self._network.backend)
        before, settings = self._network.owned.copy(), vars(self._optimizer).copy()
        self._network.owned[...], self._last_good[...] = owned, last_good
        self._optimizer.restore(now)
        self._optimizer.attach(self._network, self.engine)
        if moment.lr is not None:
            self._optimizer.lr = moment.lr
        self._last_state, self.progress = last_state, replace(moment.progress)
        try:
            for callback in self._callbacks:
                callback.on_resume(History(moment.history))
        except BaseException:  # all is as it was
            self._network.owned[...] = before
            vars(self._optimizer).update(settings)
            raise

    def _check_losses(self, losses: np.ndarray) -> None:
        """Remember the last finite loss, or raise TrainingDiverged naming the first step whose loss is not finite."""
        progress, bad = self.progress, np.flatnonzero(~np.isfinite(losses))
        if len(bad) == 0:
            progress.last_finite = float(losses[-1])
            return
        first = int(bad[0])
        last = float(losses[first - 1]) if first else progress.last_finite
        before = "none in this epoch" if last is None else f"{last:.6g}"
        raise TrainingDiverged(
            f"the loss is {losses[first]} at step {progress.step + first + 1} of epoch "
            f"{progress.epoch} (last finite: {before}); {self._cure()}"
        )

    def _check_weights(self) -> None:
        """Raise TrainingDiverged for weights that are not finite: no loss follows the last update of a chunk."""
        if not self._is_finite():
            raise self._diverged()

    def _diverged(self) -> TrainingDiverged:
        progress = self.progress
        before = "" if progress.last_finite is None else f" (last finite loss: {progress.last_finite:.6g})"
        return TrainingDiverged(
            f"the weights are not finite after step {progress.step} of epoch {progress.epoch}{before}; {self._cure()}"
        )

    def _is_finite(self) -> bool:
        owned = self._network.owned
        with np.errstate(all="ignore"):  # a sum of large numbers may overflow where none of them is infinite
            return math.isfinite(float(owned.sum())) or bool(np.isfinite(self._network.backend.to_host(owned)).all())

    def _cure(self) -> str:
        return f"lower the learning rate (lr is {self._optimizer.lr:g}), or scale the inputs"


def _add_up(total: float, values: np.ndarray) -> float:
    """Return the sum from left to right, the same bits however a run is cut into chunks."""
    return float(np.add.accumulate(np.concatenate([[total], values]))[-1])


def _has_constant_lr(optimizer: Optimizer) -> bool:
    return isinstance(optimizer.schedule, Constant)
