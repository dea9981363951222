"""Callbacks watch a training run and may end it: history file, best weights, early stopping, budgets.

A callback sees and writes; the training loop neither prints nor opens files. `Checkpoint` is in
`xpnet.training.checkpoint`.
"""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.checks import check_number, check_path, check_whole
from xpnet.files import check_target, read_whole, remove_leftovers, write_atomically
from xpnet.training.optimizers import Optimizer
from xpnet.training.records import (
    VAL_ACCURACY,
    VAL_LOSS,
    History,
    Moment,
    Record,
    is_last,
    json_line,
    loss_to_watch,
    measure_of,
    mend_last_line,
    sign_of,
)
from xpnet.training.schedules import Constant

if TYPE_CHECKING:
    from xpnet.network.network import Network

__all__ = ["Budget", "Callback", "EarlyStopping", "HistoryFile", "KeepBest", "ReduceOnPlateau", "StopAtScore"]


FEW_EPOCHS = 4  # that may be run by one call though the first of them may end the training
LEAST_SECONDS = 0.01  # that a budget lets pass between two looks at the clock


class Callback:
    """Base of all callbacks; every method does nothing unless overridden.

    A text returned by `on_chunk_end` or `on_measured` ends the training and becomes `stopped` of the last record,
    which is measured and reported like any other.
    only_watches: whether it changes neither network nor optimizer nor data while they train, so that `train` may run
    several epochs before their records; it sees the network as at the end of each all the same.
    """

    only_watches = False

    def on_train_begin(self, network: Network, n_epochs: int, n_steps: int) -> None:
        """Called once, before record 0.  n_steps: steps an epoch."""

    def on_resume(self, history: History) -> None:
        """Called when a run resumes, after `on_train_begin` and `load_state`.  history: its records so far."""

    def steps_ahead(self) -> int | None:
        """Return the most steps that the next chunk may have, None for no limit; it has whole updates."""
        return None

    def on_chunk_end(self, epoch: int, step: int, loss: float) -> str | None:
        """Called a few times a second.  step: steps done in the epoch.  loss: their mean since the last call."""
        return None

    def on_steps(self, results: Mapping[str, np.ndarray]) -> None:
        """Called before `on_chunk_end` with what each of the last steps gave, (n_steps,) of a name.

        loss: the mean over the batch.  samples: of the batch.  penalty: of the update, where the optimizer tells it.
        """

    def on_measured(self, record: Record, network: Network) -> str | None:
        """Called with every record, before any `on_epoch_end`."""
        return None

    def on_last_record(self, record: Record) -> None:
        """Called with the last record, to add to it, before any `on_epoch_end`."""

    def on_epoch_end(self, record: Record, network: Network) -> None:
        """Called with every record, the untrained network's first."""

    def on_pause(self, moment: Callable[[], Moment]) -> None:
        """Called after chunks and records, where the run may be left; `moment()` returns what resumes it."""

    def on_train_end(self, network: Network) -> None:
        """Called once at the end, also after an error or an interrupt."""

    def state(self) -> dict[str, Any]:
        """Return what the callback needs to resume a run: numbers, texts, or arrays of the network's backend."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned; called after `on_train_begin`."""


class HistoryFile(Callback):
    """Appends every record to a file as one line of JSON, at once, so that a killed run keeps its epochs.

    A resumed run keeps the lines up to its checkpoint, and writes them again if the file is gone. A last line torn by
    a crash is removed first.
    """

    only_watches = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(check_path("path", path, 'HistoryFile("history.jsonl")'))
        self._start = 0  # where this run begins in the file

    def on_train_begin(self, network: Network, n_epochs: int, n_steps: int) -> None:
        check_target(self.path)
        remove_leftovers(self.path)
        mend_last_line(self.path)
        self._start = self.path.stat().st_size if self.path.exists() else 0

    def on_resume(self, history: History) -> None:
        before = read_whole(self.path)[: self._start] if self._start and self.path.exists() else b""
        self._start = len(before)
        write_atomically(self.path, before + "".join(json_line(record) + "\n" for record in history).encode())

    def on_epoch_end(self, record: Record, network: Network) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json_line(record) + "\n")

    def state(self) -> dict[str, Any]:
        return {"start": self._start}

    def load_state(self, state: dict[str, Any]) -> None:
        self._start = check_whole("start", state["start"], at_least=0)


