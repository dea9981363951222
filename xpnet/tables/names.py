"""What the name of a column says about it: that it has none, numbers the rows, or holds times."""

from __future__ import annotations

import re

# Words of which an identifier's name consists, or in which it ends; and words that say that a rising number is time.
_IDENTIFIERS = {
    *("id", "ids", "index", "idx", "rowname", "rownames", "rowid", "rownumber", "row", "no", "nr", "num", "number"),
    *("key", "uuid", "guid", "obs", "observation", "case", "caseid", "serial", "seq", "lfdnr", "unnamed"),
}
_ENDINGS = {"id", "ids", "idx", "index", "no", "nr", "num", "number", "key", "uuid", "guid"}
TIMES = {
    *("year", "years", "yr", "month", "week", "day", "days", "date", "datum", "time", "t", "quarter", "hour", "age"),
    *("period", "timestamp", "jahr", "zeit", "decade", "season"),
}
DATED = {"date", "day", "datum", "timestamp", "time", "dt", "when", "ymd"}


def is_nameless(name: str) -> bool:
    """Whether a column has no name in its file."""
    return not name.strip() or re.fullmatch(r"Unnamed: \d+", name) is not None


def words_of(name: str) -> list[str]:
    """Return the words of a name such as customer_id, CustomerID or "customer no.", in small letters."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def names_rows(name: str) -> bool:
    """Whether a column is named like an identifier."""
    words = words_of(name)
    return bool(words) and (words[-1] in _ENDINGS or _IDENTIFIERS.issuperset(words) or "".join(words) in _IDENTIFIERS)
