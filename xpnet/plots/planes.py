"""Samples in the plane of two features: their classes, the regions that a network decides on, and its mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.checks import check_whole
from xpnet.data.dataset import Dataset
from xpnet.network.network import Network
from xpnet.plots.figures import BLUE, COLOURS, GREY, MARKERS, VERMILION, legend_beside, new_axes
from xpnet.training.evaluation import check_compatible, outputs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GRID = 300  # points of the plane along each axis
_PALE = 0.72  # how much white there is in a region's colour
_HATCHES = ("", "//", "..", "xx")  # of regions whose colours are used again


def scatter(
    dataset: Dataset,
    ax: Axes | None = None,
    *,
    features: tuple[int, int] | None = None,
    names: Sequence[str] | None = None,
    feature_names: Sequence[str] | None = None,
    n: int = 2000,
) -> Axes:
    """Draw a labelled data set in the plane of two features, a colour and a marker for each class.

    features: of the horizontal and the vertical axis, by index; they may be left out where there are just two.
    names: of the classes.  feature_names: of all features.  n: the most samples to draw, evenly spaced over the set.
    Raises ValueError for features that are not there or not two, or a data set without classes.
    """
    across, up = _two(dataset, features)
    names = class_names(dataset, names)
    shown, X = _shown(dataset, n)
    ax = new_axes() if ax is None else ax
    for label, name in enumerate(names):
        of_class = shown.labels == label
        ax.scatter(
            X[across, of_class],
            X[up, of_class],
            s=22.0,
            linewidths=0.5,
            edgecolors="white",
            color=COLOURS[label % len(COLOURS)],
            marker=MARKERS[label % len(MARKERS)],
            label=f"{name} ({of_class.sum():,})",
        )
    return _finished(ax, across, up, feature_names)


def decision_regions(
    network: Network,
    dataset: Dataset,
    ax: Axes | None = None,
    *,
    features: tuple[int, int] | None = None,
    names: Sequence[str] | None = None,
    feature_names: Sequence[str] | None = None,
    n: int = 2000,
) -> Axes:
    """Draw which class a network gives to each point of a plane, the samples on it, and a ring round the wrong ones.

    The other features, where there are more than two, are held at their mean over the samples drawn; a ring is judged
    by the sample's own.  features, names, feature_names, n: as for `scatter`.
    Raises ValueError as `scatter` does, or for a data set that the network cannot take.
    """
    check_compatible(network, dataset, "the data set")
    across, up = _two(dataset, features)
    names = class_names(dataset, names)
    shown, X = _shown(dataset, n)
    ax = new_axes() if ax is None else ax
    x, y = _range(X[across]), _range(X[up])
    plane = np.repeat(X.mean(axis=1, keepdims=True), _GRID * _GRID, axis=1)
    plane[across], plane[up] = np.tile(x, _GRID), np.repeat(y, _GRID)
    backend = network.backend
    regions = backend.to_host(network.classify(backend.to_device(plane))).reshape(_GRID, _GRID)
    _draw_regions(ax, x, y, regions, names)
    scatter(shown, ax, features=(across, up), names=names, n=n)
    wrong = outputs(network, shown, network.classify) != shown.labels
    ax.scatter(
        X[across, wrong],
        X[up, wrong],
        s=80.0,
        facecolors="none",
        edgecolors="black",
        linewidths=1.2,
        label=f"misclassified ({wrong.sum():,})",
    )
    ax.set_xlim(x[0], x[-1])
    ax.set_ylim(y[0], y[-1])
    return _finished(ax, across, up, feature_names)


def misclassified(
    network: Network,
    dataset: Dataset,
    ax: Axes | None = None,
    *,
    features: tuple[int, int] | None = None,
    feature_names: Sequence[str] | None = None,
    n: int = 2000,
) -> Axes:
    """Draw the samples in the plane of two features, blue dots where the network is right, vermilion crosses where not.

    features, feature_names, n: as for `scatter`.
    Raises ValueError as `decision_regions` does.
    """
    check_compatible(network, dataset, "the data set")
    across, up = _two(dataset, features)
    shown, X = _shown(dataset, n)
    right = outputs(network, shown, network.classify) == shown.labels
    ax = new_axes() if ax is None else ax
    styles: tuple[tuple[np.ndarray, str, dict[str, Any]], ...] = (
        (right, "right", {"marker": "o", "s": 20.0, "color": BLUE, "alpha": 0.7, "linewidths": 0.0}),
        (~right, "wrong", {"marker": "x", "s": 60.0, "color": VERMILION, "linewidths": 2.0}),
    )
    for chosen, name, style in styles:
        part = f"{name} ({chosen.sum():,}, {chosen.mean():.1%})"
        ax.scatter(X[across, chosen], X[up, chosen], label=part, **style)
    return _finished(ax, across, up, feature_names)


def class_names(dataset: Dataset, names: Sequence[str] | None) -> list[str]:
    """Return a name for each class; raises ValueError for another number of names, or a set without classes."""
    dataset.labels  # noqa: B018  refuses what holds no classes
    n_classes = max(2, dataset.n_outputs)
    if names is None:
        return [f"class {label}" for label in range(n_classes)]
    if isinstance(names, str) or len(names) != n_classes:
        raise ValueError(
            f"names is {names!r} and the data set has {n_classes} classes; give a list of {n_classes} names, or none"
        )
    return [str(name) for name in names]


def spaced(n_samples: int, n: int) -> np.ndarray:
    """Return the indices of at most n samples, evenly spaced."""
    n = check_whole("n", n, at_least=1)
    return np.unique(np.linspace(0, n_samples - 1, min(n, n_samples)).round().astype(np.intp))


def _two(dataset: Dataset, features: Any) -> tuple[int, int]:
    n = dataset.n_features
    if n < 2:
        raise ValueError("the data set has 1 feature, a plane needs 2; give each sample another: np.vstack([X, x2])")
    if features is None and n == 2:
        return 0, 1
    fix = "choose the axes with features=(0, 1)"
    if features is None:
        raise ValueError(f"the data set has {n} features, a plane has 2; {fix}")
    try:
        across, up = (check_whole("a feature", feature, at_least=0) for feature in features)
    except TypeError:
        across = up = 0
    except ValueError:
        raise ValueError(f"features is {features!r}; they must be two, from 0 to {n - 1}; {fix}") from None
    if across == up or max(across, up) >= n:
        raise ValueError(f"features is {features!r}; they must be two different ones, from 0 to {n - 1}; {fix}")
    return across, up


def _shown(dataset: Dataset, n: int) -> tuple[Dataset, np.ndarray]:
    """Return the samples to draw, and their features (n_features, n) as the network sees them."""
    shown = dataset.subset(spaced(dataset.n_samples, n))
    X, *_ = next(shown.batches(shown.n_samples))
    return shown, X


def _range(values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    margin = 0.06 * (high - low) or 1.0
    return np.linspace(low - margin, high + margin, _GRID)


def _draw_regions(ax: Axes, x: np.ndarray, y: np.ndarray, regions: np.ndarray, names: Sequence[str]) -> None:
    from matplotlib.colors import ListedColormap, to_rgb

    pale = [
        tuple(1.0 - (1.0 - part) * (1.0 - _PALE) for part in to_rgb(COLOURS[i % len(COLOURS)]))
        for i in range(len(names))
    ]
    ax.imshow(
        regions,
        origin="lower",
        extent=(x[0], x[-1], y[0], y[-1]),
        aspect="auto",
        interpolation="nearest",
        cmap=ListedColormap(pale),
        vmin=-0.5,
        vmax=len(names) - 0.5,
    )
    for label in range(len(names)):  # a border, so that colours need not be told apart
        inside = regions == label
        if not inside.any():
            continue
        hatch = _HATCHES[label // len(COLOURS) % len(_HATCHES)]
        ax.fill(
            [], [], facecolor=pale[label], edgecolor=GREY, linewidth=0.0, hatch=hatch, label=f"region of {names[label]}"
        )
        if hatch:
            ax.contourf(x, y, inside.astype(np.float64), levels=[0.5, 1.5], colors="none", hatches=[hatch])
        if not inside.all():
            ax.contour(x, y, inside.astype(np.float64), levels=[0.5], colors="black", linewidths=0.8)


def _finished(ax: Axes, across: int, up: int, names: Sequence[str] | None) -> Axes:
    ax.set_xlabel(f"feature {across}" if names is None else names[across])
    ax.set_ylabel(f"feature {up}" if names is None else names[up])
    legend_beside(ax)
    return ax
