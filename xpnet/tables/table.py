"""A table that was read, and how it was read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from xpnet.tables.decisions import Decision


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


@dataclass(frozen=True)
class Table:
    """A table as it was read.

    frame: a pandas DataFrame, whose index is 1 for the first row below the header.
    reading: how it was read, with what was found out.  decisions: what was found out and is worth saying.
    """

    frame: Any
    reading: Reading
    decisions: tuple[Decision, ...] = ()
