"""The trials of a search: the value of each, and the best so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.plots.curves import scale_log
from xpnet.plots.figures import BLUE, GREY, VERMILION, new_axes
from xpnet.training.records import lower_is_better, metric_of, sign_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDE = 3.0  # ratio of the largest to the least loss from which the axis is logarithmic


def trial_values(trials: Sequence[Mapping[str, Any]], measure: str, ax: Axes | None = None) -> Axes:
    """Draw the value of each trial of a search and the best so far; the first is that of the defaults.

    trials: rows with "trial", "end" and the measure, as `xpnet.tune(...).trials.to_dict("records")` has them.
    measure: such as "val_loss".  Trials that diverged have no value and are left out.
    Raises ValueError without a trial that finished, ImportError without matplotlib where ax is None.
    """
    numbers = np.array([row["trial"] for row in trials], np.float64)
    values = np.array([row[measure] for row in trials], np.float64)
    is_finished = np.array([row["end"] == "finished" for row in trials], bool)
    if not is_finished.any():
        raise ValueError(
            f"none of the {len(trials)} trials is finished; one must be to have a {measure} to draw; search for longer"
        )
    ax = new_axes() if ax is None else ax
    pruned = ~is_finished & np.isfinite(values)
    best = np.minimum.accumulate(np.where(is_finished, sign_of(measure) * values, np.inf)) * sign_of(measure)
    ax.step(numbers, best, where="post", color=BLUE, linewidth=1.6, label="best so far")
    ax.plot(numbers[is_finished], values[is_finished], "o", color=BLUE, label="finished")
    if pruned.any():
        ax.plot(numbers[pruned], values[pruned], "x", color=GREY, label="pruned")
    if is_finished[0] and numbers[0] == 0:
        ax.axhline(values[0], color=VERMILION, linestyle="--", linewidth=1.2, label="defaults (trial 0)")
    shown = values[np.isfinite(values)]
    if lower_is_better(measure) and shown.min() > 0.0 and shown.max() > _WIDE * shown.min():
        scale_log(ax, shown.max() / shown.min())
    _number_trials(ax)
    ax.set_ylabel(f"validation {metric_of(measure).replace('_', ' ')}")
    return ax


def _number_trials(ax: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.grid(True, alpha=0.3)
    ax.set_xlabel("trial")
    ax.legend()
