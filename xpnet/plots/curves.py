"""Curves: losses and scores over the epochs, a search for the learning rate, an activation and its derivative."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np

from xpnet.checks import check_option
from xpnet.network.custom import CustomActivation
from xpnet.network.layers import Activation
from xpnet.plots.figures import BLUE, COLOURS, GREY, MARKERS, VERMILION, new_axes
from xpnet.training.lr_finder import RateSearch
from xpnet.training.records import TRAINING, Record, lower_is_better, measures_of, metric_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKED = 40  # epochs that are few enough to mark each
_POINTS = 801
# (ratio, multiples): the labels within each power of ten if the largest value is less than ratio times the smallest;
# () if that is too little for multiples.
_LABELLED = ((3.0, ()), (20.0, (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)), (1e4, (1.0, 2.0, 5.0)))
_BESIDE = 1e-9  # from a kink, of the width of the picture


def loss_curve(history: Sequence[Record], ax: Axes | None = None, *, log: bool = True) -> Axes:
    """Draw the losses over the epochs, training and validation in one axes; epoch 0 is the untrained network.

    history: as `xpnet.train` returns it or `read_history` reads it; a loss that is None or NaN leaves a gap.
    log: a logarithmic axis, where every loss is above 0.
    Raises ValueError without records, ImportError without matplotlib where ax is None.
    """
    measures = _measures(history)
    names = [name for name in measures if name.endswith("loss")]
    if not names:
        raise ValueError(
            f"the records have {', '.join(measures) or 'no measures'}; there must be a loss, such as "
            "train_loss: pass what train(...) returns"
        )
    ax = new_axes() if ax is None else ax
    _draw_measures(ax, history, names)
    values = np.concatenate([_column(history, name) for name in names])
    values = values[np.isfinite(values)]
    if log and values.size and values.min() > 0.0:
        scale_log(ax, values.max() / values.min())
    ax.set_ylabel("loss")
    return ax


def score_curve(history: Sequence[Record], ax: Axes | None = None, *, names: Sequence[str] | None = None) -> Axes:
    """Draw scores over the epochs, such as the accuracy; epoch 0 is the untrained network.

    history: as for `loss_curve`.  names: of measures, such as ["val_accuracy", "val_f1"]; None for all but the losses
    and errors.  Raises ValueError for a name that the records lack, or if they have no score.
    """
    measures = _measures(history)
    if isinstance(names, str):
        raise TypeError(f"names is the text {names!r}; it must be a list of names: names=[{names!r}]")
    if names is None:
        names = score_names(history)
        if not names:
            raise ValueError(
                f"the records have {', '.join(measures)}; there must be a score, such as val_accuracy: "
                "train(..., validation=validation)"
            )
    names = [check_option("name", name, measures) for name in names]
    ax = new_axes() if ax is None else ax
    _draw_measures(ax, history, names)
    kinds = list(dict.fromkeys(_kind(name) for name in names))
    ax.set_ylabel(kinds[0] if len(kinds) == 1 else "score")
    return ax


def measure_of_runs(histories: Mapping[str, Sequence[Record]], name: str, ax: Axes | None = None) -> Axes:
    """Draw one measure of several runs over their epochs, a line each.

    histories: the records of each run by its name.  name: of a measure, such as "val_loss".
    Raises ValueError for a measure that the first run lacks.
    """
    measures = [_measures(history) for history in histories.values()]
    name = check_option("name", name, measures[0])
    ax = new_axes() if ax is None else ax
    for number, (run, history) in enumerate(histories.items()):
        _draw_line(ax, history, name, number, run)
    _number_epochs(ax)
    ax.set_ylabel(name)
    return ax


def rate_search(search: RateSearch, ax: Axes | None = None) -> Axes:
    """Draw the smoothed loss against the learning rate, which is logarithmic, and mark the suggestion.

    search: of `xpnet.find_lr`.  ax: axes to draw into.
    Raises ImportError if matplotlib is needed and not there.
    """
    ax = new_axes() if ax is None else ax
    ax.plot(search.lrs, search.losses, color=BLUE, linewidth=1.6, label="smoothed loss")
    if search.suggestion is not None:
        ax.axvline(search.suggestion, color=VERMILION, linestyle="--", label=f"suggestion {search.suggestion:.2g}")
    lowest = int(search.losses.argmin()) if len(search.losses) else 0
    height = float(np.ptp(search.losses[: lowest + 1])) if lowest else 0.0
    if height > 0.0:  # where the loss runs away it leaves the picture, or its fall would be too small to see
        ax.set_ylim(search.losses[lowest] - 0.1 * height, search.losses[lowest] + 1.6 * height)
    ax.set_xscale("log")
    ax.grid(True, alpha=0.3)
    ax.set_xlabel("learning rate")
    ax.set_ylabel("loss")
    ax.legend()
    return ax


def activation(
    function: str | CustomActivation, ax: Axes | None = None, *, low: float = -6.0, high: float = 6.0
) -> Axes:
    """Draw an activation and its derivative from `low` to `high`, as the kernels compute them, in float64.

    function: a name of `xpnet.kernels.activations.ACTIVATIONS`, or one of your own.
    At a kink, where the slope jumps, the derivative is not drawn.
    Raises ValueError for an unknown name, one that works on all outputs of a sample together, or an empty range.
    """
    layer = Activation(function)
    if "row" in layer.scratch:
        raise ValueError(
            f"{layer.name} works on all outputs of a sample together and has no curve; choose one of "
            "single numbers, such as activation('sigmoid')"
        )
    if not -math.inf < low < high < math.inf:
        raise ValueError(
            f"the range is from {low:g} to {high:g}; they must be finite, the lower first, such as low=-6, high=6"
        )
    ax = new_axes() if ax is None else ax
    kinks = np.array([kink for kink in layer.kinks if low < kink < high])
    step = _BESIDE * (high - low)
    Z = np.sort(np.concatenate([np.linspace(low, high, _POINTS), kinks - step, kinks, kinks + step])).reshape(1, -1)
    A, trace = layer.forward({}, Z)
    slope, _ = layer.backward({}, trace, np.ones_like(Z))
    slope[np.isin(Z, kinks)] = np.nan
    ax.axhline(0.0, color=GREY, linewidth=0.8)
    ax.axvline(0.0, color=GREY, linewidth=0.8)
    ax.plot(Z[0], A[0], color=BLUE, linewidth=2.0, label=layer.name)
    ax.plot(Z[0], slope[0], color=VERMILION, linewidth=2.0, linestyle="--", label="its derivative")
    ax.grid(True, alpha=0.3)
    ax.set_xlabel("Z")
    ax.set_ylabel("A = f(Z) and f'(Z)")
    ax.legend()
    return ax


def score_names(history: Sequence[Record]) -> list[str]:
    """Return the measures of which higher is better, such as val_accuracy: all but losses and errors."""
    return [name for name in _measures(history) if not lower_is_better(name)]


def _measures(history: Sequence[Record]) -> list[str]:
    """Return the names of all measures; refuses an empty history."""
    if not len(history):
        raise ValueError(
            "the history has no record; pass what train(...) returns, or the history.jsonl of a run "
            "that has begun: read_history(path)"
        )
    return measures_of(history)


def _column(history: Sequence[Record], name: str) -> np.ndarray:
    values = [record.get(name) for record in history]
    return np.array([value if isinstance(value, Real) else math.nan for value in values], np.float64)


def _kind(name: str) -> str:
    """Return a measure in words, without the part of the data."""
    return metric_of(name).replace("_", " ")


def _draw_line(ax: Axes, history: Sequence[Record], name: str, number: int, label: str, linestyle: str = "-") -> None:
    """Draw one measure over the epochs, in the colour and with the marks of the line of that number."""
    ax.plot(
        [record["epoch"] for record in history],
        _column(history, name),
        color=COLOURS[number % len(COLOURS)],
        marker=MARKERS[number % len(MARKERS)],
        markersize=4.5,
        linewidth=1.6,
        markevery=max(1, -(-len(history) // _MARKED)),
        linestyle=linestyle,
        label=label,
    )


def _draw_measures(ax: Axes, history: Sequence[Record], names: Sequence[str]) -> None:
    epochs = [record["epoch"] for record in history]
    for number, name in enumerate(names):
        part = "training" if name.startswith(TRAINING) else "validation"
        _draw_line(ax, history, name, number, f"{part} {_kind(name)}", "-" if part == "training" else "--")
    chosen = history[-1].get("chosen_epoch")
    if chosen is not None:
        ax.axvline(chosen, color=GREY, linestyle=":", linewidth=1.6, label=f"weights of epoch {chosen} kept")
    if len(set(epochs)) == 1:
        ax.set_xlim(epochs[0] - 0.5, epochs[0] + 0.5)
    _number_epochs(ax)


def _number_epochs(ax: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.grid(True, alpha=0.3)
    ax.set_xlabel("epoch (0: untrained)")
    ax.legend()


def scale_log(ax: Axes, ratio: float) -> None:
    """Make the vertical axis logarithmic, with labels also where the values span less than a power of ten."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

    ax.set_yscale("log")
    subs = next((subs for most, subs in _LABELLED if ratio < most), (1.0,))
    ax.yaxis.set_major_locator(LogLocator(subs=subs) if subs else MaxNLocator(6))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
