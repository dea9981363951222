"""Dates and times as features: the format of their texts, and year, month, day, weekday, hour and elapsed time.

A moment is a whole number of microseconds since 1970, without a time zone, as NumPy's datetime64[us] holds it. A time
of day is a moment of the first day.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xpnet.tables import cells
from xpnet.tables.date_formats import ISO, LONGEST, QUARTER, formats_of
from xpnet.tables.decisions import Decision
from xpnet.tables.notes import gaps_noted, odd_noted
from xpnet.tables.options import MEAN

TYPED, SECONDS = "", "seconds"  # formats of what is no text: dates by their type, and seconds since 1970
WHOLE = ("%Y%m%d", "%Y")  # of whole numbers, which a column with gaps may write with a point, as 20240131.0
DAY = 86_400_000_000  # microseconds
_SLIPS = 0.05  # the share of texts that may be no dates
PARTS = ("year", "month", "day", "weekday", "hour", "elapsed")


@dataclass(frozen=True)
class Date:
    """A column of dates or times: its parts that vary, each (value - mean) / deviation, and perhaps an indicator.

    format: of its texts, TYPED where they have a type.  parts: some of PARTS; elapsed is in days since `origin`.
    fill: the moment that stands for a missing one.  has_indicator: whether a last feature is 1 where it was missing.
    """

    name: str
    format: str
    parts: tuple[str, ...] = ()
    means: tuple[float, ...] = ()
    deviations: tuple[float, ...] = ()
    fill: int = 0
    origin: int = 0
    has_indicator: bool = False

    @property
    def n_features(self) -> int:
        """One for each part that varies, and the indicator."""
        return len(self.parts) + self.has_indicator

    @property
    def feature_names(self) -> list[str]:
        """What its features are called."""
        return [f"{self.name} {part}" for part in (*self.parts, *["missing"] * self.has_indicator)]

    @property
    def is_constant(self) -> bool:
        """Whether the training rows held one moment only."""
        return not self.parts

    def fitted(self, column: Any, impute: str) -> Date:
        """Return the same with the statistics of the training rows.  impute: MEDIAN or MEAN."""
        return self.of_moments(moments(column, self.format)[0], impute)

    def of_moments(self, when: np.ndarray, impute: str) -> Date:
        """Return the same with the statistics of these moments (n,), of which NaT is missing."""
        from xpnet.data.dataset import mean_and_deviation  # on use: predicting from a table needs no Dataset

        missing = np.isnat(when)
        present = np.sort(when[~missing].astype(np.int64))
        if len(present) == 0:
            return self
        made = replace(self, fill=int(present[(len(present) - 1) // 2]), origin=int(present[0]))
        values = made._values(when, PARTS)
        means, deviations = mean_and_deviation(values)
        varying = np.flatnonzero(deviations > 0)
        if [PARTS[i] for i in varying] == ["hour", "elapsed"]:  # of one day: the same twice
            varying = varying[:1]
        if PARTS.index("day") not in varying and made.origin != present[-1]:
            varying = varying[varying != PARTS.index("weekday")]  # of months: that of their first day says nothing
        return replace(
            made,
            parts=tuple(PARTS[i] for i in varying),
            means=tuple(means[varying].tolist()),
            deviations=tuple(deviations[varying].tolist()),
            has_indicator=impute != MEAN and bool(missing.any()),
        )

    def encode_into(self, column: Any, out: np.ndarray) -> list[Decision]:
        """Write the features into out (n, n_features); returns what had to be done without having been learnt."""
        when, odd = moments(column, self.format)
        missing = np.isnat(when)
        values = self._values(when, self.parts)
        out[:, : len(self.parts)] = (values - np.array(self.means)) / np.array(self.deviations)
        if self.has_indicator:
            out[:, -1] = missing
        noted = odd_noted(column, odd, "dates")
        return noted if self.has_indicator else [*noted, *gaps_noted(column, missing & ~odd, "the middle date")]

    def _values(self, when: np.ndarray, parts: tuple[str, ...]) -> np.ndarray:
        """Return the parts (n, n_parts) of moments, the missing ones filled in."""
        filled = np.where(np.isnat(when), np.datetime64(self.fill, "us"), when)
        days, months = filled.astype("M8[D]"), filled.astype("M8[M]")
        n_days, n_months = days.astype(np.int64), months.astype(np.int64)
        found = {
            "year": n_months // 12 + 1970,
            "month": n_months % 12 + 1,
            "day": (days - months.astype("M8[D]")).astype(np.int64) + 1,
            "weekday": (n_days + 3) % 7,  # 0 is Monday
            "hour": (filled.astype(np.int64) % DAY) / (DAY / 24),
            "elapsed": (filled.astype(np.int64) - self.origin) / DAY,
        }
        return (
            np.stack([np.asarray(found[part], np.float64) for part in parts], axis=1)
            if parts
            else np.empty((len(when), 0))
        )


def moments(column: Any, format: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the moments (n,), NaT for those that are missing, and which cells (n,) hold something else.

    format: of texts, and of whole numbers such as 20240131; for texts without one it is found out.
    """
    import pandas

    kind = cells.kind_of(column)
    missing = column.isna().to_numpy()
    if kind == cells.DATE:
        when = _typed(column)
    elif kind == cells.TEXT or (kind == cells.NUMBER and format not in (TYPED, SECONDS)):
        codes, texts = cells.different(column)
        missing = codes < 0
        found = None if format else read_dates(texts, cells.counts_of(codes, len(texts)), is_forced=True)
        read = parsed(texts, format or ISO) if found is None else found.when
        when = np.append(read, np.datetime64("NaT", "us"))[codes]
    elif kind == cells.NUMBER:
        seconds, _ = cells.numbers(column)
        unit = 1e6 if np.nanmax(np.abs(seconds), initial=0.0) < 1e11 else 1e3  # milliseconds
        good = np.isfinite(seconds) & (np.abs(seconds) < 1e14)
        when = np.where(
            good, np.where(good, seconds * unit, 0).astype(np.int64).astype("M8[us]"), np.datetime64("NaT", "us")
        )
    else:
        when = np.full(len(column), np.datetime64("NaT", "us"))
    return when, np.isnat(when) & ~missing & ~pandas.isna(column).to_numpy()


