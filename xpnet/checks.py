"""Check the arguments of users: an option, a path, a whole number, a number, sample weights."""

from __future__ import annotations

import difflib
import math
import operator
import os
from collections.abc import Iterable
from typing import Any

import numpy as np

NEAR = 0.6  # similarity of a name and its misspelling; below it a suggestion misleads
MAX_NAME = 100  # characters of a name that are compared


def shown(value: object, at_most: int = 60) -> str:
    """Return a value, perhaps of a file, as it stands in a message: cut, and without control characters."""
    try:
        text = repr(value[:at_most] if isinstance(value, (str, bytes)) else value)
    except (ValueError, RecursionError):  # a number of thousands of digits; nested too deep
        return f"a {type(value).__name__} too large to show"
    is_cut = len(text) > at_most + 2 or (isinstance(value, (str, bytes)) and len(value) > at_most)
    return f"{text[: at_most - 3]}..." if is_cut else text


def one_line(error: object, at_most: int = 300) -> str:
    """Return the words of an error, perhaps about a file, in one line: cut, and without control characters."""
    text = "".join(sign if sign.isprintable() else " " for sign in str(error)[: 4 * at_most])
    text = " ".join(text.split()) or type(error).__name__
    return text if len(text) <= at_most else f"{text[: at_most - 3]}..."


class OutOfBounds(ValueError):
    """A number that is not finite, or out of its bounds.

    argument, found, needed: the parts of the message, for the words of a command.  example: a call that works.
    """

    def __init__(self, argument: str, found: str, needed: str, example: str) -> None:
        super().__init__(argument, found, needed, example)
        self.argument, self.found, self.needed, self.example = argument, found, needed, example

    def __str__(self) -> str:
        return f"{self.argument} is {self.found}; it must be a finite {self.needed}, such as {self.example}"


def is_built_in(kind: type) -> bool:
    """Whether a class is xpnet's own."""
    return kind.__module__.partition(".")[0] == __name__.partition(".")[0]


def check_option(argument: str, found: object, choices: Iterable[str], beside: str = "") -> str:
    """Return `found` if it is one of `choices`; raises a ValueError that lists them and suggests the nearest.

    beside: what else could be given, for the message, such as ", or name a file".
    """
    choices = tuple(choices)
    if isinstance(found, str) and found in choices:
        return found
    text = found.lower()[:MAX_NAME] if isinstance(found, str) else shown(found)
    # "gpu" is spelled more like "cpu", the opposite of what was meant
    begun = [choice for choice in choices if text and choice.startswith(text)]
    near = begun or difflib.get_close_matches(text, choices, 1, NEAR)
    near = ["cuda"] if text == "gpu" and "cuda" in choices else near
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{argument} is {shown(found)}, choose one of {', '.join(map(repr, choices))}{beside}{hint}")


def check_path(argument: str, found: Any, example: str) -> str | os.PathLike[str]:
    """Return `found` if it is a path; raises TypeError for anything else, including a file descriptor.

    example: a call that works, for the message.
    """
    if isinstance(found, (str, os.PathLike)):
        return found
    raise TypeError(
        f"{argument} is {shown(found)} ({type(found).__name__}); it must be the path of a file, such as {example}"
    )


def refuse_masked(**arrays: Any) -> None:
    """Refuse masked arrays of NumPy's that hide values, which would be used as if they were shown."""
    for name, array in arrays.items():
        if isinstance(array, np.ma.MaskedArray) and (n_hidden := int(np.ma.getmaskarray(array).sum())):
            raise ValueError(
                f"{name} is a masked array that hides {n_hidden} value{'s' * (n_hidden > 1)}; all must be numbers to "
                f"use; fill them in with {name}.filled(value), or leave these samples out"
            )


def check_whole(argument: str, found: Any, at_least: int) -> int:
    """Return `found` as an int; raises TypeError if it is not a whole number, ValueError if it is too small."""
    try:
        number = at_least - 1 if isinstance(found, bool) else operator.index(found)
    except TypeError:
        raise TypeError(
            f"{argument} is {shown(found)} ({type(found).__name__}); it must be a whole number of at least {at_least}. "
            "Pass an int."
        ) from None
    if number < at_least:
        raise ValueError(
            f"{argument} is {shown(found)}; it must be at least {at_least}. Pass {argument}={at_least} or more."
        )
    return number


def check_number(
    argument: str,
    found: Any,
    *,
    above: float = -math.inf,
    at_least: float = -math.inf,
    below: float = math.inf,
    at_most: float = math.inf,
    example: str,
) -> float:
    """Return `found` as a float; raises TypeError if it is no number, ValueError unless finite and in bounds.

    example: a call that works, for the message.
    """
    above, at_least, below, at_most = map(float, (above, at_least, below, at_most))  # NumPy's compare to its own bools
    bounds = [f"above {above:g}"] * (above > -math.inf) + [f"of at least {at_least:g}"] * (at_least > -math.inf)
    bounds += [f"below {below:g}"] * (below < math.inf) + [f"of at most {at_most:g}"] * (at_most < math.inf)
    needed = f"number {' and '.join(bounds)}".rstrip()
    if isinstance(found, bool) or not isinstance(found, (int, float, np.floating, np.integer)):
        raise TypeError(f"{argument} is {shown(found)}; it must be a {needed}, such as {example}")
    try:
        number = float(found)
    except OverflowError:  # an int beyond the range of floats
        number = math.inf
    inside = above < number < below and at_least <= number <= at_most
    if not (math.isfinite(number) and inside):
        raise OutOfBounds(argument, shown(found) if isinstance(found, int) else str(found), needed, example)
    return number


def by_their_mean(weights: Any) -> Any:
    """Return sample weights (n_samples,), finite and at least 0, divided by their mean, in float64; zeros stay zeros.

    Weighted means do not change, and neither sum nor quotient leaves the range of floats.
    """
    scaled, _ = within_one(weights)
    return scaled / scaled.mean() if scaled.any() else scaled


def mean_weight(weights: Any) -> float:
    """Return the mean of sample weights (n_samples,), finite and at least 0, whose sum may be beyond all floats."""
    scaled, exponent = within_one(weights)
    return float(np.ldexp(scaled.mean(), exponent))


def within_one(weights: Any) -> tuple[Any, int]:
    """Return weights in float64, divided by a power of 2 so that they are 1 at most, and its exponent."""
    exponent = int(np.frexp(float(weights.max()))[1])
    return np.ldexp(weights.astype(np.float64), -exponent), exponent  # exact
