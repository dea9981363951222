"""The cells of a column: what kind they are of, their different texts, and the numbers that they are or that they say.

A column is a pandas Series. Work on texts is done once for each different text, by pandas' own functions on arrays.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

NUMBER, TEXT, DATE, OTHER = "number", "text", "date", "other"
# What pandas infers of Python's objects. Where it finds several types, each of them is looked at.
_INFERRED = {
    NUMBER: ("integer", "floating", "mixed-integer-float", "decimal", "boolean", "timedelta", "timedelta64", "empty"),
    TEXT: ("string", "interval"),
    DATE: ("date", "datetime", "datetime64", "time", "period"),
}
BOOLEANS = {"no": 0.0, "n": 0.0, "false": 0.0, "f": 0.0, "yes": 1.0, "y": 1.0, "true": 1.0, "t": 1.0}
# Texts that stand for a missing number, and are no category beside numbers.
MARKERS = (
    *("?", "-", "--", "---", ".", "..", "*", "na", "n/a", "n.a.", "#n/a"),
    *("nil", "none", "null", "missing", "unknown", "k.a.", "k. a.", "s/d", "n.d.", "n/d"),
)
LONGEST = 40  # characters of a number
_CURRENCY = r"[$€£¥₹]|US\$|USD|EUR|GBP|CHF"
_SPACES = " '’_\u00a0\u2009\u202f"  # that separate thousands, whatever the decimal sign
_MINUS = "\u2212"  # the sign of typesetters
SAMPLE = 200  # different texts that say whether it is worth looking at all


@dataclass(frozen=True)
class NumberStyle:
    """How the texts of a column say numbers.

    decimal: "." or ","; the other one separates thousands.  unit: what follows each number, such as "kg".
    is_boolean: whether they are words such as yes and no.  is_plain: whether the column holds numbers, and no texts.
    """

    decimal: str = "."
    unit: str = ""
    is_boolean: bool = False
    is_plain: bool = True

    def of_file(self, decimal: str) -> NumberStyle:
        """Return the style for texts among the numbers of other files, which have that decimal sign too."""
        return replace(self, decimal=decimal) if self.is_plain else self


PLAIN = NumberStyle()
BOOLEAN = NumberStyle(is_boolean=True, is_plain=False)


def kind_of(column: Any) -> str:
    """Return NUMBER, TEXT, DATE (dates or times of day) or OTHER; a column without a value is of numbers."""
    import pandas

    dtype, types = column.dtype, pandas.api.types
    if isinstance(dtype, (pandas.CategoricalDtype, pandas.StringDtype, pandas.IntervalDtype)):
        return TEXT
    if types.is_bool_dtype(dtype) or types.is_timedelta64_dtype(dtype):
        return NUMBER
    if types.is_numeric_dtype(dtype):
        return OTHER if types.is_complex_dtype(dtype) else NUMBER
    if types.is_datetime64_any_dtype(dtype) or isinstance(dtype, pandas.PeriodDtype):
        return DATE
    inferred = types.infer_dtype(column, skipna=True)
    found = next((kind for kind, names in _INFERRED.items() if inferred in names), OTHER)
    if found == OTHER and inferred.startswith("mixed"):
        simple = (str, bool, int, float, np.generic)
        return TEXT if all(issubclass(kind, simple) for kind in set(map(type, column.dropna()))) else OTHER
    return found


def different(column: Any) -> tuple[np.ndarray, Any]:
    """Return the place (n,) of each cell among the different texts, -1 for a missing one, and these texts.

    Blanks at both ends do not count, and an empty text is missing. A whole number is written without a point.
    """
    import pandas

    codes, found = pandas.factorize(column)
    texts = pandas.Series(_texts_of(found), dtype="string").str.strip()
    again, texts = pandas.factorize(texts.where(texts != ""))  # those that are the same without blanks
    texts = pandas.Series(texts, dtype="string")
    return np.append(again, -1)[codes], texts


def _texts_of(values: Any) -> Any:
    """Return different values as texts."""
    import pandas

    if pandas.api.types.infer_dtype(values, skipna=True) in ("string", "empty"):
        return values.to_numpy(object)
    return [_text_of(value) for value in values.tolist()]


def _text_of(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def without_point(texts: Any) -> Any:
    """Return texts in which whole numbers have no point: 1 for 1.0."""
    return texts.str.replace(r"^([-+]?\d+)\.0+$", r"\1", regex=True)


def counts_of(codes: np.ndarray, n_texts: int) -> np.ndarray:
    """Return how often each text occurs (n_texts,)."""
    return np.bincount(codes[codes >= 0], minlength=n_texts)


def numbers(column: Any, style: NumberStyle = PLAIN) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers (n,) in float64, NaN for those that are missing, and which cells (n,) hold something else.

    What stands for a missing number, such as "?", is missing. Infinity stays, a whole number beyond all floats becomes
    it. Durations are in days.
    """
    kind = kind_of(column)
    if kind == NUMBER:
        return _plain_numbers(column), np.zeros(len(column), bool)
    missing = column.isna().to_numpy()
    if kind != TEXT:
        return np.full(len(column), np.nan), ~missing
    codes, texts = different(column)
    read = parsed(texts, style)
    if style.is_plain:  # booleans became texts beside an odd cell
        read = np.where(np.isnan(read), parsed(texts.where(texts.str.len() > 1), BOOLEAN), read)
    values = np.append(read, np.nan)[codes]
    is_odd = np.append(~texts.str.lower().isin(MARKERS).to_numpy(bool), False)[codes]
    return values, np.isnan(values) & is_odd


