"""Columns that are plainly numbers, many at a time: wide tables have thousands of them.

A column is plain if it is of floats, all finite, of which some are no whole numbers, and not constant. Nothing about it
need be decided, and its statistics and features are those of `Numeric`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from xpnet.tables.columns import Numeric

BLOCK = 2**22  # numbers that are taken at a time


def plain_numbers(frame: Any, names: Sequence[str]) -> dict[str, Numeric]:
    """Return the encodings of those columns of the training rows that are plain, by name."""
    from xpnet.data.dataset import mean_and_deviation  # on use: predicting from a table needs no Dataset

    found = dict[str, Numeric]()
    for part, values in _blocks(frame, names):
        with np.errstate(invalid="ignore", over="ignore"):
            width = values.max(axis=0) - values.min(axis=0)
            is_plain = np.isfinite(width) & (width > 0) & (values != np.floor(values)).any(axis=0)
        part, values = [name for name, is_one in zip(part, is_plain, strict=True) if is_one], values[:, is_plain]
        if not part:
            continue
        (means, deviations), medians = mean_and_deviation(values), np.median(values, axis=0)
        for i, name in enumerate(part):
            found[name] = Numeric(name, float(means[i]), float(deviations[i]), float(medians[i]))
    return found


def encode_plain(frame: Any, columns: Sequence[Numeric], places: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Write the features of columns that hold finite floats into out (n, n_features); returns which of them it wrote.

    columns: without indicators.  places: of their features in out.
    """
    by_name = {column.name: i for i, column in enumerate(columns)}
    is_written = np.zeros(len(columns), bool)
    for part, values in _blocks(frame, list(by_name)):
        rows = np.array([by_name[name] for name in part])
        means = np.array([columns[i].mean for i in rows])
        deviations = np.array([columns[i].deviation or np.inf for i in rows])
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = ((values - means) / deviations).astype(out.dtype)
        is_good = np.isfinite(scaled).all(axis=0)
        out[:, places[rows[is_good]]] = scaled[:, is_good]
        is_written[rows[is_good]] = True
    return is_written


def _blocks(frame: Any, names: Sequence[str]) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yield the columns of floats, some at a time: their names, and their values (n, n_columns) in float64."""
    by_name = dict(zip(map(str, frame.columns), range(frame.shape[1]), strict=True))
    dtypes = frame.dtypes.to_numpy()
    wanted = [by_name[name] for name in names]
    floats = [place for place in wanted if isinstance(dtypes[place], np.dtype) and dtypes[place].kind == "f"]
    n_columns = max(1, BLOCK // max(1, len(frame)))
    called = list(map(str, frame.columns))
    for start in range(0, len(floats), n_columns):
        part = floats[start : start + n_columns]
        yield [called[place] for place in part], frame.iloc[:, part].to_numpy(np.float64)
