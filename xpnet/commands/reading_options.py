"""The options of reading tables, and what a run keeps of them."""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from typing import Any

from xpnet.checks import shown
from xpnet.commands.arguments import Several, UsageError, checked
from xpnet.tables.table import Reading
from xpnet.tables.text import NONE

OPTIONS = ("separator", "decimal", "encoding", "na_values")
# What a shell does not pass on easily, by names.
SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "bar": "|", "blank": " "}
KEPT = "reading"  # in the data section of a run's config.json


def add_reading(group: argparse._ActionsContainer) -> None:
    """Add the options of reading."""
    group.add_argument(
        "--separator",
        type=checked(_separator),
        metavar="SIGN",
        help="of a table as text: the sign between fields, or comma, semicolon, tab, bar, blank (default: found out)",
    )
    group.add_argument(
        "--decimal",
        type=checked(_decimal),
        metavar="SIGN",
        help="of a table as text: the sign before decimal places, . or a comma (default: found out)",
    )
    group.add_argument(
        "--encoding",
        type=checked(_encoding),
        metavar="NAME",
        help="of a table as text: such as utf-8 or cp1252 (default: found out)",
    )
    group.add_argument(
        "--na-values",
        type=lambda text: [part.strip() for part in text.split(",")],
        action=Several,
        metavar="TEXT[,TEXT...]",
        help="of a table: what stands for a missing value too, beside an empty field, NA, NaN, null and the like",
    )


def reading_of(arguments: argparse.Namespace, kept: Reading | None = None) -> Reading:
    """Return how the options say to read.

    kept: of the run, whose decimal sign and missing values hold for other files of it too.
    """
    na_values = arguments.na_values
    given = Reading(
        arguments.separator,
        arguments.decimal,
        arguments.encoding,
        tuple(na_values if isinstance(na_values, list) else [] if na_values is None else [na_values]),
    )
    if kept is None:
        return given
    return replace(given, decimal=given.decimal or kept.decimal, na_values=given.na_values or kept.na_values)


def check_stray(arguments: argparse.Namespace, found: str) -> None:
    """Refuse options of reading beside what is no table.  found: what it is."""
    for name in OPTIONS:
        if getattr(arguments, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')} goes with a table, not with {found}; leave it out")


def to_kept(reading: Reading) -> dict[str, Any]:
    """Return a reading as the data section of a run's config.json keeps it."""
    return {KEPT: asdict(reading)}


def from_kept(data: dict[str, Any]) -> Reading:
    """Return the reading of a run by the data section of its config.json."""
    if KEPT not in data:  # a run of an older version, for which None was missing
        return Reading(na_values=(NONE,))
    found = data[KEPT]
    names = [*Reading.__dataclass_fields__]
    if not isinstance(found, dict) or not set(found) <= set(names):
        raise ValueError(
            f"the config of the run has the reading {shown(found)}; it must have {', '.join(names)}; restore it"
        )
    na_values = found.get("na_values", [])
    signs = {name: found.get(name) for name in names if name != "na_values"}
    if not (
        all(text is None or isinstance(text, str) for text in signs.values())
        and isinstance(na_values, (list, tuple))
        and all(isinstance(text, str) for text in na_values)
    ):
        raise ValueError(f"the config of the run has the reading {shown(found)}; all of it must be texts; restore it")
    return Reading(**signs, na_values=tuple(na_values))


def _separator(text: str) -> str:
    sign = SEPARATORS.get(text.lower(), text)
    Reading(separator=sign)  # refuses what is none
    return sign


def _decimal(text: str) -> str:
    Reading(decimal=text)
    return text


def _encoding(text: str) -> str:
    Reading(encoding=text)
    return text
