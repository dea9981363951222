"""The formats of dates and times: which ones a text could have, the likelier ones first."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import permutations

ISO, QUARTER = "ISO8601", "quarter"  # beside formats of strftime
LONGEST = 40  # characters of a date
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def formats_of(text: str) -> list[str]:
    """Return the formats, of strftime or of those above, that a text could have as a date or a time."""
    if len(text) > LONGEST or not re.search(r"\d", text):
        return []
    if re.fullmatch(r"\d{4}[- /]?[Qq][1-4]", text):
        return [QUARTER]
    iso = [ISO] if re.match(r"\d{4}-\d{2}-\d{2}(?:[T ]|$)", text) else []
    clock = re.search(r"(\d{1,2}:\d{2})(:\d{2})?(\.\d+)?( ?[AaPp][Mm])?(?: ?(?:Z|[-+]\d{2}:?\d{2}))?$", text)
    time = ""
    if clock is not None:
        time = ("%I" if clock[4] else "%H") + ":%M" + (":%S" if clock[2] else "") + (".%f" if clock[3] else "")
        time += {True: " %p", False: "%p"}[clock[4].startswith(" ")] if clock[4] else ""
        text = text[: clock.start()]
        if not text:
            return [time]
    return [*iso, *(form + time for form in _day_formats(text))]


def _day_formats(text: str) -> list[str]:
    """Return the formats that a text without a time could have as a date."""
    tokens = re.findall(r"\d+|[^\W\d_]+|[\W_]+", text)
    fixed, open_places, found = list[str](), list[int](), set[str]()
    for token in tokens:
        sign, word = token.replace("%", "%%"), token[:3].lower()
        if token.isdigit():
            sign = {4: "%Y", 8: "%Y%m%d"}.get(len(token), "?" if len(token) <= 2 else "")
            if sign == "?":
                open_places.append(len(fixed))
        elif word in _MONTHS and token.isalpha():
            sign = "%b" if len(token) == 3 else "%B"
        elif word in _WEEKDAYS and token.isalpha():
            sign = "%a" if len(token) == 3 else "%A"
        elif token.isalpha() and token != "T":
            sign = ""
        if sign == "" or (sign.startswith("%") and sign in found):
            return []
        fixed.append(sign)
        found.add(sign)
    return [] if len(open_places) > 3 else list(_filled(fixed, open_places, found))


def _filled(fixed: list[str], places: list[int], found: set[str]) -> Iterator[str]:
    """Yield the formats in which year, month and day stand in the open places, the likelier ones first."""
    has_month, has_year = bool(found & {"%b", "%B"}), "%Y" in found
    if len(places) == 2 and not has_month and not has_year:  # 10-20 is no date
        return
    if "%Y%m%d" in found:
        needed: tuple[str, ...] = ()
    else:
        needed = ("%d",) * (len(places) == 3 - has_month - has_year)
        needed += () if has_month else ("%m",)
        needed += () if has_year else ("%y",)
    if len(needed) != len(places) or (len(places) == 0 and not found & {"%Y", "%Y%m%d"}) or fixed == ["%Y"]:
        return
    is_slashed = any("/" in sign for sign in fixed)
    month_first = sorted(permutations(needed), key=lambda order: order != tuple(sorted(order, key="%m%d%y".index)))
    year_last = [order for order in month_first if order[-1:] == ("%y",) or "%y" not in order]
    orders = year_last + [order for order in month_first if order[:1] == ("%y",) and order[1:] in (("%m", "%d"),)]
    if has_year and fixed[0] == "%Y":
        orders = [order for order in orders if order in (("%m", "%d"), ("%m",), ("%d",), ())]
    if not is_slashed:  # with points and dashes the day comes first
        orders = sorted(orders, key=lambda order: order[:1] != ("%d",))
    for order in orders:
        form = list(fixed)
        for place, sign in zip(places, order, strict=True):
            form[place] = sign
        yield "".join(form)
