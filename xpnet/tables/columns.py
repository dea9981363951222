"""The columns of a table as features: numbers standardised, categories one-hot; dates are in `xpnet.tables.dates`.

A column is a pandas Series. Each encoding is fitted on the training rows and writes its features of any rows; what it
meets there and has not learnt it notes, and takes as missing or as another category.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xpnet.checks import shown
from xpnet.tables import cells
from xpnet.tables.cells import PLAIN, NumberStyle
from xpnet.tables.decisions import Decision
from xpnet.tables.notes import cells_noted, gaps_noted, infinite_noted, odd_noted
from xpnet.tables.options import MEAN

UNKNOWN = "categories that are rare in training or unknown"


@dataclass(frozen=True)
class Numeric:
    """A column of numbers: (value - mean) / deviation, 0 where it was constant, and perhaps an indicator.

    fill: what stands for a missing value.  has_indicator: whether a second feature is 1 where the value was missing.
    style: how texts say the numbers.
    """

    name: str
    mean: float = 0.0
    deviation: float = 0.0
    fill: float = 0.0
    has_indicator: bool = False
    style: NumberStyle = PLAIN

    @property
    def n_features(self) -> int:
        """One, and one for the indicator."""
        return 1 + self.has_indicator

    @property
    def feature_names(self) -> list[str]:
        """What its features are called."""
        return [self.name, *([f"{self.name} missing"] if self.has_indicator else [])]

    @property
    def is_constant(self) -> bool:
        """Whether the training rows held one value only."""
        return self.deviation == 0.0

    def fitted(self, column: Any, impute: str) -> Numeric:
        """Return the same with the statistics of the training rows.  impute: MEDIAN or MEAN."""
        return self.of_values(cells.numbers(column, self.style)[0], impute)

    def of_values(self, values: np.ndarray, impute: str) -> Numeric:
        """Return the same with the statistics of these values (n,), of which NaN and infinity are missing."""
        is_present = np.isfinite(values)
        present, n_missing = values[is_present], len(values) - int(is_present.sum())
        if len(present) == 0:
            return replace(self, has_indicator=impute != MEAN)
        if impute == MEAN:
            mean, deviation = statistics(present)
            # The mean in the gaps adds nothing to the squares.
            return replace(self, mean=mean, deviation=deviation * (len(present) / len(values)) ** 0.5, fill=mean)
        fill = float(np.median(present))
        mean, deviation = statistics(np.where(is_present, values, fill) if n_missing else present)
        return replace(self, mean=mean, deviation=deviation, fill=fill, has_indicator=n_missing > 0)

    def encode_into(self, column: Any, out: np.ndarray) -> list[Decision]:
        """Write the features into out (n, n_features); returns what had to be done without having been learnt."""
        values, odd = cells.numbers(column, self.style)
        missing = np.isnan(values)
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = (values - self.mean) / (self.deviation or np.inf)
            infinite = ~np.isfinite(scaled.astype(out.dtype)) & ~missing
        filled = missing | infinite
        scaled[filled] = (self.fill - self.mean) / (self.deviation or np.inf)
        out[:, 0] = scaled
        noted = [*odd_noted(column, odd, "numbers"), *infinite_noted(column, infinite)]
        if self.has_indicator:
            out[:, 1] = filled
            return noted
        return [*noted, *gaps_noted(column, missing & ~odd, f"{self.fill:.6g}, the median")]


@dataclass(frozen=True)
class Category:
    """A column of categories: one feature each, 1 where the value is that category, then "other" and "missing".

    frequencies: the share of each category among the training rows' values, the features of a value for which there is
    no feature.  has_other, has_missing: whether training rows were of other categories, or missing.
    is_text: whether the categories are texts as they stand in a file, and not numbers.
    """

    name: str
    categories: tuple[str, ...] = ()
    frequencies: tuple[float, ...] = ()
    has_other: bool = False
    has_missing: bool = False
    is_text: bool = True

    @property
    def n_features(self) -> int:
        """One for each category, for the others, and for a missing value, as far as training rows had them."""
        return len(self.categories) + self.has_other + self.has_missing

    @property
    def feature_names(self) -> list[str]:
        """What its features are called."""
        others = ["other"] * self.has_other + ["missing"] * self.has_missing
        return [f"{self.name} {each}" for each in (*self.categories, *others)]

    @property
    def is_constant(self) -> bool:
        """Whether the training rows held one category only."""
        return self.n_features == 1

    def fitted(self, column: Any, impute: str) -> Category:
        """Return the same with the frequencies of the training rows.  impute: MEDIAN or MEAN."""
        places = self._places(column)
        counts = np.bincount(places[places >= 0], minlength=len(self.categories))
        n_present = max(1, int((places != -1).sum()))
        return replace(
            self,
            frequencies=tuple((counts / n_present).tolist()),
            has_missing=impute != MEAN and bool((places == -1).any()),
        )

    def encode_into(self, column: Any, out: np.ndarray) -> list[Decision]:
        """Write the features into out (n, n_features); returns what had to be done without having been learnt."""
        places = self._places(column)
        n, unknown, missing = len(self.categories), places == -2, places == -1
        out[...] = 0.0
        known = np.flatnonzero(places >= 0)
        out[known, places[known]] = 1.0
        if self.has_other:
            out[unknown, n] = 1.0
        else:
            out[unknown, :n] = self.frequencies
        if self.has_missing:
            out[missing, -1] = 1.0
        else:
            out[missing, :n] = self.frequencies
        noted = [] if self.has_missing else gaps_noted(column, missing, "the mean")
        done = "taken as other" if self.has_other else "taken as the mean of all categories"
        return [*cells_noted(column, unknown, UNKNOWN, done), *noted]

    def _places(self, column: Any) -> np.ndarray:
        """Return the place (n,) of each value among the categories, -1 for a missing one and -2 for any other."""
        import pandas

        codes, texts = cells.different(column)
        known = pandas.Index(self.categories, dtype=object)
        found = known.get_indexer(texts.to_numpy(object))
        if (found < 0).any():  # 1.0 is 1: a column with gaps may write whole numbers with a point
            whole = pandas.Index(cells.without_point(pandas.Series(self.categories, dtype="string")), dtype=object)
            if whole.is_unique:
                other = whole.get_indexer(cells.without_point(texts).to_numpy(object))
                found = np.where(found < 0, other, found)
        return np.append(np.where(found < 0, -2, found), -1)[codes]


def categories_of(encoding: Category, codes: np.ndarray, texts: Any, least: int, most: int) -> Category:
    """Return a column with the categories of training rows, sorted; the rare ones and those beyond `most` are other.

    codes, texts: as `cells.different` returns them.  least: rows that a category needs.  most: how many there may be.
    """
    counts = cells.counts_of(codes, len(texts))
    order = np.argsort(-counts, kind="stable")
    kept = order[counts[order] >= least][:most]
    names, shares = texts.iloc[kept].to_numpy(object), counts[kept] / max(1, counts.sum())
    by_name = sorted(range(len(kept)), key=names.__getitem__)
    return replace(
        encoding,
        categories=tuple(str(names[i]) for i in by_name),
        frequencies=tuple(float(shares[i]) for i in by_name),
        has_other=len(kept) < len(texts),
    )


def statistics(values: np.ndarray) -> tuple[float, float]:
    """Return mean and deviation of numbers (n,), NaN where they lie too far apart to be subtracted."""
    from xpnet.data.dataset import mean_and_deviation  # on use: predicting from a table needs no Dataset

    with np.errstate(over="ignore"):
        if not np.isfinite(values.max() - values.min()):
            return np.nan, np.nan
    means, deviations = mean_and_deviation(values[:, None])
    return float(means[0]), float(deviations[0])


def listed(values: Any, at_most: int = 10) -> str:
    """Return values as a list in a message."""
    return ", ".join(shown(value) for value in values[:at_most]) + (", ..." if len(values) > at_most else "")