class ReduceOnPlateau(Callback):
    """Multiplies the optimizer's rate by `factor` when the loss has not fallen for more than `patience` epochs.

    It watches val_loss, or train_loss without validation. An epoch counts as better if its loss is below
    the best so far by more than threshold * |best|; a reduction starts the count again, and goes no lower than lr_min.
    Source: torch's ReduceLROnPlateau in mode "min" with a relative threshold, without its cool-down; torch
    takes best * (1 - threshold), which for a negative loss would call a higher one better.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        lr_min: float = 0.0,
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer is {optimizer!r}; it must be the one that trains: ReduceOnPlateau(optimizer)")
        if not isinstance(optimizer.schedule, Constant):
            raise ValueError(
                f"the rate follows {optimizer.schedule}, which a reduction would end; "
                "give the optimizer a number as lr, or leave ReduceOnPlateau out"
            )
        call = "ReduceOnPlateau(optimizer, "
        self.optimizer = optimizer
        self.factor = check_number("factor", factor, above=0, below=1, example=f"{call}factor=0.1)")
        self.patience = check_whole("patience", patience, at_least=0)
        self.threshold = check_number("threshold", threshold, at_least=0, below=1, example=f"{call}threshold=1e-4)")
        self.lr_min = check_number("lr_min", lr_min, at_least=0, example=f"{call}lr_min=1e-6)")
        self._best, self._n_bad = math.inf, 0

    def on_train_begin(self, network: Network, n_epochs: int, n_steps: int) -> None:
        self._best, self._n_bad = math.inf, 0

    def on_epoch_end(self, record: Record, network: Network) -> None:
        if record["epoch"] == 0:  # untrained: a loss before the first epoch is no plateau
            return
        loss = record[loss_to_watch(VAL_LOSS in record)]
        gain = self.threshold * abs(self._best) if self._best < math.inf else 0.0
        if loss < self._best - gain:
            self._best, self._n_bad = loss, 0
            return
        self._n_bad += 1
        reduced = max(self.optimizer.lr * self.factor, self.lr_min)
        if self._n_bad > self.patience:
            self._n_bad = 0
            if reduced < self.optimizer.lr:
                self.optimizer.lr = reduced

    def state(self) -> dict[str, Any]:
        return {"best": self._best, "n_bad": self._n_bad}

    def load_state(self, state: dict[str, Any]) -> None:
        self._best, self._n_bad = _real(state["best"]), check_whole("n_bad", state["n_bad"], at_least=0)


class KeepBest(Callback):
    """At the end of the training gives the network the weights of its best epoch, running statistics included.

    Not after an error or an interrupt. The last record names that epoch as `chosen_epoch`. Warns if it is 0, the
    network before its training.
    monitor: a measure of the records, such as "train_loss" or "val_f1". Lower is better for losses and errors, higher
    for all others; a measure that a callback added is judged by its name.
    min_delta: the least gain that counts.  NaN is never better.
    Raises ValueError at record 0 for a measure that the record lacks.
    """

    only_watches = True

    def __init__(self, monitor: str = VAL_LOSS, min_delta: float = 0.0) -> None:
        self.monitor = monitor
        self.min_delta = check_number(
            "min_delta", min_delta, at_least=0, example=f"{type(self).__name__}(min_delta=1e-4)"
        )
        self._forget()

    def _forget(self) -> None:
        self._best, self._epoch, self._is_over = math.inf, 0, False
        self._weights: Any = None  # on the device
        self._network: Any = None

    def on_train_begin(self, network: Network, n_epochs: int, n_steps: int) -> None:
        self._forget()
        self._network = network

    def on_measured(self, record: Record, network: Network) -> str | None:
        value = sign_of(self.monitor) * measure_of(record, self.monitor)
        if value < self._best - (self.min_delta if self._best < math.inf else 0.0):
            self._best, self._epoch, self._weights = value, record["epoch"], network.owned.copy()
            return None
        return self._not_better(record)

    def _not_better(self, record: Record) -> str | None:
        """Why the training ends after an epoch that is no better."""
        return None

    def on_last_record(self, record: Record) -> None:
        self._is_over = True
        if self._weights is None:
            return
        record["chosen_epoch"] = self._epoch
        if self._epoch == 0 < record["epoch"]:
            warnings.warn(
                f"no epoch has a better {self.monitor} than the network had before its training, whose weights it ends "
                "with; lower the learning rate, train for longer, or leave out what keeps the best",
                stacklevel=2,
            )

    def on_train_end(self, network: Network) -> None:
        if self._is_over and self._weights is not None:
            network.owned[...] = self._weights
        self._weights = self._network = None

    def state(self) -> dict[str, Any]:
        state = {"best": self._best, "epoch": self._epoch}
        return state if self._weights is None else {**state, "weights": self._weights}

    def load_state(self, state: dict[str, Any]) -> None:
        weights = state.get("weights")
        if weights is not None:
            check_owned(self._network, weights)
        self._best, self._epoch = _real(state["best"]), check_whole("epoch", state["epoch"], at_least=0)
        self._weights = weights


class EarlyStopping(KeepBest):
    """Ends the training after `patience` epochs without a better value; the network gets the best epoch's weights.

    The other arguments, and what it tells: see `KeepBest`.
    Source: Goodfellow, Bengio and Courville (2016), Deep Learning, algorithm 7.1.
    """

    def __init__(self, patience: int = 10, monitor: str = VAL_LOSS, min_delta: float = 0.0) -> None:
        self.patience = check_whole("patience", patience, at_least=1)
        self._n_steps = self._n_bad = 0
        super().__init__(monitor, min_delta)

    def on_train_begin(self, network: Network, n_epochs: int, n_steps: int) -> None:
        super().on_train_begin(network, n_epochs, n_steps)
        self._n_steps, self._n_bad = n_steps, 0

    def steps_ahead(self) -> int:
        """Return the steps before patience may end the training, so that few are run in vain."""
        return steps_before_end(self.patience - self._n_bad, self._n_steps)

    def on_measured(self, record: Record, network: Network) -> str | None:
        reason = super().on_measured(record, network)
        self._n_bad = record["epoch"] - self._epoch
        return reason

    def _not_better(self, record: Record) -> str | None:
        is_over = record["epoch"] - self._epoch >= self.patience
        return f"no better {self.monitor} in {self.patience} epoch{'s' * (self.patience != 1)}" if is_over else None


class StopAtScore(Callback):
    """Ends the training as soon as a record, even the untrained network's, reaches the score, or a loss that low.

    monitor: a measure of the records, as in `EarlyStopping`.
    """

    only_watches = True

    def __init__(self, score: float, monitor: str = VAL_ACCURACY) -> None:
        self.score = check_number("score", score, example="StopAtScore(0.95)")
        self.monitor = monitor

    def on_measured(self, record: Record, network: Network) -> str | None:
        value, sign = measure_of(record, self.monitor), sign_of(self.monitor)
        return f"{self.monitor} is {value:g}, asked for {self.score:g}" if sign * value <= sign * self.score else None


class Budget(Callback):
    """Ends the training, even within an epoch, after a number of seconds or steps.

    seconds: since the beginning, validation included; checked a few times a second.  steps: exact, or with
    `accumulate` up to the end of the update.  A resumed run counts what it had spent.
    """

    only_watches = True

    def __init__(self, seconds: float | None = None, steps: int | None = None) -> None:
        if seconds is None and steps is None:
            raise TypeError("Budget needs seconds or steps: Budget(seconds=60) or Budget(steps=1000)")
        self.seconds = seconds
        if seconds is not None:
            self.seconds = check_number("seconds", seconds, above=0, example="Budget(seconds=60)")
        self.steps = None if steps is None else check_whole("steps", steps, at_least=1)
        self._n_steps, self._done, self._started, self._spent = 0, 0, 0.0, 0.0

    def on_train_begin(self, network: Network, n_epochs: int, n_steps: int) -> None:
        self._n_steps, self._done, self._started, self._spent = n_steps, 0, time.monotonic(), 0.0

    def steps_ahead(self) -> int | None:
        """Return the steps left, of seconds as many as fit by the speed so far, so that little is run in vain."""
        limits = [] if self.steps is None else [self.steps - self._done]
        if self.seconds is not None and self._done:
            elapsed = self._elapsed()
            limits.append(max(1, int(self._done / elapsed * max(self.seconds - elapsed, LEAST_SECONDS))))
        return min(limits, default=None)

    def on_chunk_end(self, epoch: int, step: int, loss: float) -> str | None:
        self._done = (epoch - 1) * self._n_steps + step
        return self._overdrawn()

    def on_measured(self, record: Record, network: Network) -> str | None:
        return self._overdrawn()

    def _overdrawn(self) -> str | None:
        if self.steps is not None and self._done >= self.steps:
            return f"budget of {self.steps} step{'s' * (self.steps != 1)}"
        if self.seconds is not None and self._elapsed() >= self.seconds:
            return f"budget of {self.seconds:g} s"
        return None

    def _elapsed(self) -> float:
        return self._spent + time.monotonic() - self._started

    def state(self) -> dict[str, Any]:
        return {"spent": self._elapsed(), "done": self._done}

    def load_state(self, state: dict[str, Any]) -> None:
        self._spent, self._done = _real(state["spent"]), check_whole("done", state["done"], at_least=0)


def steps_before_end(n_epochs: int, n_steps: int) -> int:
    """Return how many steps to run ahead where the training may end after `n_epochs`: those of a few at least.

    n_steps: an epoch.
    """
    return n_steps * max(n_epochs, FEW_EPOCHS)


def report(callbacks: Sequence[Callback], record: Record, reason: str | None, network: Network, n_epochs: int) -> None:
    """Show a record to the callbacks, which may end the training, complete it, and report it to them."""
    if not callbacks:
        return
    reasons = [reason, *(callback.on_measured(record, network) for callback in callbacks)]
    stopped = next((text for text in reasons if text is not None), None)
    if stopped is not None:
        record["stopped"] = stopped
    if is_last(record, n_epochs):
        for callback in callbacks:
            callback.on_last_record(record)
    for callback in callbacks:
        callback.on_epoch_end(record, network)


def check_owned(network: Network, weights: Any) -> None:
    """Refuse kept weights that are not finite or not this network's."""
    owned, backend = network.owned, network.backend
    if weights.shape != owned.shape or weights.dtype != owned.dtype or not np.isfinite(backend.to_host(weights)).all():
        raise ValueError(
            f"weights are {weights.dtype} {weights.shape}; they must be finite numbers, {owned.dtype} {owned.shape}"
        )


def _real(value: Any) -> float:
    """Return a number of a state, which may be infinite."""
    if math.isnan(value):
        raise ValueError("NaN")
    return float(value)