def _plain_numbers(column: Any) -> np.ndarray:
    import pandas

    if pandas.api.types.is_timedelta64_dtype(column.dtype):
        return np.asarray(column.dt.total_seconds().to_numpy(np.float64) / 86400.0)
    try:
        if column.dtype.kind == "O":
            column = column.astype(object)
            if pandas.api.types.infer_dtype(column, skipna=True).startswith("timedelta"):
                return _plain_numbers(pandas.to_timedelta(column))
        return np.array(column.to_numpy(np.float64, na_value=np.nan), np.float64)
    except (OverflowError, TypeError, ValueError):  # whole numbers beyond all floats, or objects of several types
        return np.array([_float_of(value) for value in column], np.float64)


def _float_of(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return np.inf if value > 0 else -np.inf
    except (TypeError, ValueError):  # None, NA
        return np.nan


def parsed(texts: Any, style: NumberStyle) -> np.ndarray:
    """Return the number (n,) that each text says, NaN for one that says none."""
    import pandas

    if style.is_boolean:
        return np.asarray(texts.str.lower().map(BOOLEANS).to_numpy(np.float64, na_value=np.nan))
    values = np.full(len(texts), np.nan)
    short = (texts.str.len() <= LONGEST).to_numpy(bool, na_value=False)
    is_plain = short
    if style.decimal != ".":  # a point that cannot part thousands is a decimal sign all the same
        is_plain = short & texts.str.fullmatch(r"[-+]?(\d*\.(\d{1,2}|\d{4,})|[^.]*)").to_numpy(bool, na_value=False)
    # A text that ends in no digit is not tried, since a failure is slow.
    is_plain = is_plain & texts.str.slice(-1).isin(list("0123456789.fF")).to_numpy(bool)
    values[is_plain] = pandas.to_numeric(texts[is_plain].to_numpy(object), errors="coerce")
    rest = short & np.isnan(values)
    if rest.any():
        values[rest] = _styled(texts[rest], style)
    return values


def _styled(texts: Any, style: NumberStyle) -> np.ndarray:
    """Return the numbers that short texts say with signs of currency, percent, thousands and a unit."""
    import pandas

    group = rf"[{_SPACES}{',' if style.decimal == '.' else '.'}]"
    point = re.escape(style.decimal)
    unit = rf"|{re.escape(style.unit)}" if style.unit else ""
    pattern = (
        rf"[-+{_MINUS}(]? ?(?:{_CURRENCY})? ?[-+{_MINUS}]?(?:\d{{1,3}}(?:{group}\d{{3}})+|\d+)?(?:{point}\d*)?"
        rf"(?:[eE][-+{_MINUS}]?\d+)? ?(?:%|{_CURRENCY}{unit})?\)?"
    )
    is_number = texts.str.fullmatch(pattern).to_numpy(bool, na_value=False)
    cleaned = texts.where(is_number, "")
    if style.unit:
        cleaned = cleaned.str.removesuffix(style.unit)
    cleaned = cleaned.str.replace(_CURRENCY, "", regex=True).str.replace(rf"[{_SPACES}%+)]|{group}", "", regex=True)
    cleaned = cleaned.str.replace(rf"[({_MINUS}]", "-", regex=True).str.replace(style.decimal, ".", regex=False)
    values = pandas.to_numeric(cleaned.to_numpy(object), errors="coerce").astype(np.float64)
    share = texts.str.endswith("%").to_numpy(bool, na_value=False)
    return np.where(is_number, np.where(share, values / 100.0, values), np.nan)


def boolean_style(texts: Any) -> NumberStyle | None:
    """Return the style of words such as yes and no, None if any text is none of these."""
    if not 0 < len(texts) <= 8 or not set(texts.str.lower()) <= BOOLEANS.keys():
        return None
    return BOOLEAN


def number_style(texts: Any, counts: np.ndarray, is_forced: bool = False) -> tuple[NumberStyle, np.ndarray] | None:
    """Return how texts say numbers, and these (n,), None if they do not; a few may be odd, such as "?" or a footer.

    counts: how often each occurs.  is_forced: whether they are numbers however few of them can be read.
    """
    head = texts.iloc[:SAMPLE]
    styles = [NumberStyle(decimal, unit, is_plain=False) for unit in _units(head) for decimal in ".,"]
    n_read = [int(np.isfinite(parsed(head, style)).sum()) for style in styles]
    if max(n_read) < len(head) / 2 and not is_forced:
        return None
    style = styles[int(np.argmax(n_read))]
    values = parsed(texts, style)
    odd = np.isnan(values)
    return (style, values) if is_forced or not odd.any() or _are_few(texts, counts, odd) else None


def _are_few(texts: Any, counts: np.ndarray, odd: np.ndarray) -> bool:
    """Whether odd texts among numbers are slips rather than categories.

    They are if they stand for what is missing. Others must be rare beside many different numbers.
    """
    words = texts[odd].str.lower()
    others = odd.copy()
    others[odd] = ~words.isin(MARKERS).to_numpy(bool)
    n_numbers, n_others = int((~odd).sum()), int(counts[others].sum())
    if n_others == 0:
        return n_numbers > 0
    return n_numbers > 10 and n_others <= max(1, counts.sum() // 20)


def _units(texts: Any) -> list[str]:
    """Return "" and, where most texts end in the same word, that word."""
    ends = texts.str.extract(r"^[-+]?[\d.,' ]*\d ?([A-Za-z°µ²³/]{1,10})$")[0].dropna()
    return ["", ends.iloc[0]] if ends.nunique() == 1 and len(ends) > len(texts) / 2 else [""]
