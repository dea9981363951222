"""What each column of a table is taken for: numbers, categories, dates, or nothing to learn from; and why.

The rules stand here in the order in which they are tried. What was not asked for is returned as a `Decision`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xpnet.checks import shown
from xpnet.tables import cells, dates
from xpnet.tables.cells import NumberStyle
from xpnet.tables.columns import Category, Numeric, categories_of
from xpnet.tables.date_formats import ISO
from xpnet.tables.dates import Date
from xpnet.tables.decisions import Decision
from xpnet.tables.names import DATED, TIMES, is_nameless, names_rows, words_of
from xpnet.tables.notes import example
from xpnet.tables.options import MEAN, ColumnOptions

MAX_CATEGORIES = 100  # of a feature; with --categorical as many as of a target
MAX_CLASSES = 1000
# Rows that a category needs: one in 50, but 2 to 5, or 1 in a table of fewer than 20 rows.
FEWEST, LEAST, ROWS_A_CATEGORY, TINY = 2, 5, 50, 20
COVERED = 0.2  # the share of rows that categories must have between them, else they are free text
ROWS_TO_JUDGE = 5  # fewer do not show whether values are all different or rise by chance
LEFT_OUT = "left out"
Encoding = Numeric | Category | Date


@dataclass(frozen=True)
class Understood:
    """What a column is taken for.

    encoding: None where it is left out.  decisions: what was not asked for.
    is_identifier: whether it was left out as a running number, which is better than no feature at all.
    """

    encoding: Encoding | None
    decisions: tuple[Decision, ...] = ()
    is_identifier: bool = False


def understand(column: Any, place: int, options: ColumnOptions) -> Understood:
    """Return what a column of the training rows is taken for.  place: from 0, among the columns of the table."""
    name = str(column.name)
    kept = name in (*options.keep, *options.categorical, *options.numeric, *options.date)
    if is_nameless(name) and not kept:
        return left_out(name, "no name", "--keep COLUMN")
    if name in options.date:
        return _dates(column, *_asked_format(column), options, is_asked=True)
    kind = cells.kind_of(column)
    if kind == cells.OTHER:
        return left_out(name, f"values that are neither numbers nor text, such as {_first(column)}", "")
    if name in options.categorical:
        return _categories(column, *cells.different(column), options, is_text=kind == cells.TEXT)
    if kind == cells.DATE:
        return _dates(column, dates.TYPED, "", options)
    if kind == cells.NUMBER:
        return _numbers(column, place, options, kept)
    return _texts(column, place, options, kept)


def left_out(
    name: str, found: str, option: str = "--keep COLUMN", detail: str = "", identifies: bool = False
) -> Understood:
    """Return that a column is left out."""
    return Understood(None, (Decision(name, found, LEFT_OUT, option, detail=detail),), identifies)


def _numbers(column: Any, place: int, options: ColumnOptions, kept: bool) -> Understood:
    """Return what a column of numbers is taken for."""
    name = str(column.name)
    values, _ = cells.numbers(column)
    present = values[np.isfinite(values)]
    said = list[Decision]()
    if not kept and len(present) and _is_whole(present) and column.dtype.kind != "b":
        if (found := _whole_dates(column, values, options)) is not None:
            return found
        if (found := _running(name, column, values, place)) is not None:
            return found
        if _is_running(column, values):
            done = "taken as numbers"
            said.append(Decision(name, "whole numbers that rise from row to row", done, "--drop COLUMN", False))
    return _numeric(column, values, None, Numeric(name), options, said)


def _numeric(
    column: Any,
    values: np.ndarray,
    odd: np.ndarray | None,
    encoding: Numeric,
    options: ColumnOptions,
    said: list[Decision],
) -> Understood:
    """Return numbers with what is done with their gaps, unless they are constant or cannot be scaled."""
    name = str(column.name)
    infinite = np.isinf(values)
    missing = np.isnan(values)
    if (missing | infinite).all():
        return left_out(name, "no finite value in any row" if infinite.any() else "no value in any row", "")
    fitted = encoding.of_values(values, options.filler)
    if not np.isfinite([fitted.mean, fitted.deviation]).all():
        return left_out(name, "numbers too far apart for a mean and a deviation", "")
    if fitted.is_constant and not fitted.has_indicator:
        return left_out(name, "one value only", "")
    if odd is not None and odd.any():
        said.append(
            Decision(
                name,
                "cells that are no numbers",
                "taken as missing",
                "--categorical COLUMN",
                detail=example(column, odd),
            )
        )
    if infinite.any():
        said.append(Decision(name, "infinite numbers", "taken as missing", "", detail=example(column, infinite)))
    gaps = int(missing.sum()) - (0 if odd is None else int(odd.sum()))
    if gaps:
        done = f"filled in by the {options.filler}" + ", with a feature that says so" * fitted.has_indicator
        said.append(_gaps(name, "missing values", done, gaps, options))
    return Understood(fitted, tuple(said))


def _running(name: str, column: Any, values: np.ndarray, place: int) -> Understood | None:
    """Return that whole numbers are left out, if they only number the rows."""
    if len(values) < ROWS_TO_JUDGE or not np.isfinite(values).all() or not _is_whole(values):
        return None
    if names_rows(name) and len(np.unique(values)) == len(values):
        return left_out(name, "a number of its own for each row, named like an identifier", identifies=True)
    is_first = place == 0 and TIMES.isdisjoint(words_of(name))
    if is_first and _is_running(column, values):
        return left_out(name, "whole numbers that rise from row to row in the first column", identifies=True)
    return None


def _is_running(column: Any, values: np.ndarray) -> bool:
    """Whether whole numbers all differ and rise or fall in the order of the file, or are a run in another order."""
    if len(values) < ROWS_TO_JUDGE or not np.isfinite(values).all():
        return False
    index = np.asarray(column.index)
    ordered = values if index.dtype.kind not in "iu" else values[np.argsort(index, kind="stable")]
    with np.errstate(over="ignore"):
        steps, spread = np.diff(ordered), values.max() - values.min()
    if (steps > 0).all() or (steps < 0).all():
        return True
    return bool(spread < 2 * len(values) and len(np.unique(values)) == len(values))


def _whole_dates(column: Any, values: np.ndarray, options: ColumnOptions) -> Understood | None:
    """Return dates that are written as whole numbers, such as 20240131, in a column that is named like dates.

    values (n,): its numbers, NaN where it has none.
    """
    given = np.isfinite(values)
    present = values[given]
    if DATED.isdisjoint(words_of(str(column.name))) or not ((present >= 18000101) & (present < 22000101)).all():
        return None
    _, odd = dates.moments(column, "%Y%m%d")
    return None if odd[given].any() or not given.any() else _dates(column, "%Y%m%d", "", options)


def _texts(column: Any, place: int, options: ColumnOptions, kept: bool) -> Understood:
    """Return what a column of texts is taken for."""
    name = str(column.name)
    codes, texts = cells.different(column)
    if len(texts) == 0:
        return left_out(name, "no value in any row", "")
    is_category = str(column.dtype) == "category"
    is_asked = name in options.numeric
    counts = cells.counts_of(codes, len(texts))
    read = None if is_category and not is_asked else _read(texts, counts, is_asked)
    if read is not None:
        return _numbers_as_text(column, place, codes, texts, *read, options, is_asked or kept)
    found = None if is_category else dates.read_dates(texts, counts)
    if found is not None:
        when = np.append(found.when, np.datetime64("NaT", "us"))[codes]
        return _dated(column, found.format, found.other, when, np.isnat(when) & (codes >= 0), options)
    made = _categories(column, codes, texts, options, is_text=True, kept=kept)
    mostly = None if is_category or made.encoding is None else cells.number_style(texts, counts, is_forced=True)
    if mostly is None or name in options.categorical or np.isfinite(mostly[1]).sum() < len(texts) / 2:
        return made
    other = shown(texts[np.isnan(mostly[1])].iloc[0])
    said = Decision(name, "numbers beside texts", "taken as categories", "--numeric COLUMN", False, f"such as {other}")
    return replace(made, decisions=(said, *made.decisions))


def _read(texts: Any, counts: np.ndarray, is_asked: bool) -> tuple[NumberStyle, np.ndarray] | None:
    """Return how texts say booleans or numbers, and these, None if they do not."""
    style = cells.boolean_style(texts)
    return (style, cells.parsed(texts, style)) if style else cells.number_style(texts, counts, is_asked)


def _numbers_as_text(
    column: Any,
    place: int,
    codes: np.ndarray,
    texts: Any,
    style: NumberStyle,
    read: np.ndarray,
    options: ColumnOptions,
    is_asked: bool,
) -> Understood:
    name = str(column.name)
    values = np.append(read, np.nan)[codes]
    dressed = _dressed(texts, read)
    if not is_asked and not style.is_boolean:
        found = _whole_dates(column, values, options) if dressed is None else None
        found = found or _running(name, column, values, place if dressed is None else -1)
        if found is not None:
            return found
    said = list[Decision]()
    if style.is_boolean:
        said.append(Decision(name, "two words for yes and no", "taken as 1 and 0", "--categorical COLUMN", False))
    elif not is_asked and dressed is not None:
        said.append(Decision(name, "numbers as text", "read as numbers", "--categorical COLUMN", detail=dressed))
    return _numeric(column, values, np.isnan(values) & (codes >= 0), Numeric(name, style=style), options, said)


def _dressed(texts: Any, read: np.ndarray) -> str | None:
    """Return an example of a text that says a number with more than its digits, such as "'1,234' is 1234"."""
    head = texts.iloc[: cells.SAMPLE]
    other = np.flatnonzero(np.isfinite(read[: len(head)]) & ~head.str.fullmatch(r"[-+0-9.eE]+").to_numpy(bool))
    if len(other) == 0:
        return None
    first = int(other[0])
    return f"{shown(head.iloc[first])} is {read[first]:.10g}"


def _categories(
    column: Any, codes: np.ndarray, texts: Any, options: ColumnOptions, *, is_text: bool, kept: bool = False
) -> Understood:
    """Return categories with what is done with the rare and the missing ones, unless they are free text."""
    name, n_present = str(column.name), int((codes >= 0).sum())
    is_asked = name in options.categorical
    if n_present == 0:
        return left_out(name, "no value in any row", "")
    is_free = len(texts) == n_present > 1
    if is_free and not kept and not is_asked:
        return left_out(name, "texts that are all different", detail=f"such as {shown(texts.iloc[0])}")
    counts = cells.counts_of(codes, len(texts))
    least = 1 if is_free or len(codes) < TINY else min(LEAST, max(FEWEST, len(codes) // ROWS_A_CATEGORY))
    n_missing = int((codes < 0).sum())
    encoding = Category(name, has_missing=n_missing > 0 and options.filler != MEAN, is_text=is_text)
    made = categories_of(encoding, codes, texts, least, MAX_CLASSES if is_asked else MAX_CATEGORIES)
    n_covered = int(counts[counts >= max(FEWEST, least)].sum())
    if not is_asked and not kept and n_covered < COVERED * n_present:
        return left_out(name, "free text", detail=f"{len(texts)} different texts, such as {shown(texts.iloc[0])}")
    if made.is_constant:
        return left_out(name, "one value only", "")
    said = list[Decision]()
    if made.has_other:
        n = len(texts) - len(made.categories)
        why = f"categories of fewer than {least} rows" if len(made.categories) < MAX_CATEGORIES else "many categories"
        said.append(Decision(name, why, "taken together as other", "--drop COLUMN", detail=f"{n} of {len(texts)}"))
    if n_missing:
        done = "a category of their own" if made.has_missing else "filled in by the mean of all categories"
        said.append(_gaps(name, "missing categories", done, n_missing, options))
    return Understood(made, tuple(said))


def _asked_format(column: Any) -> tuple[str, str]:
    """Return the format of a column that was named as dates, and another that fits as well or ""."""
    kind = cells.kind_of(column)
    if kind == cells.TEXT:
        codes, texts = cells.different(column)
        found = dates.read_dates(texts, cells.counts_of(codes, len(texts)), is_forced=True)
        return (ISO, "") if found is None else (found.format, found.other)
    if kind != cells.NUMBER:
        return dates.TYPED, ""
    values = cells.numbers(column)[0]
    present = values[np.isfinite(values)]
    lowest, highest = present.min(initial=np.inf), present.max(initial=-np.inf)
    if 1000 <= lowest <= highest < 3000:
        return "%Y", ""
    return ("%Y%m%d", "") if 10000101 <= lowest <= highest < 30000101 else (dates.SECONDS, "")


def _dates(column: Any, form: str, other: str, options: ColumnOptions, is_asked: bool = False) -> Understood:
    """Return what a column of dates in a known format is taken for."""
    return _dated(column, form, other, *dates.moments(column, form), options, is_asked)


def _dated(
    column: Any,
    form: str,
    other: str,
    when: np.ndarray,
    odd: np.ndarray,
    options: ColumnOptions,
    is_asked: bool = False,
) -> Understood:
    """Return the parts of dates that vary.

    form, other: their format, and another that fits.  when, odd: as `dates.moments` returns them.
    """
    name = str(column.name)
    fitted = Date(name, form).of_moments(when, options.filler)
    n_missing = int(np.isnat(when).sum())
    if n_missing == len(column):
        return left_out(name, "no date in any row", "")
    if fitted.is_constant and not fitted.has_indicator:
        return left_out(name, "one value only", "")
    said = list[Decision]()
    if not is_asked:
        called = f"as {form}" if form not in (dates.TYPED, ISO) else ""
        doubt = f", which could be {other} too" if other else ""
        done = f"taken as {', '.join(fitted.parts) or 'given or missing, as all are the same'}"
        said.append(Decision(name, "dates or times", done, "--categorical COLUMN", detail=called + doubt))
    if odd.any():
        said.append(
            Decision(
                name, "cells that are no dates", "taken as missing", "--categorical COLUMN", detail=example(column, odd)
            )
        )
    if n_missing > odd.sum():
        done = "filled in by the middle date" + ", with a feature that says so" * fitted.has_indicator
        said.append(_gaps(name, "missing dates", done, n_missing - int(odd.sum()), options))
    return Understood(fitted, tuple(said))


def _gaps(name: str, found: str, done: str, n: int, options: ColumnOptions) -> Decision:
    """Return what is done with missing values, which is no change where it was asked for."""
    return Decision(name, found, done, "--drop COLUMN", options.impute is None, str(n))


def _first(column: Any) -> str:
    return shown(column.dropna().iloc[0])


def _is_whole(values: np.ndarray) -> bool:
    return bool((values == np.floor(values)).all())
