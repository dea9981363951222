"""What is printed of a search: a row a trial, and whether the best is better than the defaults."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from xpnet.commands.report import figure
from xpnet.commands.wording import width_of, wrapped
from xpnet.training.records import json_line, lower_is_better
from xpnet.tuning.trials import FINISHED, Trial, best_of, counted, default_of

WIDTHS = {"trial": 5, "hidden": 10, "lr": 7, "decay": 5, "dropout": 7, "batch": 5, "epochs": 6, "seconds": 7}
FIRST_OUT = ("seconds", "epochs", "batch", "dropout", "decay", "lr", "hidden")  # of a narrow terminal
MARK = 9  # columns: that of a trial that diverged


class TrialReport:
    """Writes each trial to stdout as a row, or as a line of JSON.

    A row whose value is better than all before it ends in a star. A terminal too narrow for a row loses FIRST_OUT.
    measure: what trials are compared by.  before: the trials of before, where a search is resumed.
    """

    def __init__(self, measure: str, as_json: bool, quiet: bool, before: Sequence[Trial] = ()) -> None:
        self.measure, self.as_json, self.quiet = measure, as_json, quiet
        self.trials = list(before)
        self._has_names = False

    def seen(self, trial: Trial) -> None:
        """Print a trial that is over."""
        self.trials.append(trial)
        if self.as_json:
            print(json_line(trial.row(self.measure)), flush=True)
        elif not self.quiet:
            if not self._has_names:
                self._has_names = True
                self._print({name: name for name in (*WIDTHS, self.measure)}, "")
            is_best = best_of(self.trials, self.measure) is trial
            self._print(self._cells(trial), "*" if is_best else trial.end * (trial.end != FINISHED))

    def _cells(self, trial: Trial) -> dict[str, str]:
        tried = trial.tried
        return {
            "trial": str(trial.number),
            self.measure: "-" if trial.value is None else figure(trial.value),
            "hidden": ",".join(map(str, tried["hidden"])),
            "lr": f"{tried['lr']:.2g}",
            "decay": f"{tried['weight_decay']:g}",
            "dropout": f"{tried['dropout']:g}",
            "batch": str(tried["batch_size"]),
            "epochs": str(trial.epochs),
            "seconds": f"{trial.seconds:.2f}",
        }

    def _print(self, cells: dict[str, str], mark: str) -> None:
        first = {"trial": WIDTHS["trial"], self.measure: max(len(self.measure), 8)}
        widths, width = first | WIDTHS, width_of(sys.stdout)
        for name in FIRST_OUT:
            if width is None or sum(widths.values()) + 2 * (len(widths) - 1) + MARK <= width:
                break
            del widths[name]
        line = "  ".join(f"{cells[name]:>{widths[name]}}" for name in widths)
        print(f"{line} {mark}".rstrip(), flush=True)


def summary_of(trials: Sequence[Trial], measure: str) -> dict[str, object]:
    """Return what the search found, ready for JSON: the best trial and the default one, their values and options."""
    best, default = best_of(trials, measure), default_of(trials)
    assert best is not None
    return {
        "best_trial": best.number,
        "measure": measure,
        "best": best.value,
        "default": None if default is None else default.value,
        "n_trials": len(trials),
        "options": best.options,
    }


def print_best(trials: Sequence[Trial], measure: str, n_rows: int, as_json: bool) -> None:
    """Print which trial is the best, and by how much it beats the defaults.  n_rows: held out."""
    if as_json:
        print(json_line(summary_of(trials, measure)), flush=True)
        return
    print(wrapped(_told(trials, measure, n_rows), sys.stdout, "  "), flush=True)


def _told(trials: Sequence[Trial], measure: str, n_rows: int) -> str:
    best, default = best_of(trials, measure), default_of(trials)
    assert best is not None and best.value is not None
    ends = f"{counted(trials)}, {sum(each.end == FINISHED for each in trials)} to their end"
    where = f"on the {n_rows} rows held out"
    if best.number == 0:
        return f"{ends}: none is better than the defaults, trial 0, with {measure} {figure(best.value)} {where}"
    found = f"{ends}: the best is trial {best.number} with {measure} {figure(best.value)} {where}"
    if default is None or default.value is None:
        return f"{found}; the defaults, trial 0, did not come to an end"
    gap, word = abs(best.value - default.value), "lower" if lower_is_better(measure) else "higher"
    part = f" ({gap / abs(default.value):.1%})" if default.value else ""
    return (
        f"{found}, {figure(gap)}{part} {word} than the defaults, trial 0, with {figure(default.value)}; chosen by "
        "these rows it looks better on them than it is"
    )
