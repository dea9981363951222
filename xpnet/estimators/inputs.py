"""What an estimator is given, checked: rows and targets to fit, samples to validate on, rows to predict.

Rows on a GPU are checked and stay there; all others go through scikit-learn's own checks, which write n_features_in_
and feature_names_in_ into the estimator.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.model_selection import ShuffleSplit, StratifiedShuffleSplit
from sklearn.utils import assert_all_finite, column_or_1d
from sklearn.utils.validation import _check_sample_weight, validate_data

from xpnet.backend import Backend, select_backend
from xpnet.checks import refuse_masked, shown
from xpnet.data.classes import stratified
from xpnet.estimators.data import check_device, check_sides, imported, on_host, side_of

FLOATS = (np.float64, np.float32)


@dataclass(frozen=True)
class HeldOut:
    """Samples to score after each epoch.

    X: rows where they lie.  y: labels or targets.  Y (n_samples, n_outputs): the network's targets of them.
    weights (n_samples,): None for all alike.
    """

    X: Any
    y: np.ndarray
    Y: np.ndarray
    weights: np.ndarray | None


def taken(estimator: Any, X: Any, y: Any, sample_weight: Any, reset: bool) -> tuple[Any, np.ndarray, Any]:
    """Return rows X where they lie, and y and weights (n_samples,), or None, on the host.

    reset: whether a network is to be made; otherwise X must fit the present one.
    """
    if y is None:
        raise ValueError(f"requires y to be passed, but the target y is None: {type(estimator).__name__}.fit(X, y)")
    refuse_masked(X=X, y=y, sample_weight=sample_weight)
    check_sides(X=X, y=y, sample_weight=sample_weight)
    backend = _backend(estimator, X, reset)
    check_device(X, "cpu" if backend is None else backend.device)
    X, y = imported(X, backend), y if backend is None else on_host(y, backend)
    if side_of(X) == "cuda":
        _check_device_rows(estimator, X, reset)
        y = np.asarray(y)
        if len(y) != X.shape[0]:
            raise ValueError(f"X has {X.shape[0]} samples and y has {len(y)}; give as many of both")
    else:
        numeric = not is_classifier(estimator)
        X, y = validate_data(
            estimator, X, y, accept_sparse="csr", multi_output=True, y_numeric=numeric, dtype=FLOATS, reset=reset
        )
    y = _column_as_vector(y)
    return X, y, _weights(sample_weight if backend is None else on_host(sample_weight, backend), len(y))


def rows_to_predict(estimator: Any, X: Any) -> Any:
    """Check rows to predict, and return them where they lie."""
    if _is_ready(estimator, X):
        return X
    refuse_masked(X=X)
    backend = estimator.network_.backend
    check_device(X, backend.device)
    X = imported(X, backend)
    if side_of(X) == "cpu":
        return validate_data(estimator, X, accept_sparse="csr", dtype=FLOATS, reset=False)
    _check_device_rows(estimator, X, reset=False)
    return X


def _is_ready(estimator: Any, X: Any) -> bool:
    """Return whether scikit-learn's checks, which take longer than to predict a few rows, would return X as it is."""
    if type(X) is not np.ndarray or X.dtype not in FLOATS or X.ndim != 2 or not X.shape[0]:
        return False
    if X.shape[1] != estimator.n_features_in_ or hasattr(estimator, "feature_names_in_"):
        return False
    low, high = np.minimum.reduce(X, None), np.maximum.reduce(X, None)  # NaN where an element is
    return bool(low > -np.inf and high < np.inf) and estimator.network_.backend.device == "cpu"


def checked_validation(estimator: Any, X_train: Any, validation: Any) -> HeldOut:
    """Return the samples of (X, y) or (X, y, sample_weight), of which y and weights are copied to the host."""
    if not isinstance(validation, (tuple, list)) or len(validation) not in (2, 3):
        raise TypeError(f"validation is a {type(validation).__name__}; pass validation=(X, y) or (X, y, sample_weight)")
    X, y, sample_weight = (*validation, None)[:3]
    check_sides(X=X_train, validation=X)
    refuse_masked(y=y, sample_weight=sample_weight)
    check_sides(X=X, y=y, sample_weight=sample_weight)
    y, weights = (on_host(array, estimator.network_.backend) for array in (y, sample_weight))
    X, y = rows_to_predict(estimator, X), np.asarray(y.toarray() if hasattr(y, "toarray") else y)
    if X.shape[0] != len(y):
        raise ValueError(f"X of validation has {X.shape[0]} samples and y has {len(y)}; give as many of both")
    y = _column_as_vector(y)
    assert_all_finite(y, input_name="y of validation")
    Y = estimator._targets(y, new_classes=False)  # refuses unknown classes
    if Y.shape[1] != estimator.n_outputs_:
        raise ValueError(
            f"y of validation has {Y.shape[1]} outputs and that of the training {estimator.n_outputs_}; give as many"
        )
    return HeldOut(X, y, Y, _weights(weights, len(y)))


