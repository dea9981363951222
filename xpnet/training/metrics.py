"""Metrics of predictions: accuracy, ROC AUC, precision, recall, F1, R^2 and errors, in float64 on the host.

One sample is one column: P, the predictions, and Y, the targets, are (n_outputs, n_samples); weights (n_samples,) or
None. Classes are one-hot columns, or 0 and 1 where there is one output, which `threshold` cuts: above it is class 1.
A weight k equals k copies of the sample. The definitions are scikit-learn's (Pedregosa et al., 2011), for all classes
that Y has a row for, whether or not they occur.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpnet.checks import by_their_mean, check_option, check_whole, refuse_masked

Array = Any
AVERAGES = ("binary", "macro", "micro", "weighted")


def accuracy(P: Array, Y: Array, weights: Array = None, *, threshold: float | str = 0.5) -> float:
    """Return the share of the samples whose class is predicted; of equal predictions the first counts.

    threshold: of a single output; "base_rate" for the mean of Y.
    """
    counts = confusion_matrix(P, Y, _relative(weights), threshold=threshold)
    return float(np.trace(counts) / counts.sum())


def top_k_accuracy(P: Array, Y: Array, weights: Array = None, *, k: int = 2) -> float:
    """Return the share of the samples whose class is among the k highest predictions; of equal ones the last count.

    k: from 1 to n_outputs, of which there are at least 2.
    """
    P, Y, w = _checked(P, Y, _relative(weights))
    true, n_classes = _true_class(Y), len(Y)
    k = check_whole("k", k, at_least=1)
    if n_classes == 1 or k > n_classes:
        raise ValueError(
            f"k is {k} and there are {n_classes} outputs; k must be at most the outputs, which must be at least 2"
        )
    score = P[true, np.arange(P.shape[1])]
    later = np.arange(n_classes)[:, None] > true
    above = ((score < P) | ((score == P) & later)).sum(axis=0)
    return _mean((above < k).astype(np.float64), w)


def roc_auc(P: Array, Y: Array, weights: Array = None) -> float:
    """Return the area under the ROC curve; of several outputs the mean of each against the rest (macro).

    It is the probability that a sample of the class is predicted higher than one that is not, ties counting a half.
    NaN where an output has no sample of its class, or none of the others. Several yes-or-no outputs may be given too.
    Source: Fawcett (2006), An introduction to ROC analysis.
    """
    P, Y, w = _checked(P, Y, _relative(weights))
    if not ((Y == 0.0) | (Y == 1.0)).all():
        raise ValueError("Y holds numbers other than 0 and 1; roc_auc needs classes; use labels of classes")
    return float(np.mean([_binary_auc(p, y, w) for p, y in zip(P, Y, strict=True)]))


def confusion_matrix(P: Array, Y: Array, weights: Array = None, *, threshold: float | str = 0.5) -> np.ndarray:
    """Return C (n_classes, n_classes): C[i, j] is the weight of the samples of class i predicted as class j."""
    P, Y, w = _checked(P, Y, weights)
    true, n_classes = _true_class(Y), max(2, len(Y))
    predicted = P.argmax(axis=0) if len(P) > 1 else (P[0] > _cut(threshold, Y, w)).astype(np.intp)
    return np.bincount(true * n_classes + predicted, w, n_classes**2).reshape(n_classes, n_classes)


def precision(
    P: Array, Y: Array, weights: Array = None, *, average: str | None = None, threshold: float | str = 0.5
) -> float:
    """Return the share of the samples predicted as a class that belong to it, 0 where none was predicted.

    average: "binary" (class 1; the default of one output), "macro" (mean over the classes; the default of several),
    "micro" (all samples together) or "weighted" (mean weighted by the classes' weights in Y).
    """
    return _averaged("precision", P, Y, weights, average, threshold)


def recall(
    P: Array, Y: Array, weights: Array = None, *, average: str | None = None, threshold: float | str = 0.5
) -> float:
    """Return the share of a class's samples that are predicted as it, 0 if it has none.  average: see `precision`."""
    return _averaged("recall", P, Y, weights, average, threshold)


def f1(P: Array, Y: Array, weights: Array = None, *, average: str | None = None, threshold: float | str = 0.5) -> float:
    """Return the harmonic mean of precision and recall, 0 where both are.  average: see `precision`."""
    return _averaged("f1", P, Y, weights, average, threshold)


def by_class(P: Array, Y: Array, weights: Array = None, *, threshold: float | str = 0.5) -> dict[str, np.ndarray]:
    """Return precision, recall and f1 of each class (n_classes,), by these names."""
    counts = _counts(P, Y, weights, threshold)
    return {name: _ratio(*parts(*counts)) for name, parts in _PARTS.items()}


def calibration(p: Array, y: Array, weights: Array = None) -> np.ndarray:
    """Return by tenths of the probability (3, 10): the weight of the samples, of what is said, and of what is true.

    p, y (n_samples,): probabilities that something is true, and 1 where it is, else 0.
    Source: Guo et al. (2017), On calibration of modern neural networks, equation 3.
    """
    w = np.ones(len(p)) if weights is None else np.asarray(weights, np.float64)
    places = np.minimum((p * _TENTHS).astype(np.intp), _TENTHS - 1)
    return np.stack([np.bincount(places, each, _TENTHS) for each in (w, w * p, w * y)])


def r2(P: Array, Y: Array, weights: Array = None) -> float:
    """Return 1 - sum (Y - P)^2 / sum (Y - mean Y)^2, the mean over the outputs.

    An output that is constant in Y gives 1 where the predictions are right, else 0. NaN for a single sample.
    """
    P, Y, w = _checked(P, Y, _relative(weights))
    if Y.shape[1] < 2:
        return float("nan")
    largest = np.maximum(abs(P).max(axis=1), abs(Y).max(axis=1))  # divided by a power of 2, so that squares are finite
    scale = np.ldexp(1.0, -np.clip(np.frexp(largest)[1], -1000, 1000))[:, None]
    P, Y = P * scale, Y * scale
    residual = (Y - P) ** 2 @ w
    total = (Y - (Y @ w / w.sum())[:, None]) ** 2 @ w
    scores = np.where(residual == 0.0, 1.0, 0.0)
    counted = Y[:, w > 0.0]  # by equality: the mean of equal numbers is rounded, and their variance then is not 0
    varies = (counted.max(axis=1) > counted.min(axis=1)) & (total != 0.0) & (residual != 0.0)
    scores[varies] = 1.0 - residual[varies] / total[varies]
    return float(scores.mean())


def mean_absolute_error(P: Array, Y: Array, weights: Array = None) -> float:
    """Return the mean of |P - Y| over samples and outputs."""
    P, Y, w = _checked(P, Y, _relative(weights))
    return _mean(abs(P - Y).mean(axis=0), w)


def mean_squared_error(P: Array, Y: Array, weights: Array = None) -> float:
    """Return the mean of (P - Y)^2 over samples and outputs."""
    P, Y, w = _checked(P, Y, _relative(weights))
    return _mean(((P - Y) ** 2).mean(axis=0), w)


def root_mean_squared_error(P: Array, Y: Array, weights: Array = None) -> float:
    """Return the root of the mean of (P - Y)^2 over the samples, the mean over the outputs."""
    P, Y, w = _checked(P, Y, _relative(weights))
    return float(np.sqrt((P - Y) ** 2 @ w / w.sum()).mean())


@dataclass(frozen=True)
class Metric:
    """What `evaluate` takes by name.

    function: returns a number for P, Y and weights.  lower_is_better: an error from 0 on, else a score of at most 1.
    takes_threshold: whether the function cuts a single output at its `threshold`.
    """

    function: Callable[..., float]
    lower_is_better: bool = False
    takes_threshold: bool = False


METRICS = {
    "accuracy": Metric(accuracy, takes_threshold=True),
    "top_k_accuracy": Metric(top_k_accuracy),
    "roc_auc": Metric(roc_auc),
    "precision": Metric(precision, takes_threshold=True),
    "recall": Metric(recall, takes_threshold=True),
    "f1": Metric(f1, takes_threshold=True),
    "r2": Metric(r2),
    "mean_absolute_error": Metric(mean_absolute_error, lower_is_better=True),
    "mean_squared_error": Metric(mean_squared_error, lower_is_better=True),
    "root_mean_squared_error": Metric(root_mean_squared_error, lower_is_better=True),
}


def _relative(weights: Array) -> Array:
    """Return weights that count by their mean, whose sums and products stay within the range of floats."""
    w = None if weights is None else np.asarray(weights, np.float64)
    return by_their_mean(w) if w is not None and w.size and np.isfinite(w).all() else w


def _checked(P: Array, Y: Array, weights: Array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return P, Y and weights in float64; refuses what does not fit."""
    refuse_masked(P=P, Y=Y, weights=weights)
    P, Y = np.asarray(P, np.float64), np.asarray(Y, np.float64)
    if P.ndim != 2 or P.shape != Y.shape or P.size == 0:
        raise ValueError(
            f"the predictions are {P.shape} and Y is {Y.shape}; both must be (n_outputs, "
            "n_samples): a sample is a column, pass .T of rows"
        )
    if not (np.isfinite(P).all() and np.isfinite(Y).all()):
        raise ValueError(
            "the predictions or Y hold NaN or infinity; a metric needs finite numbers: train again with "
            "a lower learning rate, or remove the samples"
        )
    w = np.ones(P.shape[1]) if weights is None else np.asarray(weights, np.float64)
    if w.shape != (P.shape[1],) or not np.isfinite(w).all() or w.min() < 0.0 or not w.any():
        raise ValueError(
            f"weights is {w.shape}; it must be ({P.shape[1]},), one finite number >= 0 a sample, not all zero"
        )
    return P, Y, w


def _true_class(Y: np.ndarray) -> np.ndarray:
    if not ((Y == 0.0) | (Y == 1.0)).all() or (len(Y) > 1 and (Y.sum(axis=0) != 1.0).any()):
        raise ValueError("Y holds no classes: it must be one-hot columns, or one row of 0 and 1; use labels of classes")
    return np.asarray(Y.argmax(axis=0) if len(Y) > 1 else Y[0].astype(np.intp))


def _cut(threshold: float | str, Y: np.ndarray, w: np.ndarray) -> float:
    if isinstance(threshold, str):
        check_option("threshold", threshold, ("base_rate", "or a number"))
        return _mean(Y[0], w)
    return float(threshold)


def _mean(values: np.ndarray, w: np.ndarray) -> float:
    return float(values @ w / w.sum())


def _binary_auc(p: np.ndarray, y: np.ndarray, w: np.ndarray) -> float:
    """Return the weight of the pairs in the right order, ties half, divided by that of all pairs."""
    _, group = np.unique(p, return_inverse=True)
    positive, negative = np.bincount(group, w * y), np.bincount(group, w * (1.0 - y))
    pairs = positive.sum() * negative.sum()
    below = np.cumsum(negative) - negative / 2.0
    return float(positive @ below / pairs) if pairs > 0.0 else float("nan")


def _counts(P: Array, Y: Array, weights: Array, threshold: float | str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each class the weight of samples correctly predicted as it, predicted as it, and of it."""
    C = confusion_matrix(P, Y, _relative(weights), threshold=threshold)
    return np.diagonal(C), C.sum(axis=0), C.sum(axis=1)


def _default(P: Array) -> str:
    return "binary" if len(P) == 1 else "macro"


# Part and whole of a share, from the weights of samples that are right as a class, predicted as it, and of it.
_PARTS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    "precision": lambda right, predicted, true: (right, predicted),
    "recall": lambda right, predicted, true: (right, true),
    "f1": lambda right, predicted, true: (2.0 * right, predicted + true),
}
_TENTHS = 10


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return part / whole, 0 where whole is 0."""
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0.0)


def _averaged(name: str, P: Array, Y: Array, weights: Array, average: str | None, threshold: float | str) -> float:
    """Return a share of _PARTS averaged over the classes."""
    counts, average = _counts(P, Y, weights, threshold), average or _default(P)
    (part, whole), true = _PARTS[name](*counts), counts[2]
    check_option("average", average, AVERAGES)
    if average == "micro":
        part, whole = part.sum(keepdims=True), whole.sum(keepdims=True)
    scores = _ratio(part, whole)
    if average == "binary":
        if len(scores) != 2:
            raise ValueError(
                f"average is 'binary' for {len(scores)} classes; choose one of 'macro', 'micro', 'weighted'"
            )
        return float(scores[1])
    return _mean(scores, true) if average == "weighted" else float(scores.mean())
