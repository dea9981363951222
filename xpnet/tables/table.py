"""A table that was read, and how it was read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from xpnet.checks import check_option, shown
from xpnet.tables.decisions import Decision

ENCODINGS = ("utf-8", "utf-16", "cp1252", "latin-1", "cp1250", "cp1251", "mac-roman")  # named where another is unknown


@dataclass(frozen=True)
class Reading:
    """How a file of text is read; None for what is found out.

    separator: between fields, one sign; " " for any number of blanks.  decimal: the sign before decimal places.
    encoding: such as "utf-8".  na_values: texts that stand for a missing value, beside those that pandas knows.
    """

    separator: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    na_values: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        sign = self.separator
        if sign is not None and (len(sign) != 1 or not sign.isascii() or sign.isalnum() or sign in "\"'.+-_\r\n\0"):
            raise ValueError(
                f"the separator is {shown(sign)}; it must be one sign, no letter, digit, quote or part of a number; "
                "give one such as ';'"
            )
        if self.decimal is not None:
            check_option("decimal", self.decimal, (".", ","))
        if self.encoding is not None:
            try:
                "".encode(self.encoding)
            except LookupError:
                check_option("encoding", self.encoding, ENCODINGS)


@dataclass(frozen=True)
class Table:
    """A table as it was read.

    frame: a pandas DataFrame, whose index is 1 for the first row below the header.
    reading: how it was read, with what was found out.  decisions: what was found out and is worth saying.
    """

    frame: Any
    reading: Reading
    decisions: tuple[Decision, ...] = ()
