"""Predictions beside what is true: ROC, precision and recall, calibration; of numbers both, and their differences.

P are predictions and Y targets, (n_outputs, n_samples), as `xpnet.metrics` takes them; weights (n_samples,) or None.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.checks import one_line
from xpnet.plots.figures import BLUE, COLOURS, GREY, MARKERS, legend_beside, new_axes
from xpnet.training import metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LONGEST = 30  # letters of a name
_MOST = 10  # classes that are drawn, the most frequent ones


def roc_curve(
    P: Any, Y: Any, ax: Axes | None = None, *, names: Sequence[Any] | None = None, weights: Any = None
) -> Axes:
    """Draw the share of a class that is found against the share of the others taken for it, at every threshold.

    P: probabilities, or any score that is higher for the class; of one output it is that of class 1.
    names: of the classes.  Source: Fawcett (2006), An introduction to ROC analysis.
    """
    ax = new_axes() if ax is None else ax
    for number, (name, p, y) in enumerate(_each_class(P, Y, names)):
        found, taken = _found(p, y, weights)
        area = metrics.roc_auc(p[None], y[None], weights)
        ax.plot(
            np.append(0.0, taken / taken[-1]),
            np.append(0.0, found / found[-1]),
            **_style(number),
            label=f"{name}: area {area:.3f}",
        )
    ax.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="by chance: 0.5")
    ax.set_xlabel("share of the other classes that is taken for it")
    ax.set_ylabel("share of the class that is found (recall)")
    return _finished(ax)


def precision_recall_curve(
    P: Any, Y: Any, ax: Axes | None = None, *, names: Sequence[Any] | None = None, weights: Any = None
) -> Axes:
    """Draw which share of those taken for a class belongs to it against the share found, at every threshold.

    The average precision is the sum of the precisions times the rises of recall.  P, names: as for `roc_curve`.
    """
    ax = new_axes() if ax is None else ax
    for number, (name, p, y) in enumerate(_each_class(P, Y, names)):
        found, taken = _found(p, y, weights)
        precision, recall = found / (found + taken), found / found[-1]
        average = float(np.sum(precision * np.diff(recall, prepend=0.0)))
        ax.step(
            np.append(0.0, recall),
            np.append(precision[0], precision),
            where="pre",
            **_style(number),
            label=f"{name}: average precision {average:.3f}",
        )
    ax.set_xlabel("share of the class that is found (recall)")
    ax.set_ylabel("share of those taken for it that belong to it (precision)")
    return _finished(ax)


def calibration_curve(
    P: Any, Y: Any, ax: Axes | None = None, *, names: Sequence[Any] | None = None, weights: Any = None
) -> Axes:
    """Draw how often a class is true against the probability given to it, by tenths of the probability.

    P: probabilities.  names: of the classes.  A marker is larger where there are more samples.
    """
    ax = new_axes() if ax is None else ax
    for number, (name, p, y) in enumerate(_each_class(P, Y, names)):
        held, given, true = metrics.calibration(p, y, weights)
        some = held > 0
        line = _style(number)
        ends = given[some] / held[some], true[some] / held[some]
        ax.plot(*ends, color=line["color"], marker=line["marker"], markersize=3.0, linewidth=1.0, label=name)
        sizes = 15 + 200 * held[some] / held.sum()
        ax.scatter(*ends, s=sizes, color=line["color"], marker=line["marker"])
    ax.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="as often as said")
    ax.set_xlabel("probability given to the class")
    ax.set_ylabel("share of the samples that are of it")
    return _finished(ax)


def predicted_against_true(P: Any, Y: Any, ax: Axes | None = None, *, name: str = "target") -> Axes:
    """Draw predictions (n_samples,) of a number against what is true, and the line where they are equal.

    name: of the number, with its unit.
    """
    P, Y, ax = np.ravel(P), np.ravel(Y), new_axes() if ax is None else ax
    ends = [min(P.min(), Y.min()), max(P.max(), Y.max())]
    ax.plot(ends, ends, color=GREY, linestyle=":", label="equal")
    ax.scatter(Y, P, s=14, color=BLUE, alpha=0.5, linewidths=0, label=f"{len(Y):,} samples")
    ax.set_xlabel(f"true {one_line(name, _LONGEST)}")
    ax.set_ylabel(f"predicted {one_line(name, _LONGEST)}")
    ax.set_title(f"R2 {metrics.r2(P[None], Y[None]):.4f}")
    ax.grid(True, alpha=0.3)
    ax.legend()
    return ax


def residuals(P: Any, Y: Any, ax: Axes | None = None, *, name: str = "target") -> Axes:
    """Draw by how much a number is above its prediction (n_samples,) against the prediction.  name: of the number."""
    P, Y, ax = np.ravel(P), np.ravel(Y), new_axes() if ax is None else ax
    ax.axhline(0.0, color=GREY, linestyle=":")
    ax.scatter(P, Y - P, s=14, color=BLUE, alpha=0.5, linewidths=0)
    ax.set_xlabel(f"predicted {one_line(name, _LONGEST)}")
    ax.set_ylabel(f"true minus predicted {one_line(name, _LONGEST)}")
    root = metrics.root_mean_squared_error(P[None], Y[None])
    ax.set_title(f"{len(Y):,} samples, root of the mean square {root:.6g}")
    ax.grid(True, alpha=0.3)
    return ax


def _each_class(P: Any, Y: Any, names: Sequence[Any] | None) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield name, scores (n,) and truth (n,) of each class that has samples, and others beside; raises ValueError."""
    P, Y = np.atleast_2d(np.asarray(P, np.float64)), np.atleast_2d(np.asarray(Y, np.float64))
    called = (
        [f"class {label}" for label in range(max(2, len(P)))]
        if names is None
        else [one_line(name, _LONGEST) for name in names]
    )
    called = called[1:] if len(P) == 1 else called
    two_sided = [i for i, y in enumerate(Y) if 0 < y.sum() < len(y)]
    if not two_sided:
        raise ValueError("Y has samples of one class only; a curve needs two; give samples of several classes")
    for i in sorted(sorted(two_sided, key=lambda i: -Y[i].sum())[:_MOST]):
        yield called[i], P[i], Y[i]


def _found(p: np.ndarray, y: np.ndarray, weights: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return how much of the class, and of the others, lies at or above each different score, from the highest on."""
    w = np.ones(len(p)) if weights is None else np.asarray(weights, np.float64)
    order = np.argsort(-p, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(p[order]) != 0.0, True))
    return np.cumsum((w * y)[order])[ends], np.cumsum((w * (1.0 - y))[order])[ends]


def _style(number: int) -> dict[str, Any]:
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "markevery": 0.2,
        "markersize": 5.0,
        "linewidth": 1.6,
    }


def _finished(ax: Axes) -> Axes:
    ax.set_xlim(-0.02, 1.02)
    ax.set_ylim(-0.02, 1.02)
    ax.grid(True, alpha=0.3)
    legend_beside(ax)
    return ax
