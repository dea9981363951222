"""Raw rows for the estimators of tables: frames by the names of their columns, arrays by their places."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.utils import check_array, check_consistent_length, column_or_1d
from sklearn.utils.validation import validate_data

from xpnet.checks import refuse_masked
from xpnet.tables.frames import as_pandas, is_polars, with_stripped_names
from xpnet.tables.options import check_columns


def rows_to_fit(estimator: Any, X: Any) -> Any:
    """Return X as a pandas frame with its rows numbered from 1, as those of a file, whatever its index.

    Writes n_features_in_, and feature_names_in_ where the columns have names.
    """
    frame = _framed(X)
    if len(frame) == 1:
        raise ValueError("X has 1 sample, from which nothing can be learnt; it must have more; give further rows")
    check_columns(with_stripped_names(frame), ())
    validate_data(estimator, frame, skip_check_array=True)
    return _named(estimator, frame).set_axis(range(1, len(frame) + 1))


def rows_to_predict(estimator: Any, X: Any) -> Any:
    """Return X as a pandas frame with the names of the columns that the estimator was fitted on.

    The columns of a frame are found by their names, whatever their order, where the estimator knows names.
    """
    frame = _framed(X)
    known = hasattr(estimator, "feature_names_in_")
    if known and _has_names(frame):
        return with_stripped_names(frame)
    if frame.shape[1] != estimator.n_features_in_:
        raise ValueError(
            f"X has {frame.shape[1]} features, but {type(estimator).__name__} is expecting {estimator.n_features_in_} "
            "features as input; give those that it was fitted on, or fit it again"
        )
    if known != _has_names(frame):
        has, had = ("does not have", "was") if known else ("has", "was not")
        warnings.warn(
            f"X {has} valid feature names, but {type(estimator).__name__} {had} fitted with feature names; its columns "
            "are taken by their places",
            stacklevel=3,
        )
    return _named(estimator, frame)


def target_of(X: Any, frame: Any, y: Any, estimator: Any) -> Any:
    """Return the targets as columns of a pandas frame with the index of the rows, under names that no column has.

    X: as it was given.  frame: its rows.
    """
    import pandas

    if y is None:
        raise ValueError(f"requires y to be passed, but the target y is None: {type(estimator).__name__}.fit(X, y)")
    refuse_masked(y=y)
    if is_polars(y):
        y = y.to_pandas() if hasattr(y, "to_pandas") else as_pandas(y)
    if not isinstance(y, (pandas.Series, pandas.DataFrame)):
        y = np.asarray(y)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        check_array(y, dtype=None, ensure_2d=False, ensure_min_samples=0, ensure_all_finite=False, input_name="y")
        y = pandas.DataFrame(y) if y.ndim == 2 else pandas.Series(y)
    check_consistent_length(X, y)
    columns = y if isinstance(y, pandas.DataFrame) else y.to_frame()
    columns = columns.set_axis(frame.index)
    return columns.set_axis(_free_names(columns, frame), axis=1).infer_objects()


def free_name(name: str, frame: Any) -> str:
    """Return a name that no column of a frame has: this one, or with _ behind it."""
    while name in frame.columns:
        name += "_"
    return name


def _free_names(columns: Any, frame: Any) -> list[str]:
    names, n = list(columns.columns), columns.shape[1]
    if not all(isinstance(name, str) and name.strip() for name in names):
        names = ["y"] if n == 1 else [f"y{i}" for i in range(n)]
    return [free_name(name.strip(), frame) for name in names]


def _framed(X: Any) -> Any:
    """Return X as a pandas frame, an array with its columns numbered; raises for what is neither."""
    import pandas

    refuse_masked(X=X)
    if isinstance(X, pandas.DataFrame) or is_polars(X):
        frame = as_pandas(X)
        if len(frame) == 0:
            raise ValueError(
                f"X has 0 samples (shape={frame.shape}) while a minimum of 1 is required; give rows, such as those "
                "of another frame"
            )
        return frame
    X = check_array(X, dtype=None, ensure_all_finite=False, input_name="X")
    return pandas.DataFrame(X).infer_objects()


def _has_names(frame: Any) -> bool:
    return all(isinstance(name, str) for name in frame.columns)


def _named(estimator: Any, frame: Any) -> Any:
    """Return a frame whose columns have the names that the estimator knows, in its order, or x0, x1 and so on."""
    names = getattr(estimator, "feature_names_in_", [f"x{i}" for i in range(frame.shape[1])])
    return with_stripped_names(frame.set_axis(list(names), axis=1))
