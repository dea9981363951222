"""`TableClassifier` and `TableRegressor`: what `xpnet train` makes of a table, behind scikit-learn's interface.

They need the extras: pip install 'xpnet[data,sklearn]'. Defaults, split and training are those of the command line.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import assert_all_finite
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from xpnet.checks import shown
from xpnet.estimators.rows import free_name, rows_to_fit, rows_to_predict, target_of
from xpnet.estimators.together import random_state
from xpnet.estimators.undo import as_before_on_failure
from xpnet.recipe.defaults import BATCH_SIZE
from xpnet.recipe.fitting import FitOptions, fit_table
from xpnet.tables import cells
from xpnet.tables.decisions import lines
from xpnet.tables.model import outputs_of
from xpnet.tables.options import ColumnOptions
from xpnet.tables.preprocessing import Preprocessing

__all__ = ["TableClassifier", "TableRegressor"]

COLUMNS = ("drop", "keep", "categorical", "numeric", "date")
OPTIONS = [field.name for field in fields(FitOptions) if field.name not in ("seed", "columns")]


@dataclass(eq=False, repr=False, kw_only=True)
class BaseTable(BaseEstimator):  # type: ignore[misc]
    """The base of both estimators, of which `TableClassifier` documents parameters and attributes."""

    hidden: int | Sequence[int] | None = None
    dropout: float | Sequence[float] | None = None
    epochs: int | None = None
    patience: int | None = None
    batch_size: int = BATCH_SIZE
    lr: float | None = None
    ensemble: int | None = None
    validation: float | None = None
    drop: Sequence[str] = ()
    keep: Sequence[str] = ()
    categorical: Sequence[str] = ()
    numeric: Sequence[str] = ()
    date: Sequence[str] = ()
    device: str | None = None
    dtype: str = "float32"
    communicator: Any = None
    reduction: str | None = None
    random_state: Any = None

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Learn the columns and train; returns self.  y: one target a row.  sample_weight (n_samples,): of the rows.

        Rows whose target is missing are left out, with a warning.
        """
        with as_before_on_failure(self, False):
            return self._fit(X, y, sample_weight)

    def _fit(self, X: Any, y: Any, sample_weight: Any) -> Any:
        frame = rows_to_fit(self, X)
        columns = target_of(X, frame, y, self)
        for name in columns:
            if columns[name].dtype.kind == "f":
                assert_all_finite(columns[name].dropna(), input_name="y")
        task, names = self._task(columns), list(columns.columns)
        frame, weights = frame.join(columns), None
        if sample_weight is not None:
            weights = free_name("sample_weight", frame)
            given = _check_sample_weight(sample_weight, frame, dtype=np.float64)
            frame = frame.assign(**{weights: given})
        seed = self.random_state
        if not isinstance(seed, (int, np.integer)):
            seed = random_state(self).randint(2**31 - 1)
        named: dict[str, Any] = {name: _names(getattr(self, name)) for name in COLUMNS}
        asked = ColumnOptions(**named, weights=weights)
        options = FitOptions(**{name: getattr(self, name) for name in OPTIONS}, seed=int(seed), columns=asked)
        self.model_, decisions = fit_table(frame, names, task, options)
        self.decisions_ = list(lines(decisions))
        self._know(columns)
        return self

    @property
    def preprocessing_(self) -> Preprocessing:
        """What was learnt of each column."""
        check_is_fitted(self)
        return self.model_.preprocessing

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write what `xpnet.load` and `xpnet predict` read into a folder, which is made."""
        check_is_fitted(self)
        self.model_.save(folder)

    def _encoded(self, X: Any) -> np.ndarray:
        """Return features (n_features, n) of raw rows."""
        check_is_fitted(self)
        return self.model_.encode(rows_to_predict(self, X))

    def _task(self, columns: Any) -> str:
        """Return the task of targets, after their checks."""
        raise NotImplementedError

    def _know(self, columns: Any) -> None:
        """Take what must be known of the targets that were fitted."""

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.string = tags.input_tags.categorical = True
        tags.target_tags.required = True
        return tags


class TableClassifier(ClassifierMixin, BaseTable):  # type: ignore[misc]
    """Classifies raw rows: frames with texts, categories, dates and gaps, or arrays, without preparation.

    It trains as `xpnet train` does of the table by default: columns are found out, rows held out, the epoch with the
    lowest loss on these is kept, and of small tables the model is the mean of networks and a linear one.
    Parameters have the meanings of the command line's options; None takes their defaults.
    hidden: sizes of the hidden layers.  dropout: a rate, or one a hidden layer.  epochs: at most; with it one network
    is trained.  patience: epochs without a better loss.  batch_size: rows a step.  lr: learning rate.
    ensemble: networks to train.  validation: rows to hold out, a share below 1 or their number.
    drop, keep, categorical, numeric, date: names of columns, to leave out, or to take whatever they look like.
    device: "cpu", "cuda" or "auto".  dtype: "float32" or "float64".
    communicator, reduction: the processes that fit together, and how they add, as in `xpnet.train`.
    random_state: an int is the seed of the command line.
    Attributes: classes_, n_features_in_, feature_names_in_ of named columns, model_ (a `TableModel`), preprocessing_
    (what was learnt of each column), decisions_ (lines that say what was done without having been asked for).
    Predictions are arrays; `model_.predict` returns frames. The columns of a frame are found by their names.
    """

    def predict(self, X: Any) -> np.ndarray:
        """Return the class (n_samples,) of each row."""
        features = self._encoded(X)
        found: np.ndarray = self.classes_[outputs_of(self.model_.network, features, self.model_.network.classify)]
        return found

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class (n_samples, n_classes)."""
        features = self._encoded(X)
        P = np.stack(list(self.model_.probabilities(features).values()), axis=1).astype(np.float64)
        return np.asarray(P / P.sum(axis=1, keepdims=True))

    def _know(self, columns: Any) -> None:
        target = self.model_.preprocessing.target
        rows, _ = target.known_in(columns)
        _, first = np.unique(target.labels(rows), return_index=True)
        self.classes_ = np.array(rows.iloc[first, 0].tolist())

    def _task(self, columns: Any) -> str:
        if columns.shape[1] != 1:
            raise ValueError(f"y has {columns.shape[1]} columns; classes need one; give one column: y.iloc[:, 0]")
        column = columns.iloc[:, 0].dropna()
        if cells.kind_of(column) == cells.NUMBER and column.dtype.kind in "fiu":
            check_classification_targets(column.to_numpy())
        classes = cells.different(column)[1]
        if len(classes) == 1:
            raise ValueError(
                f"y has 1 class only, {shown(classes.iloc[0])}, in {len(column)} rows; a classifier needs two or more; "
                "give rows of other classes"
            )
        return "binary" if len(classes) == 2 else "multiclass"


class TableRegressor(RegressorMixin, BaseTable):  # type: ignore[misc]
    """Predicts numbers from raw rows, one or several a row; see `TableClassifier` for parameters and attributes."""

    def predict(self, X: Any) -> np.ndarray:
        """Return the values (n_samples,) in the units of y, or (n_samples, n_targets) of several targets."""
        features = self._encoded(X)
        values = np.stack(list(self.model_.values(features).values()), axis=1)
        return values[:, 0] if values.shape[1] == 1 else values

    def _task(self, columns: Any) -> str:
        return "regression"

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def _names(given: Any) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)
