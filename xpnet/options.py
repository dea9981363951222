"""Check what a user passes: one of a few names (the nearest is named where it is not), or a whole number."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Iterable
from typing import Any


def check_option(argument: str, found: object, choices: Iterable[str]) -> str:
    """Return `found` if it is one of `choices`; else raise ValueError that lists them and names the nearest."""
    choices = tuple(choices)
    if isinstance(found, str) and found in choices:
        return found
    text = str(found).lower()
    # "gpu" is spelled more like "cpu", the opposite of what was meant
    near = ["cuda"] if text == "gpu" and "cuda" in choices else difflib.get_close_matches(text, choices, 1, 0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{argument} is {found!r}, needed is one of {', '.join(map(repr, choices))}{hint}")


def check_whole(argument: str, found: Any, at_least: int) -> int:
    """Return `found` as an int; raises TypeError if it is not a whole number, ValueError if it is too small."""
    try:
        number = at_least - 1 if isinstance(found, bool) else operator.index(found)
    except TypeError:
        raise TypeError(
            f"{argument} is {found!r} ({type(found).__name__}); it must be a whole number of at least {at_least}. "
            "Pass an int."
        ) from None
    if number < at_least:
        raise ValueError(
            f"{argument} is {found!r}; it must be at least {at_least}. Pass {argument}={at_least} or more."
        )
    return number
