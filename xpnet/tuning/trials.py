"""The trials of a search: what each tried, what came of it, and which is the best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xpnet.training.records import sign_of

FINISHED, PRUNED, DIVERGED = "finished", "pruned", "diverged"  # how a trial ends
COLUMNS = ("hidden", "lr", "weight_decay", "dropout", "batch_size")


@dataclass(frozen=True)
class Trial:
    """One training of a search.

    number: from 0, which is the default configuration.  options: of `xpnet train`, those that are not the default.
    tried: the values of COLUMNS.  end: FINISHED, PRUNED (by the values of the others) or DIVERGED.
    value: of the measure that the search goes by, the best of its epochs; None of one that diverged.
    epoch, epochs: that of the value, and all.  seconds: of training.
    """

    number: int
    options: dict[str, Any]
    tried: dict[str, Any]
    end: str
    value: float | None
    epoch: int
    epochs: int
    seconds: float

    def row(self, measure: str) -> dict[str, Any]:
        """Return the trial as a row of the table of trials.  measure: the name of the value."""
        hidden = ",".join(map(str, self.tried["hidden"]))
        return {
            "trial": self.number,
            "end": self.end,
            measure: math.nan if self.value is None else self.value,
            **self.tried,
            "hidden": hidden,
            "epoch": self.epoch,
            "epochs": self.epochs,
            "seconds": self.seconds,
        }


def counted(trials: Sequence[Trial]) -> str:
    """Return how many trials there are, in words."""
    return f"{len(trials)} trial{'s' * (len(trials) != 1)}"


def best_of(trials: Sequence[Trial], measure: str) -> Trial | None:
    """Return the finished trial with the best value, the earliest of equal ones; None if none has finished."""
    sign, finished = sign_of(measure), [trial for trial in trials if trial.end == FINISHED]
    return min(finished, key=lambda trial: sign * float(trial.value or 0.0), default=None)


def default_of(trials: Sequence[Trial]) -> Trial | None:
    """Return the trial of the default configuration, if it has finished."""
    return next((trial for trial in trials if trial.number == 0 and trial.end == FINISHED), None)


def check_any(trials: Sequence[Trial], measure: str, reason: str | None) -> Trial:
    """Return the best trial; raises ValueError where none has finished.  reason: why the search ended early, if so."""
    best = best_of(trials, measure)
    if best is not None:
        return best
    if trials and all(trial.end == DIVERGED for trial in trials):
        raise ValueError(
            f"all {len(trials)} trials diverged, of which one must end with a finite {measure}; lower --lr, or look at "
            "the columns for values that are far from the others"
        )
    raise ValueError(
        f"no trial was over when the search ended ({reason}), and one must be to be saved; allow it more time with "
        "--max-seconds, or fewer --epochs a trial"
    )
