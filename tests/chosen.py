"""Which cases run: some rows of a test's factors, with the whole product behind `-m full`; and shares of that."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Sequence
from itertools import combinations, product
from random import Random
from typing import Any

import pytest

Row = tuple[Any, ...]  # a value of each factor, in the factors' order


def pairwise(**factors: Sequence[Any]) -> list[Row]:
    """Return rows in which every pair of values of two factors occurs.

    A row begins with a pair that is missing, of values that had their turn least often; then each factor, the longest
    first, takes the value that brings most new pairs.
    """
    numbers = {name: range(len(values)) for name, values in factors.items()}
    names = sorted(numbers, key=lambda name: -len(numbers[name]))
    left = {
        frozenset({(a, i), (b, j)}): None for a, b in combinations(names, 2) for i, j in product(numbers[a], numbers[b])
    }
    rows, used = [], Counter()
    while left:
        row = dict(min(left, key=lambda pair: sum(used[item] for item in pair)))
        for name in names:
            if name not in row:
                gains = [sum(frozenset({(name, i), item}) in left for item in row.items()) for i in numbers[name]]
                row[name] = min(numbers[name], key=lambda i: (-gains[i], used[name, i]))
        used.update(row.items())
        for pair in combinations(row.items(), 2):
            left.pop(frozenset(pair), None)
        rows.append(tuple(factors[name][row[name]] for name in factors))
    return rows


def in_turn(**factors: Sequence[Any]) -> list[Row]:
    """Return rows in which every value occurs: as many as the longest factor has values, which keep their order."""
    longest = max(factors, key=lambda name: len(factors[name]))
    columns = []
    for number, (name, values) in enumerate(factors.items()):
        column = [values[i % len(values)] for i in range(len(factors[longest]))]
        if name != longest:
            Random(number).shuffle(column)
        columns.append(column)
    return list(zip(*columns, strict=True))


def cases(choose: str, factors: dict[str, Sequence[Any]], full: bool) -> list[Any]:
    """Return the rows that `choose` names, and with `full` all others of the product too, marked full."""
    numbers = {name: range(len(values)) for name, values in factors.items()}
    chosen = {"pairwise": pairwise, "in_turn": in_turn}[choose](**numbers)
    others = sorted(set(product(*numbers.values())) - set(chosen)) if full else []
    marked = [(row, ()) for row in chosen] + [(row, pytest.mark.full) for row in others]
    return [
        pytest.param(*(values[i] for values, i in zip(factors.values(), row, strict=True)), marks=marks)
        for row, marks in marked
    ]


def spread(places: Sequence[int], most: int) -> Sequence[int]:
    """Return `most` of the places, the first and the last and others evenly between; all where there are no more."""
    if len(places) <= most:
        return places
    return [places[i * (len(places) - 1) // (most - 1)] for i in range(most)]


def in_share(name: str, share: str) -> bool:
    """Whether a test belongs to a share K/N: the same on each machine, and of all tests alike."""
    match = re.fullmatch(r"(\d+)/(\d+)", share)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise pytest.UsageError(f"--share is {share}, needed is K/N with K from 1 to N, such as 3/8")
    return zlib.crc32(name.encode()) % int(match[2]) == int(match[1]) - 1
