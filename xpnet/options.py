"""Check a value that must be one of a few names, and name the nearest where it is not."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def check_option(argument: str, found: object, choices: Iterable[str]) -> str:
    """Return `found` if it is one of `choices`; else raise ValueError that lists them and names the nearest."""
    choices = tuple(choices)
    if isinstance(found, str) and found in choices:
        return found
    near = difflib.get_close_matches(str(found).lower(), choices, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{argument} is {found!r}, needed is one of {', '.join(map(repr, choices))}{hint}")
