"""The columns of a table as features: numbers standardised, categories one-hot, and what is refused, by name.

A column is a pandas Series; errors name it and the label of a row in its index. Numbers, whole numbers and booleans are
numeric; text is categories.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpnet.checks import one_line, shown

MAX_CATEGORIES = 1000
DATE = re.compile(r"\d{4}[-/]\d{1,2}[-/]\d{1,2}([T ].*)?|\d{1,2}[-/.]\d{1,2}[-/.](\d{2}|\d{4})( .*)?")
# Possessive, so that a long text takes no longer than its length.
NUMBER = re.compile(r"\s*+[-+]?\s*+[$€£]?\s*+[-+]?(\d[\d .,'_]*+|[.,]\d++)(e[-+]?\d++)?\s*+[%$€£]?\s*+", re.IGNORECASE)
PLAIN = re.compile(r"[-+]?\d*+\.?\d*+(e[-+]?\d++)?", re.IGNORECASE)
LARGEST = int(np.finfo(np.float64).max)
NUMBER_TYPES = (bool, np.bool_, int, float, np.integer, np.floating)


@dataclass(frozen=True)
class Numeric:
    """A column of numbers: (value - mean) / deviation, 0 where it was constant; a missing value becomes 0, the mean."""

    name: str
    mean: float
    deviation: float

    n_features = 1

    @property
    def is_constant(self) -> bool:
        """Whether the training rows held one value only."""
        return self.deviation == 0.0

    def encode_into(self, column: Any, out: np.ndarray) -> None:
        """Write the feature into out (n, 1); a missing value becomes 0."""
        values = numbers(column)
        out[...] = 0.0
        if not self.is_constant:
            present = ~np.isnan(values)
            with np.errstate(over="ignore"):
                out[present, 0] = (values[present] - self.mean) / self.deviation
            _refuse_infinite(column, out[:, 0])


@dataclass(frozen=True)
class Category:
    """A column of text: one feature a category, 1 where the value is that category.

    frequencies: the share of each category among the values present, the features of a missing value.
    """

    name: str
    categories: tuple[str, ...]
    frequencies: tuple[float, ...]

    @property
    def n_features(self) -> int:
        """One for each category."""
        return len(self.categories)

    @property
    def is_constant(self) -> bool:
        """Whether the training rows held one category only."""
        return len(self.categories) == 1

    def encode_into(self, column: Any, out: np.ndarray) -> None:
        """Write the features into out (n, n_features); raises ValueError for an unknown category."""
        places = place_of(column, texts(column), self.categories, "category")
        out[...] = 0.0
        present = places >= 0
        out[np.flatnonzero(present), places[present]] = 1.0
        out[~present] = self.frequencies


def fit_column(column: Any, impute: bool, dropped: Sequence[str] = ()) -> Numeric | Category:
    """Return the encoding of a column of the training rows; raises ValueError for one that cannot be encoded.

    impute: replace a missing value by the mean of each feature; otherwise refuse it.
    dropped: columns left out so far, for the advice in messages.
    """
    cure = f"leave it out with --drop {shlex.quote(','.join([*dropped, column.name]))}"
    is_text = holds_text(column, cure)
    if not impute:
        refuse_missing(column, f"fill them in by their mean with --impute mean, remove these rows, or {cure}")
    if is_text:
        counts = text_counts(column, cure)
        total = sum(counts.values())
        return Category(column.name, tuple(counts), tuple(count / total for count in counts.values()))
    values = numbers(column)
    mean, deviation = fit_numbers(column, values[~np.isnan(values)], len(values), cure)
    return Numeric(column.name, mean, deviation)


def fit_numbers(column: Any, present: np.ndarray, n_rows: int, cure: str) -> tuple[float, float]:
    """Return mean and deviation of a column of n_rows, in which missing values count as the mean.

    cure: here and below, the advice in a message.
    """
    from xpnet.data.dataset import mean_and_deviation  # on use: predicting from a table needs no Dataset

    with np.errstate(over="ignore"):
        width = present.max() - present.min()
    means, deviations = mean_and_deviation(present[:, None])
    mean, deviation = float(means[0]), float(deviations[0]) * (len(present) / n_rows) ** 0.5
    if not np.isfinite(width):
        raise ValueError(
            f"column {shown(column.name)} goes from {present.min():g} to {present.max():g}, too far for a mean "
            f"and a deviation; scale it, or {cure}"
        )
    return mean, deviation


def holds_text(column: Any, cure: str) -> bool:
    """Whether a column is text (or of pandas' categories) rather than numbers; raises ValueError for anything else."""
    import pandas

    dtype, types = column.dtype, pandas.api.types
    present = column.dropna()
    if isinstance(dtype, pandas.CategoricalDtype) and len(present):
        return True
    if len(present) == 0:
        raise ValueError(f"column {shown(column.name)} has no value in any row; {cure}")
    if types.is_bool_dtype(dtype) or (types.is_numeric_dtype(dtype) and not types.is_complex_dtype(dtype)):
        return False
    if isinstance(dtype, pandas.StringDtype):
        return True
    found = {type(value) for value in present} if dtype.kind == "O" else {dtype.type}
    if all(issubclass(kind, str) for kind in found):
        return True
    names = sorted({getattr(kind, "__name__", str(kind)) for kind in found})
    if any(part in name.lower() for name in names for part in ("date", "time", "period", "interval")):
        raise ValueError(_date_message(column.name, present.iloc[0], present.index[0], cure))
    if all(issubclass(kind, NUMBER_TYPES) or kind.__name__ == "Decimal" for kind in found):
        return False
    raise ValueError(
        f"column {shown(column.name)} holds values of the type {' and '.join(names[:3])}; it must hold numbers "
        f"or text; {cure}"
    )


def numbers(column: Any) -> np.ndarray:
    """Return the values (n,) in float64, NaN where one is missing; raises ValueError for text and infinity."""
    import pandas

    missing = column.isna().to_numpy()
    if not missing.all() and holds_text(column, "give numbers"):
        odd = ((value, row) for row, value in column.items() if not (pandas.isna(value) or _is_plain(str(value))))
        value, row = next(odd, (column[~missing].iloc[0], column.index[int(np.argmin(missing))]))
        raise ValueError(
            f"column {shown(column.name)} holds the text {shown(value)} in row {row}; it must hold numbers, "
            "as in the rows that the model was trained on"
        )
    values = np.full(len(column), np.nan)
    try:
        values[~missing] = column[~missing].astype(np.float64).to_numpy()
    except OverflowError:  # whole numbers beyond all floats
        values[~missing] = [math.inf if abs(value) > LARGEST else float(value) for value in column[~missing]]
    _refuse_infinite(column, values)
    return values


def texts(column: Any) -> np.ndarray:
    """Return the values (n,) as text, None where one is missing."""
    values = np.full(len(column), None, dtype=object)
    present = column.notna().to_numpy()
    values[present] = [str(value) for value in column[present].to_numpy(object)]
    return values


def text_counts(column: Any, cure: str) -> dict[str, int]:
    """Return how often each text occurs, sorted; raises ValueError for texts that are no categories."""
    name, present = column.name, column.dropna().astype(object).map(str)
    counts = {text: int(count) for text, count in sorted(present.value_counts().items())}
    first = next(iter(present.items()))
    if all(DATE.fullmatch(text) for text in counts):
        raise ValueError(_date_message(name, first[1], first[0], cure))
    odd = [text for text in counts if not NUMBER.fullmatch(text)]
    if len(odd) < len(counts) / 2 and column.dtype != "category":
        example = odd[0] if odd else next((text for text in counts if not _is_plain(text)), first[1])
        row = next(row for row, text in present.items() if text == example)
        raise ValueError(
            f"column {shown(name)} holds numbers as text: {shown(example)} in row {row}; write numbers plainly, "
            "such as 1234.5, without thousands separators or units, and leave what is missing empty; or "
            f"{cure}"
        )
    if len(counts) > MAX_CATEGORIES or len(counts) == len(present) > 1:
        raise ValueError(
            f"column {shown(name)} has {len(counts)} different texts in {len(present)} rows, such as "
            f"{shown(first[1])}, so it names the rows or is free text; it may have at most "
            f"{MAX_CATEGORIES} categories that repeat; {cure}"
        )
    return counts


def place_of(column: Any, values: Any, known: tuple[Any, ...], called: str) -> np.ndarray:
    """Return the index of each value among those known, -1 for None; raises ValueError for any other."""
    places = {value: place for place, value in enumerate(known)}
    found = np.array([-1 if value is None else places.get(value, -2) for value in values], np.intp)
    if (found == -2).any():
        where = int(np.argmax(found == -2))
        listed = ", ".join(shown(value) for value in known[:10]) + (", ..." if len(known) > 10 else "")
        raise ValueError(
            f"column {shown(column.name)} has the {called} {shown(values[where])} in row "
            f"{column.index[where]}, which no training row has; known are {listed}; correct "
            "it, or train on rows that have it, shuffled where the last ones are held out"
        )
    return found


def refuse_missing(column: Any, cure: str) -> None:
    """Refuse a column with missing values."""
    missing = column.isna().to_numpy()
    if missing.any():
        n, first = int(missing.sum()), column.index[int(np.argmax(missing))]
        raise ValueError(
            f"column {shown(column.name)} has {n} missing value{'s' * (n > 1)} (empty, or NA, NaN, None, "
            f"null), the first in row {first}; {cure}"
        )


def _refuse_infinite(column: Any, values: np.ndarray) -> None:
    infinite = np.isinf(values)
    if infinite.any():
        where = int(np.argmax(infinite))
        value = column.iloc[where]
        text = shown(value) if isinstance(value, int) else one_line(value)
        raise ValueError(
            f"column {shown(column.name)} is {text} in row {column.index[where]}, infinite or "
            "too large; it must be a finite number; correct it, or remove that row"
        )


def _date_message(name: str, value: Any, row: Any, cure: str) -> str:
    return (
        f"column {shown(name)} holds dates or times, such as {shown(str(value))} in row {row}; turn it into numbers, "
        f"such as year and month, or {cure}"
    )


def _is_plain(text: str) -> bool:
    return PLAIN.fullmatch(text) is not None