def _typed(column: Any) -> np.ndarray:
    """Return the moments of a column whose cells are dates, times of day or periods."""
    import pandas

    if isinstance(column.dtype, pandas.PeriodDtype):
        column = column.dt.to_timestamp()
    elif column.dtype.kind == "O" and not pandas.api.types.is_datetime64_any_dtype(column.dtype):
        column = _from_objects(column.astype(object))
    if getattr(column.dt, "tz", None) is not None:
        column = column.dt.tz_convert(None)  # in UTC, as texts with zones are
    return np.asarray(column.to_numpy("M8[us]", na_value=np.datetime64("NaT", "us")))


def _from_objects(column: Any) -> Any:
    import pandas

    inferred = pandas.api.types.infer_dtype(column, skipna=True)
    if inferred == "time":
        return pandas.to_datetime("1970-01-01T" + column.astype("string"), format=ISO, errors="coerce")
    if inferred == "period":
        return pandas.Series(pandas.PeriodIndex(column)).dt.to_timestamp()
    return pandas.to_datetime(column, errors="coerce", utc=True)


def parsed(texts: Any, format: str) -> np.ndarray:
    """Return the moment (n,) that each text says in a format, NaT for one that says none."""
    import pandas

    short = texts.where(texts.str.len() <= LONGEST)
    if format in WHOLE:
        short = short.str.replace(r"\.0+$", "", regex=True)
    if format == QUARTER:
        found = short.str.extract(r"^(\d{4})[- /]?[Qq]([1-4])$")
        short, format = found[0] + "-" + ((found[1].astype("Int64") - 1) * 3 + 1).astype("string"), "%Y-%m"
    is_aware = format == ISO or "%z" in format
    found = pandas.to_datetime(short, format=format, errors="coerce", utc=is_aware)
    if ":" in format and "%d" not in format:  # a time of day
        found = found - pandas.Timestamp("1900-01-01") + pandas.Timestamp(0)
    return _typed(found)


@dataclass(frozen=True)
class Dated:
    """Texts read as dates or times: the format, another that fits as well or "", and the moments (n,)."""

    format: str
    other: str
    when: np.ndarray


def read_dates(texts: Any, counts: np.ndarray, is_forced: bool = False) -> Dated | None:
    """Return texts read as dates or times, None if they are none.

    counts: how often each occurs.  is_forced: whether they are dates however few of them can be read.
    """
    candidates = [format for first in texts.iloc[:3] for format in formats_of(first)]
    head, best = texts.iloc[: cells.SAMPLE], list[str]()
    most = 0
    for format in dict.fromkeys(candidates):
        n = int((~np.isnat(parsed(head, format))).sum())
        if n > most:
            most, best = n, [format]
        elif n == most > 0:
            best.append(format)
    if not best or (most < len(head) / 2 and not is_forced):
        return None
    if len(best) > 1 and len(texts) > len(head):  # the head does not tell them apart
        n_read = [int(counts[~np.isnat(parsed(texts, format))].sum()) for format in best]
        best = [format for format, n in zip(best, n_read, strict=True) if n == max(n_read)]
    read = parsed(texts, best[0])
    if counts[~np.isnat(read)].sum() < (1 - _SLIPS) * counts.sum() and not is_forced:
        return None
    others = [format for format in best[1:] if not format.startswith("%y")]  # a year of two digits is rarely first
    same = [format for format in others if not np.array_equal(parsed(texts, format), read, equal_nan=True)]
    return Dated(best[0], same[0] if same else "", read)