def split(
    estimator: Any, X: Any, Y: np.ndarray, weights: Any, y: np.ndarray, rng: Any
) -> tuple[Any, np.ndarray, Any, HeldOut]:
    """Hold out a part for early stopping; returns X, Y, weights and what is held.

    As scikit-learn does, unless a class of two samples or more would be missing in a part.
    """
    train, held = _parts(estimator, Y, y, rng)
    if len(held) < 2:
        _check_rare(estimator, y)
        raise ValueError(
            "The validation set is too small. Increase 'validation_fraction' or the size of your dataset: "
            f"validation_fraction={estimator.validation_fraction:g} of {len(y)} samples is {len(held)}, and 2 are "
            "needed; raise validation_fraction, or give more samples"
        )
    picked = None if weights is None else (weights[train], weights[held])
    if picked is not None and not all(part.any() for part in picked):
        raise ValueError(
            "the samples held out, or those left, all have the weight 0; pass validation=(X, y), or "
            "leave out the samples without weight"
        )
    X_train, X_held = (picked_rows(X, part, estimator.network_.backend) for part in (train, held))
    return X_train, Y[train], picked and picked[0], HeldOut(X_held, y[held], Y[held], picked and picked[1])


def _check_rare(estimator: Any, y: np.ndarray) -> None:
    """Refuse two classes, one of them of a single sample, as scikit-learn does, which names its codes of them."""
    if not is_classifier(estimator) or estimator._is_multilabel or len(estimator.classes_) != 2:
        return
    rare = [label for label in estimator.classes_ if np.count_nonzero(y == label) == 1]
    if rare:
        codes = [str(label == estimator.classes_[1]) for label in rare]
        raise ValueError(
            f"The least populated classes in y have only 1 member, too few to hold some out: {shown(rare[0])}. Classes "
            f"with too few members are: {codes} in scikit-learn's codes; give two samples or more of each class, or "
            "pass early_stopping=False"
        )


def _parts(estimator: Any, Y: np.ndarray, y: np.ndarray, rng: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices to train on, and those to hold out."""
    samples, fraction = np.arange(len(y)), estimator.validation_fraction
    if not is_classifier(estimator) or estimator._is_multilabel:
        return _shuffled(ShuffleSplit, samples, None, fraction, rng)
    labels = Y.argmax(axis=1) if Y.shape[1] > 1 else Y[:, 0].astype(np.intp)
    sizes, is_binary = np.bincount(labels, minlength=2), Y.shape[1] == 1 and len(estimator.classes_) == 2
    if not is_binary or sizes.min() > 1:  # else scikit-learn refuses it
        kind = StratifiedShuffleSplit if is_binary else ShuffleSplit
        train, held = _shuffled(kind, samples, labels, fraction, rng)
        if all((np.bincount(labels[part], minlength=len(sizes))[sizes > 1] > 0).all() for part in (train, held)):
            return train, held
    order = rng.permutation(samples)
    held = rng.permutation(stratified(order, labels[order], math.ceil(fraction * len(y)), on_both_sides=True))
    return order[~np.isin(order, held)], held


def _shuffled(kind: Any, samples: np.ndarray, labels: Any, fraction: float, rng: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the parts that scikit-learn's train_test_split makes, without its checks of the arrays.

    kind: the splitter that it takes.  labels (n_samples,): classes to stratify by, where it does.
    """
    train, held = next(kind(test_size=fraction, random_state=rng).split(samples, labels))
    return train, held


def picked_rows(X: Any, order: np.ndarray, backend: Backend) -> Any:
    """Return rows of X in this order; on a GPU they are taken there."""
    return X[order] if side_of(X) == "cpu" else X.take(backend.to_device(order, np.int64), 0)


def _backend(estimator: Any, X: Any, reset: bool) -> Backend | None:
    """Return the backend of the network, present or to be made; None if X need not be moved."""
    if not reset:
        backend: Backend = estimator.network_.backend
        return backend
    if estimator.device == "cpu" or (estimator.device == "auto" and side_of(X) == "cpu"):
        return None
    return select_backend(estimator.device, estimator.dtype or (X.dtype if side_of(X) == "cuda" else "float32"))


def _check_device_rows(estimator: Any, X: Any, reset: bool) -> None:
    """Check rows on a GPU as validate_data does; reads one number from there."""
    if X.ndim != 2:
        raise ValueError(
            f"X is {tuple(X.shape)}; it must be (n_samples, n_features). Reshape it with "
            "X.reshape(-1, 1) for one feature, X.reshape(1, -1) for one sample"
        )
    if X.dtype.kind == "f" and not bool(np.isfinite(float(X.sum()))):
        raise ValueError(
            "X holds NaN or infinity, or its sum is too large; it must hold finite numbers: fill the "
            "gaps and scale the features"
        )
    if reset:
        estimator.n_features_in_ = int(X.shape[1])
    elif X.shape[1] != estimator.n_features_in_:
        raise ValueError(
            f"X has {X.shape[1]} features, but {type(estimator).__name__} is expecting "
            f"{estimator.n_features_in_} features as input; give those that it was fitted on, or "
            "fit it again"
        )


def _column_as_vector(y: Any) -> np.ndarray:
    vector: np.ndarray = column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y
    return vector


def _weights(weights: Any, n_samples: int) -> Any:
    """Return sample weights (n_samples,) in float64, or None; raises ValueError for bad ones."""
    if weights is None:
        return None
    given = np.asarray(weights, np.float64)
    if given.size and not given.any():  # scikit-learn's own message names no fix
        raise ValueError(
            "Sample weights must contain at least one non-zero number: they are all zero; leave "
            "sample_weight out to count all samples alike"
        )
    weights = _check_sample_weight(weights, np.empty((n_samples, 0)), dtype=np.float64)
    if (weights < 0).any():
        raise ValueError("Negative values in data passed to `sample_weight`; weights must be at least 0")
    return weights
