"""The trainings of a search: the data they share, and one of them."""

from __future__ import annotations

import argparse
import hashlib
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from xpnet.commands.arguments import UsageError
from xpnet.commands.attempt import make_attempt
from xpnet.commands.data import load_data, load_samples
from xpnet.commands.defaults import default_rate, resolve
from xpnet.commands.loop_options import best_by
from xpnet.commands.train import check_loaded, check_options, resolve_for
from xpnet.network.network import Network
from xpnet.recipe.defaults import BATCH_SIZE, BEST
from xpnet.recipe.samples import Data
from xpnet.tables.files import called
from xpnet.training.callbacks import Callback
from xpnet.training.loop import TrainingDiverged
from xpnet.training.optimizers import parameters_of
from xpnet.training.records import Record, sign_of
from xpnet.tuning.study import Outcome
from xpnet.tuning.trials import DIVERGED, FINISHED, PRUNED

FIRST_LOOK = 8  # the epoch at which a trial is first compared with the others, and at twice as many again, and so on


def resolved(given: argparse.Namespace, options: dict[str, Any] | None = None) -> argparse.Namespace:
    """Return the options of a training, defaults set: those given, and those of a trial."""
    own = argparse.Namespace(**vars(given) | (options or {}))
    own.batch_size = own.batch_size or BATCH_SIZE
    resolve(own)
    return own


def load(given: argparse.Namespace) -> tuple[argparse.Namespace, Data]:
    """Check the options, load their data, and return the options of the default configuration for these.

    The split that was chosen becomes that of the options given.  Raises UsageError for what cannot be searched.
    """
    own = resolved(given)
    check_options(own)
    data = resolve_for(own, load_data(own, load_samples(own)))
    if data.validation is None:
        raise UsageError(
            f"a search compares trials on rows held out, and of {called(own.dataset)} none are; hold some out with "
            "--validation 0.2, or take more rows"
        )
    check_loaded(own, make_attempt(own, data).network, data)
    given.split = own.split
    return own, data


def tried_of(given: argparse.Namespace, options: dict[str, Any]) -> dict[str, Any]:
    """Return what a trial tries, the defaults included, by `trials.COLUMNS`."""
    own = resolved(given, options)
    decay, dropout = parameters_of(own.optimizer).get("weight_decay", 0.0), (own.dropout or [0.0])[0]
    return {
        "hidden": own.layers[1:-1] if own.layers is not None else own.hidden,
        "lr": default_rate(own),
        "weight_decay": decay if own.weight_decay is None else own.weight_decay,
        "dropout": dropout,
        "batch_size": own.batch_size,
    }


def train_trial(
    given: argparse.Namespace,
    options: dict[str, Any],
    data: Data,
    is_poor: Callable[[int, float], bool],
    is_over: Callable[[], bool],
) -> Outcome | None:
    """Train one network with the options of a trial, and return what came of it; None if it was stopped.

    is_poor: asked at some epochs with the best value so far, whether the trial is to end.  is_over: asked a few times a
    second whether the search is.
    """
    own = resolved(given, options)
    resolve_for(own, data)
    attempt = make_attempt(own, data)
    watch = _Watch(best_by(own, data.validation), own.end_with == BEST, is_poor, is_over)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the training of the best says them
        try:
            for _ in attempt.records(data, callbacks=[*attempt.watchers(data), watch]):
                pass
        except TrainingDiverged:
            return watch.outcome(DIVERGED)
    if watch.was_stopped:
        return None
    return watch.outcome(PRUNED if watch.was_poor else FINISHED if math.isfinite(watch.value) else DIVERGED)


class _Watch(Callback):
    """Keeps the value of a trial, and ends it where it is poor or the search is over."""

    only_watches = True

    def __init__(
        self, measure: str, takes_best: bool, is_poor: Callable[[int, float], bool], is_over: Callable[[], bool]
    ) -> None:
        self._measure, self._sign, self._takes_best = measure, sign_of(measure), takes_best
        self._is_poor, self._is_over = is_poor, is_over
        self.value, self.was_poor, self.was_stopped = math.nan, False, False
        self._epoch = self._epochs = 0
        self._seconds, self._look = 0.0, FIRST_LOOK

    def on_chunk_end(self, epoch: int, step: int, loss: float) -> str | None:
        self.was_stopped = self._is_over()
        return "the search is over" if self.was_stopped else None

    def on_measured(self, record: Record, network: Network) -> str | None:
        value = float(record[self._measure])
        self._epochs, self._seconds = record["epoch"], self._seconds + record["seconds"]
        is_better = self._sign * value < self._sign * self.value or math.isnan(self.value)  # NaN is never better
        if is_better or not self._takes_best:
            self.value, self._epoch = value, record["epoch"]
        if record["epoch"] == self._look:
            self._look *= 2
            self.was_poor = math.isfinite(self.value) and self._is_poor(record["epoch"], self.value)
        return "pruned" if self.was_poor else None

    def outcome(self, end: str) -> Outcome:
        value = self.value if end != DIVERGED else None
        return Outcome(end, value, self._epoch, self._epochs, self._seconds)


def fingerprint(data: Data) -> str:
    """Return a hash of the rows to train on and of those held out, as the networks see them."""
    found = hashlib.sha256()
    for part in (data.training, data.validation):
        for array in () if part is None else (part.X, part.Y, part.weights):
            found.update(b"-" if array is None else np.ascontiguousarray(array.T).tobytes())
    return found.hexdigest()
