"""The trials of a search as Optuna keeps them: what is tried next, which trials are poor, and a journal of all.

Optuna (extra: xpnet[tune]) is imported where it is used. The journal is a file of JSON lines.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.training.records import mend_last_line, sign_of
from xpnet.tuning.space import Choice, Range, Space
from xpnet.tuning.trials import FINISHED, Trial

NAME = "search"
BEFORE_PRUNING = 5  # trials that are not pruned
NUMBER, OUTCOME = "number", "outcome"  # attributes of a trial: ours, and what came of it


@dataclass(frozen=True)
class Outcome:
    """What came of a training: see `Trial`."""

    end: str
    value: float | None
    epoch: int
    epochs: int
    seconds: float


def optuna_of() -> Any:
    """Return Optuna; raises ImportError, naming the extra, where it is not installed."""
    try:
        import optuna
    except ImportError:
        raise ImportError("a search needs Optuna, which is not installed. Run: pip install 'xpnet[tune]'") from None
    return optuna


class Study:
    """A search in a journal: asks for trials and is told of them.

    path: of the journal; one that is there is continued, without the trials that had not ended.
    measure: what the search goes by.  tried_of: returns the values of `trials.COLUMNS` for options.
    A trial's parameters follow from the seed and the trials before it alone, so that a search which was stopped goes on
    as if it had not been. No other process may have the journal open.
    """

    def __init__(self, path: Path, space: Space, measure: str, seed: int, tried_of: Any) -> None:
        self._space, self._seed, self._sign, self._tried_of = space, seed, sign_of(measure), tried_of
        self._optuna = optuna = optuna_of()
        self._states = optuna.trial.TrialState
        self._asked: dict[int, Any] = {}
        mend_last_line(path)
        with _hushed(optuna):
            backend = optuna.storages.journal.JournalFileBackend(str(path), lock_obj=_OneProcess())
            self._study = optuna.create_study(
                storage=optuna.storages.JournalStorage(backend),
                study_name=NAME,
                load_if_exists=True,
                pruner=optuna.pruners.MedianPruner(n_startup_trials=BEFORE_PRUNING),
            )
        for trial in self._study.get_trials(deepcopy=False, states=(self._states.RUNNING,)):
            self._study.tell(trial.number, state=self._states.FAIL)

    def ask(self) -> tuple[int, dict[str, Any]]:
        """Return the number of a new trial, the first that none has, and its options."""
        optuna, taken = self._optuna, {each.user_attrs.get(NUMBER) for each in self._live()}
        number = next(number for number in count() if number not in taken)
        if number == 0 and not self._study.get_trials(deepcopy=False, states=(self._states.WAITING,)):
            self._study.enqueue_trial(self._space.default)
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        with _hushed(optuna):
            self._study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
            trial = self._study.ask({name: self._distribution(each) for name, each in self._space.ranges.items()})
        trial.set_user_attr(NUMBER, number)
        self._asked[number] = trial
        return number, self._space.options_of(trial.params)

    def is_poor(self, number: int, epoch: int, value: float) -> bool:
        """Whether a trial is to end: its best value at an epoch is worse than the median of the others there."""
        trial = self._asked[number]
        trial.report(self._sign * value, epoch)
        return bool(trial.should_prune())

    def tell(self, number: int, outcome: Outcome | None) -> Trial | None:
        """Keep what came of a trial and return it; None for one that was stopped before its end, which is forgotten."""
        trial = self._asked.pop(number)
        if outcome is None:
            self._study.tell(trial, state=self._states.FAIL)
            return None
        trial.set_user_attr(OUTCOME, asdict(outcome))
        if outcome.end == FINISHED:
            assert outcome.value is not None and math.isfinite(outcome.value)
            self._study.tell(trial, self._sign * outcome.value)
        else:
            self._study.tell(trial, state=self._states.PRUNED)
        return self._trial(number, trial.params, outcome)

    def trials(self) -> list[Trial]:
        """Return the trials that are over, by their numbers."""
        kept = {each.user_attrs[NUMBER]: each for each in self._live() if OUTCOME in each.user_attrs}
        return [self._trial(n, kept[n].params, Outcome(**kept[n].user_attrs[OUTCOME])) for n in sorted(kept)]

    def _live(self) -> list[Any]:
        """Return Optuna's trials that are over or running, not those that were stopped."""
        states = (self._states.COMPLETE, self._states.PRUNED, self._states.RUNNING)
        return self._study.get_trials(deepcopy=False, states=states)

    def _trial(self, number: int, params: dict[str, Any], outcome: Outcome) -> Trial:
        options = self._space.options_of(params)
        return Trial(number, options, self._tried_of(options), **asdict(outcome))

    def _distribution(self, each: Range | Choice) -> Any:
        kinds = self._optuna.distributions
        if isinstance(each, Choice):
            return kinds.CategoricalDistribution(each.values)
        if each.is_whole:
            return kinds.IntDistribution(int(each.low), int(each.high), log=each.is_log)
        return kinds.FloatDistribution(each.low, each.high, log=each.is_log, step=each.step)


class _OneProcess:
    """The lock of a journal that one process has: Optuna's own would be left by a process that was killed."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


@contextmanager
def _hushed(optuna: Any) -> Iterator[None]:
    """Leave out what Optuna tells of new studies, and warns of what it calls experimental."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
